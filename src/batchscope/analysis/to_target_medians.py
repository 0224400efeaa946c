"""The median of what it takes trials to get to a target, where some have not got there."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import bdtr

from batchscope.analysis.panel import Floats
from batchscope.analysis.to_target_results import Median, TrialToTarget

__all__ = ["fewest_for_interval", "median_of_trials", "median_to_target"]

# One half, but for the rounding of the curve's products.
_HALF = 0.5 + 1e-9


def median_to_target(reached: Floats, bounds: Floats, n_diverged: int, confidence: float) -> Median:
    """Median with its interval, see `Median`.

    Args:
        reached: What it took the trials that got there; such as are not finite count as never.
        bounds: For each censored trial, what it has taken so far; such as are not finite tell nothing.
        n_diverged: Number of further trials, which never get there.
        confidence: That the interval shall have if there are trials enough.
    """
    known = reached[np.isfinite(reached)]
    bounds = np.where(np.isfinite(bounds), bounds, 0.0)
    never = np.full(n_diverged + len(reached) - len(known), np.inf)
    n = len(known) + len(bounds) + len(never)
    value = _kaplan_meier(known, bounds, len(never))
    soonest = np.sort(np.concatenate([known, bounds, never]))
    latest = np.sort(np.concatenate([known, np.full(len(bounds), np.inf), never]))
    least = float(soonest[[(n - 1) // 2, n // 2]].mean())
    more_than = least if math.isnan(value) and 0 < least < math.inf else math.nan
    if n < 2:
        return Median(value, math.nan, math.nan, math.nan, more_than)
    ranks = np.arange(1, (n + 1) // 2 + 1)
    coverages = 1 - 2 * bdtr(ranks - 1, n, 0.5)
    enough = np.flatnonzero(coverages >= confidence)
    rank = int(enough[-1]) if len(enough) else 0
    low, high = (
        float(end) if np.isfinite(end) else math.nan for end in (soonest[rank], latest[n - 1 - rank])
    )
    return Median(value, low, high, float(coverages[rank]), more_than)


def median_of_trials(trials: Sequence[TrialToTarget], cost: str, confidence: float) -> Median:
    """The median of ``updates``, ``examples`` or ``seconds``, which all of the trials must have."""
    reached, bounds = (
        np.array([getattr(one, cost) for one in trials if one.outcome == outcome], dtype=np.float64)
        for outcome in ("reached", "censored")
    )
    return median_to_target(reached, bounds, sum(one.outcome == "diverged" for one in trials), confidence)


def fewest_for_interval(confidence: float) -> int:
    """From how many trials on the range of all of them covers the median often enough: 1 - 2 / 2^n."""
    return math.ceil(math.log2(2 / (1 - confidence)))


def _kaplan_meier(reached: Floats, bounds: Floats, n_never: int) -> float:
    """Where the share that has not got there falls below one half; NaN where it does not."""
    if not len(reached):
        return math.nan
    from scipy.stats import CensoredData, ecdf

    last = max(reached.max(), bounds.max(initial=0.0)) + 1.0
    right = np.concatenate([bounds, np.full(n_never, last)])
    left = ecdf(CensoredData(uncensored=reached, right=right)).sf
    at = np.unique(reached)
    share = left.evaluate(at)
    below = np.flatnonzero(share < 1 - _HALF)
    if not len(below):
        return math.nan
    # Where the share is one half for a while, the middle of it: with n even that is the plain median.
    first = int(np.flatnonzero(share <= _HALF)[0])
    return float((at[first] + at[below[0]]) / 2)
