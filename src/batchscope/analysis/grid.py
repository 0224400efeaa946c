"""Which learning rate of a grid each trial tries, how its trials ended, and the history at the best ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from batchscope.analysis.learning_rates import LearningRates
from batchscope.errors import HistoryError
from batchscope.history import GRID, METRICS

__all__ = ["Grid", "at_chosen", "find_grid", "grid_rates", "trial_ends"]

_TRIAL = ["batch_size", "replicate", "trial"]


@dataclass(frozen=True)
class Grid:
    """Which learning rate of the grid each row's trial has.

    Attributes:
        stage: That has the grid; empty where there are no stages.
        rates: One for each row of the history; NaN where the trial has not come to the stage.
    """

    stage: str
    rates: pd.Series


def at_chosen(history: pd.DataFrame, learning_rates: LearningRates) -> pd.DataFrame:
    """The rows of the trials at each batch size's chosen learning rate; all of them without a grid."""
    grid = find_grid(history) if learning_rates.points else None
    if grid is None:
        return history
    chosen = {point.batch_size: point.learning_rate for point in learning_rates.chosen}
    return history[grid.rates == history["batch_size"].map(chosen)].reset_index(drop=True)


def grid_rates(history: pd.DataFrame) -> pd.Series | None:
    """The learning rate that each row's trial tries, NaN where it has not come to the stage that has them.

    None without a grid.
    """
    grid = find_grid(history)
    return None if grid is None else grid.rates


def find_grid(history: pd.DataFrame) -> Grid | None:
    """The learning rates that a history's trials try; None where no batch size and replicate tries several.

    A column of its own tells them; without it they are each trial's largest in the first stage in which
    trials of one batch size and replicate differ.
    """
    if "trial" not in history.columns:
        return None
    stages = history["stage"] if "stage" in history.columns else pd.Series("", index=history.index)
    if GRID in history.columns and history[GRID].notna().all():
        return Grid(_stage_of_grid(history, stages) or "", history[GRID])
    several = history.groupby(["batch_size", "replicate"])["trial"].nunique().max() > 1
    if not several or "learning_rate" not in history.columns:
        return None
    stage = _stage_of_grid(history, stages)
    if stage is None:
        return None
    inside = history["learning_rate"].where(stages == stage)
    rates = inside.groupby([history[name] for name in _TRIAL]).transform("max")
    return Grid(stage, rates)


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


def trial_ends(
    history: pd.DataFrame, grid: Grid, column: str, metric: str, ended: frozenset[str] | None
) -> pd.DataFrame:
    """A row for each trial that has a learning rate: whether it diverged or ended, and its figures then.

    Args:
        history: In standard form.
        grid: Its learning rates.
        column: By which they are chosen.
        metric: That is analysed.
        ended: Names of the trials that have ended; None takes the last epoch that any trial of the batch size
            has recorded as their common end.

    Returns:
        Columns ``batch_size``, ``replicate``, ``rate``, ``diverged``, ``ended`` (diverged ones among them),
        and, of the others that have ended, ``selection`` (of `column`), ``loss`` (on the same examples) and
        ``metric``.

    Raises:
        HistoryError: A batch size and replicate have several trials with one learning rate.
    """
    history = history.assign(rate=grid.rates)
    last = history[history["rate"].notna()].groupby(_TRIAL, sort=False).tail(1)
    loss = column.replace("accuracy", "loss")
    measured = [name for name in {*METRICS, column} if name in last.columns]
    finite = np.isfinite(last[measured].to_numpy()).all(axis=1)
    end = history.groupby("batch_size")["epoch"].max()
    over = last["epoch"] == last["batch_size"].map(end) if ended is None else last["trial"].isin(ended)
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
