"""Intervals of the noise scale cover what is planted where all replicates see the same images."""

from __future__ import annotations

import numpy as np
import pytest

from batchscope.analysis.noise_scale import RatioInterval, ratio_interval
from batchscope.training.gradient_noise import GradientNoise, estimate_noise

SIZE, BATCH, BATCHES = 12, 8, 30
MEAN, NOISE = np.full(SIZE, 0.3), np.linspace(0.5, 2.0, SIZE)
TRACE = float(NOISE @ NOISE)
Floats = np.ndarray


def replicates(rng: np.random.Generator, count: int, apart: float) -> list[GradientNoise]:
    """Mean gradients of so many runs scatter by `apart` in each weight; all runs see the same images."""
    images = rng.normal(0, NOISE / np.sqrt(BATCH), (BATCHES, SIZE))
    found = []
    for _ in range(count):
        gradients = MEAN + apart * rng.normal(size=SIZE) + images
        found.append(estimate_noise((gradients**2).sum(axis=1), gradients @ gradients.mean(axis=0), BATCH))
    return found


def interval(found: list[GradientNoise], *, images: bool) -> RatioInterval:
    pairs = np.array([[one.norm2, one.trace] for one in found]).T
    return ratio_interval(
        pairs, np.array([_jackknife(one) for one in found]) if images else None, BATCHES, 0.95
    )


def _jackknife(one: GradientNoise) -> Floats:
    both = one.correlation * one.norm2_error * one.trace_error
    return np.array([[one.norm2_error**2, both], [both, one.trace_error**2]])


@pytest.mark.parametrize(("count", "apart"), [(2, 0.02), (3, 0.02), (3, 0.1), (5, 0.05)])
def test_the_interval_over_replicates_and_batches_covers_at_least_as_often_as_it_says(
    count: int, apart: float
):
    rng, runs = np.random.default_rng(17), 1_000
    truth = TRACE / float(MEAN @ MEAN + SIZE * apart**2)
    covered, without = 0, 0
    for _ in range(runs):
        found = replicates(rng, count, apart)
        both, bare = interval(found, images=True), interval(found, images=False)
        covered += both.low <= truth <= both.high
        without += bare.low <= truth <= bare.high
    assert covered / runs >= 0.95 - 1.96 * np.sqrt(0.95 * 0.05 / runs)
    assert without / runs < covered / runs
    if apart < 0.05:
        assert without / runs < 0.9  # replicates alone do not tell how other images would differ
