"""Each batch size's best of several learning rates, and the history at these."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from batchscope.analysis.choice import Candidates, best, optimism
from batchscope.analysis.learning_rates import LearningRatePoint, LearningRates
from batchscope.analysis.moments import estimate
from batchscope.analysis.panel import Floats, check_figures
from batchscope.errors import HistoryError
from batchscope.history import GRID, METRICS, SELECTION

__all__ = ["at_chosen", "choose_learning_rates", "grid_rates"]

_TRIAL = ["batch_size", "replicate", "trial"]


@dataclass(frozen=True)
class _Grid:
    """Which learning rate of the grid each row's trial has.

    Attributes:
        stage: That has the grid; empty where there are no stages.
        rates: One for each row of the history; NaN where the trial has not come to the stage.
    """

    stage: str
    rates: pd.Series


def choose_learning_rates(
    history: pd.DataFrame, metric: str, confidence: float, *, ended: frozenset[str] = frozenset()
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

    Args:
        history: In standard form, see `batchscope.history.check_history`.
        metric: ``val_accuracy`` or ``val_loss``.
        confidence: Of the intervals.
        ended: Names of the trials that have ended, where trials of a batch size end at different epochs.
            As soon as there is one, its own last epoch is a trial's end, and trials not among them do
            not count unless they diverged.

    Returns:
        None where each batch size and replicate has one trial and none is of a grid.

    Raises:
        HistoryError: An accuracy lies outside [0, 1], a figure cannot be held by float32, or a batch size
            and replicate have several trials with one learning rate.
    """
    grid = _grid(history)
    if grid is None:
        return None
    check_figures(history)
    column = f"{SELECTION}{metric.removeprefix('val_')}"
    column = column if column in history.columns else metric
    trials = _ends(history.assign(rate=grid.rates), column, metric, ended)
    sign = -1.0 if metric == "val_loss" else 1.0
    points, flattered = [], []
    for size in sorted(trials["batch_size"].unique().tolist()):
        here = trials[trials["batch_size"] == size]
        candidates = _candidates(here, column)
        points += _points(size, here, candidates, confidence)
        if len(candidates.rates) > 1:
            flattered.append(optimism(candidates, size, sign))
    return LearningRates("grid", grid.stage, column, tuple(points), tuple(flattered))


def at_chosen(history: pd.DataFrame, learning_rates: LearningRates) -> pd.DataFrame:
    """The rows of the trials at each batch size's chosen learning rate; all of them without a grid."""
    grid = _grid(history) if learning_rates.points else None
    if grid is None:
        return history
    chosen = {point.batch_size: point.learning_rate for point in learning_rates.chosen}
    return history[grid.rates == history["batch_size"].map(chosen)].reset_index(drop=True)


def grid_rates(history: pd.DataFrame) -> pd.Series | None:
    """The learning rate that each row's trial tries, NaN where it has not come to the stage that has them.

    None without a grid.
    """
    grid = _grid(history)
    return None if grid is None else grid.rates


def _grid(history: pd.DataFrame) -> _Grid | None:
    if "trial" not in history.columns:
        return None
    stages = history["stage"] if "stage" in history.columns else pd.Series("", index=history.index)
    if GRID in history.columns and history[GRID].notna().all():
        return _Grid(_stage_of_grid(history, stages) or "", history[GRID])
    several = history.groupby(["batch_size", "replicate"])["trial"].nunique().max() > 1
    if not several or "learning_rate" not in history.columns:
        return None
    stage = _stage_of_grid(history, stages)
    if stage is None:
        return None
    inside = history["learning_rate"].where(stages == stage)
    rates = inside.groupby([history[name] for name in _TRIAL]).transform("max")
    return _Grid(stage, rates)


def _stage_of_grid(history: pd.DataFrame, stages: pd.Series) -> str | None:
    """The first stage in which trials of one batch size and replicate have different learning rates.

    A trial's learning rate in a stage is its largest, so that a warm-up makes no difference.
    """
    if "learning_rate" not in history.columns:
        return None
    largest = history.assign(stage=stages).groupby(["stage", *_TRIAL])["learning_rate"].max()
    several = (
        largest.groupby(level=["stage", "batch_size", "replicate"]).nunique().groupby(level="stage").max()
    )
    first = history["epoch"].groupby(stages).min()
    found = [str(name) for name in first.sort_values(kind="stable").index if several.get(name, 0) > 1]
    return found[0] if found else None


def _ends(history: pd.DataFrame, column: str, metric: str, ended: frozenset[str]) -> pd.DataFrame:
    """A row for each trial that has a learning rate: whether it diverged or ended, and its figures then."""
    last = history[history["rate"].notna()].groupby(_TRIAL, sort=False).tail(1)
    loss = column.replace("accuracy", "loss")
    measured = [name for name in {*METRICS, column} if name in last.columns]
    finite = np.isfinite(last[measured].to_numpy()).all(axis=1)
    end = history.groupby("batch_size")["epoch"].max()
    over = last["trial"].isin(ended) if ended else last["epoch"] == last["batch_size"].map(end)
    there = finite & over.to_numpy()
    twice = last.duplicated(["batch_size", "replicate", "rate"])
    if twice.any():
        row = last[twice].iloc[0]
        raise HistoryError(
            "each learning rate must have one trial at a batch size and replicate, but there are several "
            f"with batch_size={row.batch_size}, replicate={row.replicate}, learning_rate={row.rate:g}; keep "
            "one of them, or number them as replicates"
        )
    return pd.DataFrame(
        {
            "batch_size": last["batch_size"],
            "replicate": last["replicate"],
            "rate": last["rate"],
            "diverged": ~finite,
            "ended": there | ~finite,
            "selection": last[column].where(there),
            "loss": last[loss].where(there) if loss in last.columns else np.nan,
            "metric": last[metric].where(there),
        }
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
            chosen=rate == chosen,
            at_edge=rate == chosen and len(rates) > 1 and rate in (rates[0], rates[-1]),
            passed_over=rate == at_all_costs != chosen,
        )
        for rate, here in ((rate, trials[trials["rate"] == rate]) for rate in rates)
    ]
