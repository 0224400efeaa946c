"""How many updates each trial takes to get to a target, and how that goes with batch size.

The first measurement that is as good as the target counts, as in Shallue et al. 2019 (Measuring the effects
of data parallelism on neural network training, JMLR 20(112)). Nothing is interpolated.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import bdtr

from batchscope.analysis.critical import fit_critical
from batchscope.analysis.measurements import Course, trial_courses
from batchscope.analysis.panel import Floats
from batchscope.analysis.to_target_results import (
    Median,
    PerfectScaling,
    RateToTarget,
    TrialToTarget,
    UpdatesToTarget,
)
from batchscope.recipe import TargetSpec

__all__ = ["SCALING_TOLERANCE", "updates_to_target"]

SCALING_TOLERANCE = 0.2
"""By how much updates may lie above perfect scaling: the overhead that Zhang et al. 2024 (arXiv 2410.21676)
draw the line at. On the curve of `batchscope.analysis.critical` that is a fifth of the critical batch
size."""


def updates_to_target(history: pd.DataFrame, target: TargetSpec, confidence: float) -> UpdatesToTarget:
    """What it took every trial, learning rate and batch size to get to a target.

    Args:
        history: In standard form, see `batchscope.history.check_history`, with the trials of all learning
            rates.
        target: Accuracy at least, or loss at most.
        confidence: Of the intervals.

    Returns:
        Without trials, and with the reason, where the history lacks the metric or ``updates``.

    Raises:
        HistoryError: A measurement within an epoch has updates that are not of that epoch.
    """
    missing = [name for name in (target.metric, "updates") if name not in history.columns]
    if missing:
        reason = f"the history has no column {' and '.join(missing)}"
        return UpdatesToTarget(target.metric, target.value, reason, (), (), None, None)
    trials = tuple(_trial(course, target) for course in trial_courses(history, target.metric))
    cells = list(dict.fromkeys((trial.batch_size, trial.learning_rate) for trial in trials))
    rows = [
        _row([one for one in trials if (one.batch_size, one.learning_rate) == cell], confidence)
        for cell in cells
    ]
    rows = _with_best(rows)
    scaling = _scaling([row for row in rows if row.best])
    found = UpdatesToTarget(
        target.metric,
        target.value,
        None,
        trials,
        tuple(_with_efficiency(row, scaling) for row in rows),
        scaling,
        None,
    )
    return dataclasses.replace(found, critical=fit_critical(found.best_trials, confidence))


def _trial(course: Course, target: TargetSpec) -> TrialToTarget:
    """A trial's first measurement that is as good as the target."""
    accuracy = target.metric == "val_accuracy"
    good = course.measured >= target.value if accuracy else course.measured <= target.value
    updates = course.spent["updates"]
    reached = bool(good.any())
    place = int(good.argmax()) if reached else 0
    at = float(updates[place]) if reached else course.last_updates
    before = updates[updates < at]

    def spent(cost: str) -> float | None:
        values = course.spent.get(cost)
        if values is None:
            return None
        return float(values[place]) if reached else math.nan

    return TrialToTarget(
        batch_size=course.batch_size,
        learning_rate=course.learning_rate,
        replicate=course.replicate,
        trial=course.trial,
        outcome="reached" if reached else "diverged" if course.diverged else "censored",
        updates=at,
        updates_before=float(before[-1]) if len(before) else 0.0,
        examples=spent("examples"),
        seconds=spent("seconds"),
    )


def _row(trials: Sequence[TrialToTarget], confidence: float) -> RateToTarget:
    """The trials of one batch size and learning rate; which is best comes later."""
    counts = {
        name: sum(one.outcome == name for one in trials) for name in ("reached", "censored", "diverged")
    }
    reached = [one for one in trials if one.outcome == "reached"]
    ahead = np.array([one.updates for one in trials if one.outcome == "censored"])
    empty = np.full(len(ahead), np.nan)

    def median(cost: str) -> Median | None:
        values = [getattr(one, cost) for one in reached]
        if getattr(trials[0], cost) is None:
            return None
        bounds = {"updates": ahead, "examples": ahead * trials[0].batch_size}.get(cost, empty)
        return _median(np.array(values, dtype=np.float64), bounds, counts["diverged"], confidence)

    updates = median("updates")
    assert updates is not None  # noqa: S101  # every trial has them
    return RateToTarget(
        batch_size=trials[0].batch_size,
        learning_rate=trials[0].learning_rate,
        n_trials=len(trials),
        n_reached=counts["reached"],
        n_censored=counts["censored"],
        n_diverged=counts["diverged"],
        updates=updates,
        examples=median("examples"),
        seconds=median("seconds"),
        resolution=float(np.median([one.resolution for one in reached])) if reached else math.nan,
        best=False,
        at_edge=False,
        efficiency=math.nan,
    )


def _median(reached: Floats, bounds: Floats, n_diverged: int, confidence: float) -> Median:
    """Median with its interval, those that did not get there last.

    Args:
        reached: What it took the trials that got there.
        bounds: For each censored trial, what it had taken at its end; NaN where that is not known.
        n_diverged: Number of further trials.
        confidence: That the interval shall have if there are trials enough.
    """
    never = np.full(n_diverged, np.inf)
    ordered = np.sort(np.concatenate([reached, np.full(len(bounds), np.inf), never]))
    n = len(ordered)
    value = float(np.median(ordered)) if np.isfinite(ordered[n // 2]) else math.nan
    least = float(np.sort(np.concatenate([reached, bounds, never]))[[(n - 1) // 2, n // 2]].mean())
    more_than = least if math.isnan(value) and math.isfinite(least) else math.nan
    if n < 2:
        return Median(value, math.nan, math.nan, math.nan, more_than)
    ranks = np.arange(1, (n + 1) // 2 + 1)
    coverages = 1 - 2 * bdtr(ranks - 1, n, 0.5)
    enough = np.flatnonzero(coverages >= confidence)
    rank = int(enough[-1]) if len(enough) else 0
    low, high = (float(end) if np.isfinite(end) else math.nan for end in ordered[[rank, n - 1 - rank]])
    return Median(value, low, high, float(coverages[rank]), more_than)


def _with_best(rows: list[RateToTarget]) -> list[RateToTarget]:
    """The rows with each batch size's best learning rate told."""

    def rank(row: RateToTarget) -> tuple[float, float, float]:
        median = row.updates.value
        return (
            median if math.isfinite(median) else math.inf,
            -row.n_reached / row.n_trials,
            row.learning_rate or 0.0,
        )

    marked = []
    for size in dict.fromkeys(row.batch_size for row in rows):
        here = [row for row in rows if row.batch_size == size]
        best = min(here, key=rank)
        edge = len(here) > 1 and best in (here[0], here[-1]) and math.isfinite(best.updates.value)
        marked += [dataclasses.replace(row, best=row is best, at_edge=edge and row is best) for row in here]
    return marked


def _scaling(best: Sequence[RateToTarget]) -> PerfectScaling:
    """How far the medians keep to the line through the smallest batch size's."""
    known = [row for row in best if row.updates.value > 0]
    if not known:
        return PerfectScaling(None, math.nan, SCALING_TOLERANCE, None, None)
    start = known[0]
    examples = start.updates.value * start.batch_size * (1 + SCALING_TOLERANCE)
    up_to, leaves_at, unbroken = start.batch_size, None, True
    for row in best[best.index(start) + 1 :]:
        # A product that is equal but for rounding is within.
        far = 1 + 1e-9
        if row.updates.value * row.batch_size <= examples * far:
            up_to = row.batch_size if unbroken else up_to
            continue
        unbroken = False
        least = row.updates.more_than if math.isnan(row.updates.value) else row.updates.value
        if least * row.batch_size > examples * far:
            leaves_at = row.batch_size
            break
    return PerfectScaling(start.batch_size, start.updates.value, SCALING_TOLERANCE, up_to, leaves_at)


def _with_efficiency(row: RateToTarget, scaling: PerfectScaling) -> RateToTarget:
    if not row.best or scaling.batch_size is None or not row.updates.value > 0:
        return row
    share = scaling.updates * scaling.batch_size / (row.updates.value * row.batch_size)
    return dataclasses.replace(row, efficiency=share)
