"""The estimates behind the gradient noise scale, on gradients whose mean and covariance are planted."""

from __future__ import annotations

import numpy as np
import pytest

from batchscope.training.gradient_noise import estimate_noise

RNG = np.random.default_rng(11)
SIZE, BATCH = 30, 8
MEAN = np.linspace(-0.2, 0.4, SIZE)
DEVIATIONS = np.geomspace(0.05, 2.0, SIZE)
NORM2, TRACE = float(MEAN @ MEAN), float(DEVIATIONS @ DEVIATIONS)


def drawn(batches: int, mean: np.ndarray = MEAN) -> np.ndarray:
    """Gradients of batches of examples with that mean and those standard deviations, (K, P)."""
    return RNG.normal(mean, DEVIATIONS / np.sqrt(BATCH), (batches, SIZE))


def estimated(gradients: np.ndarray) -> np.ndarray:
    found = estimate_noise((gradients**2).sum(axis=1), gradients @ gradients.mean(axis=0), BATCH)
    return np.array([found.norm2, found.trace])


def test_the_planted_noise_scale_comes_back_within_5_percent():
    norm2, trace = estimated(drawn(40_000))
    assert trace / norm2 == pytest.approx(TRACE / NORM2, rel=0.05)
    assert (norm2, trace) == pytest.approx((NORM2, TRACE), rel=0.03)


def test_both_estimates_are_unbiased_where_batches_are_few():
    found = np.array([estimated(drawn(5, MEAN / 10)) for _ in range(20_000)])
    error = found.std(axis=0) / np.sqrt(len(found))
    assert found[:, 0].mean() == pytest.approx(NORM2 / 100, abs=4 * error[0])
    assert found[:, 1].mean() == pytest.approx(TRACE, abs=4 * error[1])
    assert (found[:, 0] < 0).mean() > 0.1  # so a mean of ratios would be no estimate


def test_they_are_the_papers_by_a_slow_loop_and_the_jackknife_leaves_each_batch_out():
    gradients = drawn(7)

    def plain(used: list[np.ndarray]) -> tuple[float, float]:
        small, count = BATCH, BATCH * len(used)
        norm_small = sum(float(each @ each) for each in used) / len(used)
        mean = sum(used) / len(used)
        norm_large = float(mean @ mean)
        norm2 = (count * norm_large - small * norm_small) / (count - small)
        return norm2, (norm_small - norm_large) / (1 / small - 1 / count)

    found = estimate_noise((gradients**2).sum(axis=1), gradients @ gradients.mean(axis=0), BATCH)
    assert (found.norm2, found.trace) == pytest.approx(plain(list(gradients)))
    without = np.array([plain([*gradients[:k], *gradients[k + 1 :]]) for k in range(7)])
    expected = 6 * np.cov(without.T, ddof=0)
    assert found.norm2_error**2 == pytest.approx(expected[0, 0])
    assert found.correlation * found.norm2_error * found.trace_error == pytest.approx(expected[0, 1])
    assert found.trace_error**2 == pytest.approx(expected[1, 1])
    assert found.batches == 7


def test_the_jackknife_tells_how_estimates_scatter():
    many = np.array([estimated(drawn(60)) for _ in range(4_000)])
    told = []
    for _ in range(300):
        gradients = drawn(60)
        found = estimate_noise((gradients**2).sum(axis=1), gradients @ gradients.mean(axis=0), BATCH)
        both = found.correlation * found.norm2_error * found.trace_error
        told.append([found.norm2_error**2, found.trace_error**2, both])
    scatter = np.cov(many.T)
    norm2, trace, both = np.mean(told, axis=0)
    assert (norm2, trace) == pytest.approx((scatter[0, 0], scatter[1, 1]), rel=0.15)
    # Of normal gradients the mean and the variance are independent, so only - trace / B brings both together.
    assert both == pytest.approx(-scatter[1, 1] / (60 * BATCH), abs=0.005)
    assert abs(both) < 0.1 * np.sqrt(norm2 * trace)
