"""Medians where trials are censored: held against statsmodels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from statsmodels.duration.survfunc import SurvfuncRight

from batchscope.analysis.to_target_medians import fewest_for_interval, median_to_target


def test_a_trial_that_has_hardly_begun_tells_nothing_of_the_median() -> None:
    """All that is known is that it lies between those of the two others."""
    median = median_to_target(np.array([1000.0, 2000.0]), np.array([50.0]), 0, 0.95)
    assert (median.value, median.low) == (1500, 50)
    assert math.isnan(median.high)
    ended = median_to_target(np.array([1000.0, 2000.0]), np.array([3000.0]), 0, 0.95)
    assert (ended.value, ended.low) == (2000, 1000)


def test_the_median_is_that_of_statsmodels_survival_curve() -> None:
    rng = np.random.default_rng(8)
    known = 0
    for n in rng.integers(3, 12, size=60):
        times, limits = rng.integers(1, 40, size=n), rng.integers(1, 60, size=n)
        there = times <= limits
        bounds = limits[~there].astype(float)
        n_diverged = int(rng.integers(0, 3))
        curve = SurvfuncRight(
            np.concatenate([np.where(there, times, limits), np.full(n_diverged, 1000)]),
            np.concatenate([there, np.zeros(n_diverged, bool)]).astype(int),
        )
        share, at = np.round(curve.surv_prob, 12), np.asarray(curve.surv_times)
        expected = (at[share <= 0.5][0] + at[share < 0.5][0]) / 2 if (share < 0.5).any() else math.nan
        value = median_to_target(times[there].astype(float), bounds, n_diverged, 0.95).value
        assert value == pytest.approx(expected, nan_ok=True)
        known += math.isfinite(value)
    assert 20 < known < 60


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_from_so_many_trials_on_their_range_holds_the_median_often_enough(confidence: float) -> None:
    n = fewest_for_interval(confidence)
    assert 1 - 2 * scipy.stats.binom.cdf(0, n, 0.5) >= confidence
    assert 1 - 2 * scipy.stats.binom.cdf(0, n - 1, 0.5) < confidence
