"""Each batch size's best of several learning rates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from batchscope.analysis.choice import Candidates, best, optimism
from batchscope.analysis.grid import Grid, find_grid, trial_ends
from batchscope.analysis.learning_rates import BY_UPDATES, LearningRatePoint, LearningRates
from batchscope.analysis.moments import estimate
from batchscope.analysis.panel import Floats, check_figures
from batchscope.analysis.settings import Target
from batchscope.analysis.to_target import rates_to_target, trials_to_target
from batchscope.analysis.to_target_results import RateToTarget, TrialToTarget
from batchscope.history import SELECTION, require_columns

__all__ = ["choose_learning_rates"]


def choose_learning_rates(
    history: pd.DataFrame,
    metric: str,
    confidence: float,
    *,
    ended: frozenset[str] = frozenset(),
    goal: Target | None = None,
) -> LearningRates | None:
    """Chooses each batch size's learning rate where trials have tried several.

    The best, by `batchscope.analysis.choice.best`, has the fewest diverged trials, then the best mean of
    the selection metric at the trials' end, then the lowest loss on the same images, then is the smallest.
    The selection metric is ``selection_accuracy`` or ``selection_loss``, as the analysed metric is an
    accuracy or a loss, or where the history has no such column that metric itself. Learning rates are
    held against each other over the replicates in which all of the batch size's have come to the end, as
    far as there are any. A selection metric that is not finite counts as divergence.

    The end is the last epoch that any trial of the batch size has recorded; trials that have not got
    there do not count, those that diverged before do.

    Where trials end at a target, their ends are made alike. The best is then the one that gets there in the
    fewest updates, by the rule of `batchscope.analysis.to_target_choice.with_best`.

    Args:
        history: In standard form, see `batchscope.history.check_history`.
        metric: ``val_accuracy`` or ``val_loss``.
        confidence: Of the intervals.
        ended: Names of the trials that have ended, where trials of a batch size end at different epochs.
            As soon as there is one, its own last epoch is a trial's end, and trials not among them do
            not count unless they diverged.
        goal: The target at which trials end; None where they end otherwise.

    Returns:
        None where each batch size and replicate has one trial and none is of a grid.

    Raises:
        HistoryError: An accuracy lies outside [0, 1], a figure cannot be held by float32, a batch size
            and replicate have several trials with one learning rate, or the history lacks ``updates`` or the
            metric of the goal.
    """
    grid = find_grid(history)
    if grid is None:
        return None
    check_figures(history)
    if goal is not None:
        return _by_updates(history, grid, goal, metric, confidence, ended)
    column = f"{SELECTION}{metric.removeprefix('val_')}"
    column = column if column in history.columns else metric
    trials = trial_ends(history, grid, column, metric, ended or None)
    sign = -1.0 if metric == "val_loss" else 1.0
    points, flattered = [], []
    for size in sorted(trials["batch_size"].unique().tolist()):
        here = trials[trials["batch_size"] == size]
        candidates = _candidates(here, column)
        points += _points(size, here, candidates, confidence)
        if len(candidates.rates) > 1:
            flattered.append(optimism(candidates, size, sign))
    return LearningRates("grid", grid.stage, column, points=tuple(points), optimism=tuple(flattered))


def _by_updates(
    history: pd.DataFrame, grid: Grid, goal: Target, metric: str, confidence: float, ended: frozenset[str]
) -> LearningRates:
    """Without an estimate of optimism: that of means says nothing of medians, some of them unknown."""
    require_columns(history, (goal.metric, "updates"), "the choice of learning rates by updates to a target")
    ends = trial_ends(history, grid, metric, metric, ended)
    trials = trials_to_target(history, goal.metric, goal.value)
    going_on = [one for one in trials if one.outcome == "censored" and one.trial not in ended]
    points = tuple(
        _point_to_target(row, ends, going_on, confidence)
        for row in rates_to_target(trials, confidence, ended)
    )
    return LearningRates("grid", grid.stage, BY_UPDATES, goal, points, trials)


def _point_to_target(
    row: RateToTarget, ends: pd.DataFrame, going_on: Sequence[TrialToTarget], confidence: float
) -> LearningRatePoint:
    assert row.learning_rate is not None  # noqa: S101  # a grid has told it
    cell = row.batch_size, row.learning_rate
    here = ends[(ends["batch_size"] == row.batch_size) & (ends["rate"] == row.learning_rate)]
    return LearningRatePoint(
        batch_size=row.batch_size,
        learning_rate=row.learning_rate,
        n_trials=row.n_trials,
        n_diverged=row.n_diverged,
        n_missing=sum((one.batch_size, one.learning_rate) == cell for one in going_on),
        selection=None,
        finals=(),
        metric=estimate(here["metric"].to_numpy(dtype=np.float64), confidence),
        to_target=row,
        chosen=row.best,
        at_edge=row.at_edge,
        passed_over=row.passed_over,
    )


def _candidates(trials: pd.DataFrame, column: str) -> Candidates:
    rates, row = np.unique(trials["rate"].to_numpy(dtype=np.float64), return_inverse=True)
    replicates, at = np.unique(trials["replicate"].to_numpy(), return_inverse=True)

    def filled(name: str) -> Floats:
        values = np.full((len(rates), len(replicates)), np.nan)
        values[row, at] = trials[name].to_numpy(dtype=np.float64)
        return values

    return Candidates(
        rates=rates,
        by=column,
        selection=filled("selection"),
        loss=filled("loss"),
        metric=filled("metric"),
        diverged=filled("diverged") == 1,
        complete=np.asarray((filled("ended") == 1).all(axis=0)),
    )


def _points(
    size: int, trials: pd.DataFrame, candidates: Candidates, confidence: float
) -> list[LearningRatePoint]:
    rates = candidates.rates.tolist()
    chosen = rates[best(candidates, candidates.judges)]
    at_all_costs = rates[best(candidates, candidates.judges, heed_divergence=False)]
    return [
        LearningRatePoint(
            batch_size=size,
            learning_rate=rate,
            n_trials=len(here),
            n_diverged=int(here["diverged"].sum()),
            n_missing=int((~here["ended"]).sum()),
            selection=estimate(here["selection"].to_numpy(dtype=np.float64), confidence),
            finals=tuple(here["selection"].dropna().tolist()),
            metric=estimate(here["metric"].to_numpy(dtype=np.float64), confidence),
            to_target=None,
            chosen=rate == chosen,
            at_edge=rate == chosen and len(rates) > 1 and rate in (rates[0], rates[-1]),
            passed_over=rate == at_all_costs != chosen,
        )
        for rate, here in ((rate, trials[trials["rate"] == rate]) for rate in rates)
    ]
