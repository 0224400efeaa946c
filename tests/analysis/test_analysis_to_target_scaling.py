"""How far updates keep to perfect scaling: simulated by the hundred, and SciPy's t test."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats

from batchscope.analysis.to_target import rates_to_target
from batchscope.analysis.to_target_findings import scaling_text
from batchscope.analysis.to_target_results import PerfectScaling, TrialToTarget
from batchscope.analysis.to_target_scaling import perfect_scaling
from to_target_samples import SIZES, drawn_trials


def scaling_of(trials: list[TrialToTarget]) -> PerfectScaling:
    return perfect_scaling(rates_to_target(trials, 0.95), trials, 0.95)


def perfect(size: float) -> float:
    return 1e5 / size


@pytest.mark.parametrize("sd", [0.1, 0.2])
def test_perfect_scaling_is_seldom_said_to_be_left(sd: float) -> None:
    """By medians alone it was in 12% and 50% of these."""
    all_of = [scaling_of(drawn_trials(seed, law=perfect, replicates=3, sd=sd)) for seed in range(100)]
    assert sum(one.leaves_at is not None for one in all_of) < 7


def test_at_the_tolerance_itself_neither_is_often_said() -> None:
    law = {8: 12_500.0, 64: 1.2 * 1562.5}
    all_of = [
        scaling_of(drawn_trials(seed, law=lambda size: law[int(size)], sizes=(8, 64), replicates=5))
        for seed in range(200)
    ]
    assert sum(one.leaves_at is not None for one in all_of) < 14
    assert sum(one.up_to is not None for one in all_of) < 14


def test_a_planted_break_is_found() -> None:
    def law(size: float) -> float:
        return perfect(size) * (1 if size <= 64 else 2)

    all_of = [scaling_of(drawn_trials(seed, law=law, replicates=5, sd=0.05)) for seed in range(50)]
    assert {one.leaves_at for one in all_of} == {128}
    assert sum(one.up_to == 64 for one in all_of) >= 40
    assert all((one.up_to or 64) <= 64 for one in all_of)


def test_what_lies_between_two_measurements_far_apart_is_not_told() -> None:
    """All reach the target in the second epoch, so examples may differ twofold."""
    trials = [
        TrialToTarget(size, None, replicate, f"b{size}-r{replicate}", "reached", 2 * n, n, None, None)
        for size in SIZES
        for n in [12_800 / size]
        for replicate in (1, 2, 3)
    ]
    found = scaling_of(trials)
    assert (found.batch_size, found.up_to, found.leaves_at) == (8, None, None)
    assert scaling_text(found, "updates") == (
        "how far updates keep within 20% of perfect scaling cannot be told"
    )
    finely = [dataclasses.replace(one, updates_before=1.98 * one.updates / 2) for one in trials]
    assert scaling_of(finely).up_to == SIZES[-1]


def test_the_interval_of_the_ratio_is_students() -> None:
    """Held against SciPy's t test of two groups: up to the batch size that its interval just excludes."""
    trials = drawn_trials(4, sizes=(8, 64), replicates=6, sd=0.1, grain=1e-4, law=perfect)
    few, many = (np.log([one.updates * size for one in trials if one.batch_size == size]) for size in (8, 64))
    high = scipy.stats.ttest_ind(many, few).confidence_interval(0.95).high
    for factor, up_to in ((1.199, 64), (1.201, None)):
        slower = [
            dataclasses.replace(
                one,
                updates=one.updates * factor / math.exp(high),
                updates_before=one.updates_before * factor / math.exp(high),
            )
            if one.batch_size == 64
            else one
            for one in trials
        ]
        assert scaling_of(slower).up_to == up_to


def test_censored_trials_may_show_that_scaling_is_left_and_never_that_it_is_kept() -> None:
    trials = drawn_trials(3, sizes=(8, 16, 1024), law=perfect, sd=0.02)
    far = [
        dataclasses.replace(one, outcome="censored", updates=2 * one.updates)
        if one.batch_size == 1024
        else one
        for one in trials
    ]
    assert (scaling_of(far).up_to, scaling_of(far).leaves_at) == (16, 1024)
    near = [dataclasses.replace(one, updates=one.updates / 3) for one in far]
    near[:8] = trials[:8]
    assert (scaling_of(near).up_to, scaling_of(near).leaves_at) == (16, None)


def test_perfect_scaling_in_words() -> None:
    told = PerfectScaling(8, 100.0, 0.2, 32, 128)
    assert scaling_text(told, "updates") == (
        "updates keep within 20% of perfect scaling up to batch size 32, and no longer at 128"
    )
    only_kept = dataclasses.replace(told, leaves_at=None)
    assert scaling_text(only_kept, "updates").endswith("up to batch size 32")
    assert scaling_text(dataclasses.replace(told, up_to=None), "updates") == (
        "updates are more than 20% above perfect scaling at batch size 128"
    )
