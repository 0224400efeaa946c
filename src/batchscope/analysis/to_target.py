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
from batchscope.analysis.to_target_choice import with_best
from batchscope.analysis.to_target_medians import median_of_trials
from batchscope.analysis.to_target_results import (
    PerfectScaling,
    RateToTarget,
    TrialToTarget,
    UpdatesToTarget,
)
from batchscope.analysis.to_target_scaling import perfect_scaling
from batchscope.recipe import TargetSpec

__all__ = ["rates_to_target", "trials_to_target", "updates_to_target"]


def updates_to_target(
    history: pd.DataFrame, target: TargetSpec, confidence: float, ended: frozenset[str] | None = None
) -> UpdatesToTarget:
    """What it took every trial, learning rate and batch size to get to a target.

    Args:
        history: In standard form, see `batchscope.history.check_history`, with the trials of all learning
            rates.
        target: Accuracy at least, or loss at most.
        confidence: Of the intervals.
        ended: Names of the trials that have ended, where the target is the one at which they do. Else None:
            a trial may have ended ahead of it for other reasons, and has not missed it.

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
    rows = rates_to_target(trials, confidence, ended)
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


def rates_to_target(
    trials: Sequence[TrialToTarget], confidence: float, ended: frozenset[str] | None = None
) -> list[RateToTarget]:
    """Every learning rate at every batch size, the best of each told; efficiencies are not known yet.

    Args:
        trials: By batch size, learning rate and replicate.
        confidence: Of the intervals.
        ended: Names of the trials that have ended; None where nobody knows.
    """
    rows: list[RateToTarget] = []
    for size in dict.fromkeys(trial.batch_size for trial in trials):
        here = [one for one in trials if one.batch_size == size]
        rates = dict.fromkeys(one.learning_rate for one in here)
        found = [_row([one for one in here if one.learning_rate == rate], confidence) for rate in rates]
        rows += with_best(found, here, confidence, ended)
    return rows


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
    return RateToTarget(
        batch_size=trials[0].batch_size,
        learning_rate=trials[0].learning_rate,
        n_trials=len(trials),
        n_reached=counts["reached"],
        n_censored=counts["censored"],
        n_diverged=counts["diverged"],
        updates=median_of_trials(trials, "updates", confidence),
        examples=None if trials[0].examples is None else median_of_trials(trials, "examples", confidence),
        seconds=None if trials[0].seconds is None else median_of_trials(trials, "seconds", confidence),
        resolution=float(np.median([one.resolution for one in reached])) if reached else math.nan,
        best=False,
        at_edge=False,
        passed_over=False,
        efficiency=math.nan,
    )


def _with_efficiency(row: RateToTarget, scaling: PerfectScaling) -> RateToTarget:
    if not row.best or scaling.batch_size is None or not row.updates.value > 0:
        return row
    share = scaling.updates * scaling.batch_size / (row.updates.value * row.batch_size)
    return dataclasses.replace(row, efficiency=share)
