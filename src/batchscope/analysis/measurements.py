"""All measurements of validation of a trial in order of updates, those within epochs among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from batchscope.analysis.grid import grid_rates
from batchscope.analysis.panel import COSTS, Bools, Floats
from batchscope.errors import HistoryError
from batchscope.history import METRICS, WITHIN, parts_measured

__all__ = ["Course", "trial_courses"]


@dataclass(frozen=True)
class Course:
    """One trial's validation.

    Attributes:
        batch_size: Examples per update.
        learning_rate: That it tries, of several; None where its batch size has one.
        replicate: The bundle of seeds.
        trial: Its name.
        measured: (M,) of the metric, finite, in order of updates; without those beside which the loss is not.
        spent: Name to (M,) float64 of the history's columns of `COSTS` at each measurement, since the
            trial's start.
        last: Name to the same columns since the trial's start, at its last row.
        diverged: Whether a loss or accuracy of its last row is NaN or infinite.
    """

    batch_size: int
    learning_rate: float | None
    replicate: int
    trial: str
    measured: Floats
    spent: dict[str, Floats]
    last: dict[str, float]
    diverged: bool


def trial_courses(history: pd.DataFrame, metric: str) -> tuple[Course, ...]:
    """The courses of all trials, by batch size, learning rate and replicate.

    Rows count at their epoch's end; columns ``within_K_updates`` with ``within_K_`` and the metric's name
    ahead of it. Within an epoch examples are counted as updates times batch size. Simplified: seconds are
    taken to pass evenly within an epoch.

    Args:
        history: In standard form, see `batchscope.history.check_history`, with a column ``updates``; of all
            learning rates.
        metric: ``val_accuracy`` or ``val_loss``, one of its columns.

    Returns:
        Those trials that have come to the stage in which learning rates differ, if there is one.

    Raises:
        HistoryError: A measurement within an epoch has updates that are not of that epoch.
    """
    rates = grid_rates(history)
    keys = [name for name in ("batch_size", "replicate", "trial") if name in history.columns]
    within = _within(history, metric)
    found = []
    for _, rows in history.groupby(keys, sort=False):
        rate = None if rates is None else float(rates[rows.index].max())
        if rate is None or np.isfinite(rate):
            found.append(_course(rows, metric, rate, within))
    return tuple(sorted(found, key=lambda one: (one.batch_size, one.learning_rate or 0.0, one.replicate)))


def _within(history: pd.DataFrame, metric: str) -> list[tuple[str, str]]:
    """Pairs of columns, of updates and of the metric, in order of their number."""
    numeric = set(map(str, history.select_dtypes("number").columns))
    parts = parts_measured(history)
    pairs = [(f"{WITHIN}{part}_updates", f"{WITHIN}{part}_{metric}") for part in parts]
    return [pair for pair in pairs if pair[1] in numeric]


def _course(rows: pd.DataFrame, metric: str, rate: float | None, within: list[tuple[str, str]]) -> Course:
    """One trial's, from its rows in order of epochs."""
    first = rows.iloc[0]
    size, replicate = int(first["batch_size"]), int(first["replicate"])
    trial = str(first["trial"]) if "trial" in rows.columns else f"b{size}-r{replicate}"
    ends = rows["updates"].to_numpy(dtype=np.float64)
    starts = np.concatenate([[0.0], ends[:-1]])
    inside = rows[[name for name, _ in within]].to_numpy(dtype=np.float64)
    _check_inside(inside, starts, ends, trial)
    updates = np.column_stack([inside, ends])
    names = [*(name for _, name in within), metric]
    values = rows[names].to_numpy(dtype=np.float64)
    measured = np.isfinite(updates) & np.isfinite(values) & _with_a_loss(rows, names)
    order = np.argsort(updates[measured], kind="stable")
    costs = {
        name: _at(
            rows[name].to_numpy(dtype=np.float64), updates, starts, size if name == "examples" else None
        )
        for name in COSTS
        if name in rows.columns
    }
    last = rows[[name for name in METRICS if name in rows.columns]].iloc[-1].to_numpy(dtype=np.float64)
    return Course(
        batch_size=size,
        learning_rate=rate,
        replicate=replicate,
        trial=trial,
        measured=values[measured][order],
        spent={name: spent[measured][order] for name, spent in costs.items()},
        last={name: float(rows[name].iloc[-1]) for name in costs},
        diverged=not bool(np.isfinite(last).all()),
    )


def _with_a_loss(rows: pd.DataFrame, names: Sequence[str]) -> Bools:
    """Whether the loss measured beside each of some columns is finite, (E, M); where there is none, it is."""
    losses = [name.replace("accuracy", "loss") for name in names]
    table = rows.reindex(columns=losses).to_numpy(dtype=np.float64)
    known = np.array([name in rows.columns for name in losses])
    result: Bools = np.isfinite(table) | ~known
    return result


def _at(at_ends: Floats, updates: Floats, starts: Floats, size: int | None) -> Floats:
    """A cost at each measurement of each epoch, (E, K + 1), from that at the epochs' ends, (E,)."""
    before = np.concatenate([[0.0], at_ends[:-1]])[:, None]
    done = updates - starts[:, None]
    length = done[:, -1:]
    pace = np.divide(at_ends[:, None] - before, length, out=np.zeros_like(length), where=length > 0)
    spent = before + done * (pace if size is None else size)
    spent[:, -1] = at_ends
    return spent


def _check_inside(inside: Floats, starts: Floats, ends: Floats, trial: str) -> None:
    wrong = (inside < starts[:, None]) | (inside > ends[:, None])
    if wrong.any():
        row, _ = np.argwhere(wrong)[0]
        raise HistoryError(
            f"columns {WITHIN}K_updates must count updates since the trial's start, within the row's epoch, "
            f"but a row of trial {trial} has {inside[wrong][0]:g} in an epoch from {starts[row]:g} to "
            f"{ends[row]:g} updates"
        )
