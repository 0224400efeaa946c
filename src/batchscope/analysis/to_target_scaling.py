"""How far updates to a target go down in proportion as the batch size goes up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from batchscope.analysis.panel import Floats
from batchscope.analysis.to_target_results import PerfectScaling, RateToTarget, TrialToTarget

__all__ = ["SCALING_TOLERANCE", "perfect_scaling"]

SCALING_TOLERANCE = 0.2
"""By how much updates may lie above perfect scaling: the overhead that Zhang et al. 2024 (arXiv 2410.21676)
draw the line at. On the curve of `batchscope.analysis.critical` that is a fifth of the critical batch
size."""


def perfect_scaling(
    best: Sequence[RateToTarget], trials: Sequence[TrialToTarget], confidence: float
) -> PerfectScaling:
    """Up to which batch size updates are known to keep to perfect scaling, and where they are known not to.

    What is judged is the ratio of a batch size's geometric mean of examples, updates times batch size, to
    that of the first. The interval of its logarithm is that of Student's t for a difference of means, with
    the standard deviation that all batch sizes have in common. A trial lies somewhere between the measurement
    before and the one that reached the target, a censored one above its last updates; so the interval goes
    from the least to the greatest difference of means that this allows. Diverged trials are left out.

    Simplified: the standard deviation is that of the middles of what is known of each trial, over batch sizes
    all of whose trials reached the target. Batch sizes are judged one by one.

    Args:
        best: Each batch size at its best learning rate, ascending.
        trials: Of these.
        confidence: Of each interval.
    """
    known = [row for row in best if row.updates.value > 0]
    if not known:
        return PerfectScaling(None, math.nan, SCALING_TOLERANCE, None, None)
    start = known[0]
    used = [trial for trial in trials if trial.outcome != "diverged"]
    cells = {
        row.batch_size: _log_examples([one for one in used if one.batch_size == row.batch_size])
        for row in best
    }
    spread, freedom = _common_spread(list(cells.values()))
    up_to, leaves_at, unbroken = None, None, True
    if freedom > 0:
        line = math.log1p(SCALING_TOLERANCE)
        quantile = float(stdtrit(freedom, (1 + confidence) / 2))
        for row in best[best.index(start) + 1 :]:
            low, high = _difference(cells[row.batch_size], cells[start.batch_size], quantile * spread)
            if low > line:
                leaves_at = row.batch_size
                break
            unbroken = unbroken and high < line and row.updates.value > 0
            up_to = row.batch_size if unbroken else up_to
    return PerfectScaling(start.batch_size, start.updates.value, SCALING_TOLERANCE, up_to, leaves_at)


def _log_examples(trials: Sequence[TrialToTarget]) -> Floats:
    """(n, 2) logarithms of the examples between which each trial of one batch size got to the target."""
    ends = [
        (one.updates_before, one.updates) if one.outcome == "reached" else (one.updates, math.inf)
        for one in trials
    ]
    sizes = np.array([[one.batch_size] for one in trials], dtype=np.float64).reshape(-1, 1)
    with np.errstate(divide="ignore"):
        return np.log(np.array(ends, dtype=np.float64).reshape(-1, 2) * sizes)


def _common_spread(cells: Sequence[Floats]) -> tuple[float, int]:
    """Standard deviation of a trial's log examples about its batch size's mean; degrees of freedom."""
    whole = [cell for cell in cells if len(cell) and np.isfinite(cell[:, 1]).all()]
    # The middle of the examples, not of their logarithms, of which the lower one may be minus infinity.
    middles = [np.log(np.exp(cell).mean(axis=1)) for cell in whole]
    freedom = sum(len(middle) - 1 for middle in middles)
    squares = sum(float(((middle - middle.mean()) ** 2).sum()) for middle in middles)
    return (math.sqrt(squares / freedom) if freedom else math.nan), freedom


def _difference(cell: Floats, start: Floats, width: float) -> tuple[float, float]:
    """Interval of the mean of one batch size minus that of the first; unbounded without a trial."""
    if not len(cell) or not len(start):
        return -math.inf, math.inf
    (low, high), (start_low, start_high) = cell.mean(axis=0), start.mean(axis=0)
    margin = width * math.sqrt(1 / len(cell) + 1 / len(start))
    return float(low - start_high - margin), float(high - start_low + margin)
