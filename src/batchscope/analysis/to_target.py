"""How many updates each trial takes to get to a target, and how that goes with batch size.

The first measurement that is as good as the target counts, as in Shallue et al. 2018 (Measuring the effects
of data parallelism on neural network training, arXiv 1811.03600). Nothing is interpolated.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from batchscope.analysis.critical import fit_critical
from batchscope.analysis.measurements import Course, trial_courses
from batchscope.analysis.to_target_medians import median_to_target
from batchscope.analysis.to_target_results import (
    Median,
    PerfectScaling,
    RateToTarget,
    TrialToTarget,
    UpdatesToTarget,
)
from batchscope.analysis.to_target_scaling import perfect_scaling
from batchscope.recipe import TargetSpec

__all__ = ["rates_to_target", "trials_to_target", "updates_to_target"]


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
    trials = trials_to_target(history, target.metric, target.value)
    rows = rates_to_target(trials, confidence)
    found = UpdatesToTarget(target.metric, target.value, None, trials, tuple(rows), None, None)
    scaling = perfect_scaling(found.best, found.best_trials, confidence)
    return dataclasses.replace(
        found,
        rates=tuple(_with_efficiency(row, scaling) for row in rows),
        scaling=scaling,
        critical=fit_critical(found.best_trials, confidence),
    )


def trials_to_target(history: pd.DataFrame, metric: str, value: float) -> tuple[TrialToTarget, ...]:
    """What it took every trial, those of all learning rates.

    Args:
        history: In standard form, with the columns `metric` and ``updates``.
        metric: ``val_accuracy``, at least `value`, or ``val_loss``, at most.
        value: The target.

    Raises:
        HistoryError: A measurement within an epoch has updates that are not of that epoch.
    """
    return tuple(_trial(course, metric, value) for course in trial_courses(history, metric))


def rates_to_target(trials: Sequence[TrialToTarget], confidence: float) -> list[RateToTarget]:
    """Every learning rate at every batch size, the best of each told; efficiencies are not known yet."""
    cells = list(dict.fromkeys((trial.batch_size, trial.learning_rate) for trial in trials))
    return _with_best(
        [
            _row([one for one in trials if (one.batch_size, one.learning_rate) == cell], confidence)
            for cell in cells
        ]
    )


def _trial(course: Course, metric: str, value: float) -> TrialToTarget:
    """A trial's first measurement that is as good as the target."""
    good = course.measured >= value if metric == "val_accuracy" else course.measured <= value
    updates = course.spent["updates"]
    reached = bool(good.any())
    place = int(good.argmax()) if reached else 0
    at = float(updates[place]) if reached else course.last["updates"]
    before = updates[updates < at]

    def spent(cost: str) -> float | None:
        values = course.spent.get(cost)
        if values is None:
            return None
        return float(values[place]) if reached else course.last[cost]

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
    censored = [one for one in trials if one.outcome == "censored"]

    def median(cost: str) -> Median | None:
        if getattr(trials[0], cost) is None:
            return None
        values, bounds = (
            np.array([getattr(one, cost) for one in some], dtype=np.float64) for some in (reached, censored)
        )
        return median_to_target(values, bounds, counts["diverged"], confidence)

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


def _with_efficiency(row: RateToTarget, scaling: PerfectScaling) -> RateToTarget:
    if not row.best or scaling.batch_size is None or not row.updates.value > 0:
        return row
    share = scaling.updates * scaling.batch_size / (row.updates.value * row.batch_size)
    return dataclasses.replace(row, efficiency=share)
