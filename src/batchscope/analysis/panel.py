"""The history as arrays: batch sizes x replicates x epochs, with divergence marked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from batchscope.analysis.ends import Ends, find_ends
from batchscope.analysis.measured_before import costs_before
from batchscope.analysis.settings import Plan
from batchscope.errors import HistoryError
from batchscope.history import METRICS, SELECTION, WITHIN, probe_columns

__all__ = [
    "COSTS",
    "PROBE",
    "Bools",
    "Floats",
    "Ints",
    "Panel",
    "StageView",
    "build_panel",
    "check_figures",
    "stage_view",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

COSTS = ("updates", "examples", "seconds")
PROBE = "probe_"
# Cells of the grid beyond which it must not be nearly empty: about half a GB for all arrays.
_MOST_CELLS = 5_000_000
# What training computes with holds nothing larger, and the squares of squares of such figures stay finite.
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Panel:
    """One study's history on a grid of B batch sizes, R replicates and E epochs.

    Attributes:
        study: Name of the study; None where the history has no such column.
        batch_sizes: (B,) int64, ascending.
        replicates: (R,) int64, ascending.
        epochs: (E,) int64, ascending: every epoch that any trial recorded.
        stages: Names in the order of training; one empty name where there is no stage column.
        stage_index: (B, R, E) int64, position in `stages`; -1 where nothing was recorded.
        recorded: (B, R, E) bool.
        diverged: (B, R, E) bool: a loss or accuracy of the row is NaN or infinite, or the trial's
            last row was such a one and lies before this epoch.
        metrics: Name to (B, R, E) float64 for the history's columns of `METRICS`, and ``gap`` where
            both accuracies exist. NaN where nothing was recorded and in every diverged row: once
            the loss is NaN, an accuracy computed beside it means nothing.
        probes: Name to (B, R, E) float64 for the history's columns that begin with `PROBE`; NaN where
            nothing was probed and in every diverged row.
        costs: Name to (B, R, E) float64 for the columns of `COSTS`; NaN where nothing was recorded.
        costs_before: The same at the measurement of validation before, see
            `batchscope.analysis.measured_before.costs_before`.
        learning_rate: (B, R, E) float64, NaN where nothing was recorded; None without the column.
        trial_names: (batch size, replicate) to the trial's name.
        plan: What the study says about where trials end; None where there is no study.
    """

    study: str | None
    batch_sizes: Ints
    replicates: Ints
    epochs: Ints
    stages: tuple[str, ...]
    stage_index: Ints
    recorded: Bools
    diverged: Bools
    metrics: Mapping[str, Floats]
    probes: Mapping[str, Floats]
    costs: Mapping[str, Floats]
    costs_before: Mapping[str, Floats]
    learning_rate: Floats | None
    trial_names: Mapping[tuple[int, int], str]
    plan: Plan | None = None

    @cached_property
    def ends(self) -> Ends:
        """Where each batch size ends."""
        return find_ends(self, self.plan)

    @cached_property
    def end_columns(self) -> npt.NDArray[np.intp]:
        """(B,), position in `epochs` of each end, or of the last epoch recorded before it."""
        found = np.searchsorted(self.epochs, self.ends.epochs, side="right") - 1
        columns: npt.NDArray[np.intp] = np.maximum(found, 0)
        return columns

    @property
    def end_epoch(self) -> int | None:
        """The epoch at which all batch sizes end; None where they end at different ones."""
        return int(self.ends.epochs[0]) if self.ends.common else None

    def at_end(self, values: Floats) -> Floats:
        """Cuts (B, R, E) values at each batch size's end: (B, R), NaN where it was not reached.

        Where each trial has an end of its own, they are cut there.
        """
        own = self.ends.own
        if own is not None:
            columns = np.searchsorted(self.epochs, np.maximum(own, self.epochs[0]))
            values_there = np.take_along_axis(values, columns[:, :, None], axis=2)[:, :, 0]
            return np.where(own >= 0, values_there, np.nan)
        taken = values[np.arange(len(values)), :, self.end_columns]
        there = self.epochs[self.end_columns] == self.ends.epochs
        result: Floats = np.where(there[:, None], taken, np.nan)
        return result

    def carried(self, values: Floats) -> Floats:
        """(B, R, E) values of which each trial keeps its last ones where its own end is behind it."""
        own = self.ends.own
        if own is None:
            return values
        last = np.where(own >= 0, np.searchsorted(self.epochs, own), len(self.epochs) - 1)
        columns = np.minimum(np.arange(len(self.epochs)), last[:, :, None])
        return np.take_along_axis(values, columns, axis=2)

    def final(self, name: str) -> Floats:
        """One of `metrics` at each batch size's end, (B, R)."""
        return self.at_end(self.metrics[name])


@dataclass(frozen=True)
class StageView:
    """One stage of a panel, epochs counted from the stage's start at each batch size.

    Attributes:
        name: Of the stage.
        epochs: (B, R, K) int64, the panel's epoch at each position; -1 beyond the batch size's end of the
            stage. Where trials have ends of their own: -1 beyond the trial's, and throughout for a
            trial that is not over with the stage.
        metrics: Name to (B, R, K) float64, NaN where the stage has no finite figure.
        updates: (B, R, K) float64 since the stage's start, NaN where nothing was recorded; None
            without the column.
        recorded: (B, R, K) bool.
    """

    name: str
    epochs: Ints
    metrics: Mapping[str, Floats]
    updates: Floats | None
    recorded: Bools

    @cached_property
    def last_half(self) -> Bools:
        """(B, R, K), the last half of `epochs`, the middle one of an odd number with it."""
        length = (self.epochs >= 0).sum(axis=2)
        half: Bools = (self.epochs >= 0) & (np.arange(self.epochs.shape[2]) >= (length // 2)[:, :, None])
        return half


def build_panel(history: pd.DataFrame, plan: Plan | None = None) -> Panel:
    """Pivots a checked history (`batchscope.history.check_history`) into arrays.

    Args:
        history: Of one study.
        plan: What the study says about where trials end; None where there is no study.

    Raises:
        HistoryError: It holds several studies, several trials for one batch size and replicate,
            an accuracy outside [0, 1] or a figure that float32 cannot hold, or hardly any batch size
            has the replicates or epochs of another.
    """
    study = _only_study(history)
    batch_sizes, b = np.unique(history["batch_size"].to_numpy(), return_inverse=True)
    replicates, r = np.unique(history["replicate"].to_numpy(), return_inverse=True)
    epochs, e = np.unique(history["epoch"].to_numpy(), return_inverse=True)
    shape = (len(batch_sizes), len(replicates), len(epochs))
    where = (b, r, e)
    _check_one_trial_per_cell(history)
    _check_filled(shape, len(history))
    check_figures(history)

    def filled(name: str, table: pd.DataFrame = history) -> Floats:
        values = np.full(shape, np.nan)
        values[where] = table[name].to_numpy(dtype=np.float64)
        return values

    recorded = np.zeros(shape, dtype=np.bool_)
    recorded[where] = True
    raw = {name: filled(name) for name in METRICS if name in history.columns}
    diverged = _divergence(raw, recorded)
    metrics = {name: np.where(diverged, np.nan, values) for name, values in raw.items()}
    if "train_accuracy" in metrics and "val_accuracy" in metrics:
        metrics["gap"] = metrics["train_accuracy"] - metrics["val_accuracy"]
    stages, stage_index = _stages(history, where, shape)
    costs = [name for name in COSTS if name in history.columns]
    before = costs_before(history, costs)
    return Panel(
        study=study,
        batch_sizes=batch_sizes,
        replicates=replicates,
        epochs=epochs,
        stages=stages,
        stage_index=stage_index,
        recorded=recorded,
        diverged=diverged,
        metrics=metrics,
        probes={
            name: np.where(diverged, np.nan, filled(name))
            for name in probe_columns(history)
            if name.startswith(PROBE)
        },
        costs={name: filled(name) for name in costs},
        costs_before={name: filled(name, before) for name in costs},
        learning_rate=filled("learning_rate") if "learning_rate" in history.columns else None,
        trial_names=_trial_names(history),
        plan=plan,
    )


def stage_view(panel: Panel, stage: int) -> StageView:
    """Cuts one stage out and lines it up from its start at each batch size.

    A batch size's stage starts at the first epoch that any of its trials records in it; where trials
    have ends of their own, each trial's at the first that it records itself. Updates are counted from
    the trial's last row before that (from 0 where there is none), because earlier stages gave each
    batch size a different number of updates to begin with.

    Args:
        panel: The whole history.
        stage: Position in `Panel.stages`.
    """
    inside = panel.stage_index == stage
    of_batch = inside.any(axis=1)
    first = of_batch.argmax(axis=1)
    last = of_batch.shape[1] - 1 - of_batch[:, ::-1].argmax(axis=1)
    length = int(np.where(of_batch.any(axis=1), last - first + 1, 0).max())
    latest = np.where(of_batch.any(axis=1), last, -1)
    starts, stops = (np.broadcast_to(at[:, None], inside.shape[:2]) for at in (first, latest))
    if panel.ends.own is not None:
        starts = np.where(inside.any(axis=2), inside.argmax(axis=2), starts)
        own = of_batch.shape[1] - 1 - inside[:, :, ::-1].argmax(axis=2)
        over = (panel.ends.own >= 0) | (panel.stage_index > stage).any(axis=2)
        stops = np.where(inside.any(axis=2) & over, own, -1)
    wanted = starts[:, :, None] + np.arange(length)
    take = np.minimum(wanted, len(panel.epochs) - 1)
    recorded = np.take_along_axis(inside, take, axis=2) & (wanted <= latest[:, None, None])

    def cut(values: Floats) -> Floats:
        return np.where(recorded, np.take_along_axis(values, take, axis=2), np.nan)

    updates = None
    if "updates" in panel.costs:
        updates = cut(panel.costs["updates"] - _before(panel.costs["updates"], starts)[:, :, None])
    return StageView(
        name=panel.stages[stage],
        epochs=np.where(wanted <= stops[:, :, None], panel.epochs[take], -1),
        metrics={name: cut(values) for name, values in panel.metrics.items()},
        updates=updates,
        recorded=recorded,
    )


def _before(values: Floats, first: npt.NDArray[np.intp]) -> Floats:
    """Each trial's last finite value ahead of its column `first`, (B, R); else 0."""
    ahead = np.arange(values.shape[2]) < first[:, :, None]
    known = ahead & np.isfinite(values)
    position = values.shape[2] - 1 - known[:, :, ::-1].argmax(axis=2)
    taken = np.take_along_axis(values, position[:, :, None], axis=2)[:, :, 0]
    return np.where(known.any(axis=2), taken, 0.0)


def _only_study(history: pd.DataFrame) -> str | None:
    if "study" not in history.columns:
        return None
    names = history["study"].unique()
    if len(names) > 1:
        raise HistoryError(
            f"one study is analysed at a time, but the column study holds {', '.join(sorted(names)[:5])}; "
            "keep the rows of one"
        )
    return str(names[0])


def _check_one_trial_per_cell(history: pd.DataFrame) -> None:
    cell = ["batch_size", "replicate", "epoch"]
    twice = history.duplicated(cell)
    if twice.any():
        row = history.loc[twice, cell].iloc[0]
        raise HistoryError(
            "each batch size and replicate must have one trial, or each of its trials a learning rate of its "
            f"own, but there are several with batch_size={row.batch_size}, replicate={row.replicate} (epoch "
            f"{row.epoch} is there twice); keep one of them, or tell them apart by the column learning_rate"
        )


def _check_filled(shape: tuple[int, int, int], rows: int) -> None:
    if math.prod(shape) > max(_MOST_CELLS, 10 * rows):
        sizes, replicates, epochs = shape
        raise HistoryError(
            "batch sizes must share replicates and epochs, but the history's "
            f"{rows:,} rows hold {sizes:,} batch sizes, {replicates:,} replicates and {epochs:,} epochs; "
            "number replicates and epochs from 1 at each batch size"
        )


def check_figures(history: pd.DataFrame) -> None:
    """Refuses figures that no training gives.

    Raises:
        HistoryError: An accuracy lies outside [0, 1], or float32 cannot hold a figure.
    """
    numeric = map(str, history.select_dtypes("number").columns)
    measured = [name for name in numeric if name.startswith((PROBE, SELECTION, WITHIN))]
    _check_accuracies(history, measured)
    _check_magnitudes(history, measured)


def _check_magnitudes(history: pd.DataFrame, measured: list[str]) -> None:
    for name in (*METRICS, "learning_rate", "seconds", *measured):
        if name not in history.columns:
            continue
        values = history[name].to_numpy(dtype=np.float64)
        wrong = np.isfinite(values) & (np.abs(values) > _LARGEST)
        if wrong.any():
            raise HistoryError(
                f"column {name} must hold figures up to {_LARGEST:.3g} (or NaN and infinity, where training "
                f"diverged), but got {values[wrong][0]:g}"
            )


def _check_accuracies(history: pd.DataFrame, measured: list[str]) -> None:
    for name in ("train_accuracy", "val_accuracy", *measured):
        if name not in history.columns or not name.endswith("_accuracy"):
            continue
        values = history[name].to_numpy(dtype=np.float64)
        wrong = np.isfinite(values) & ((values < 0) | (values > 1))
        if wrong.any():
            raise HistoryError(
                f"{name} must lie between 0 and 1, but got {values[wrong][0]:g}; divide percentages by 100"
            )


def _divergence(raw: Mapping[str, Floats], recorded: Bools) -> Bools:
    finite = np.logical_and.reduce([np.isfinite(values) for values in raw.values()])
    diverged = recorded & ~finite
    n_epochs = recorded.shape[2]
    last = n_epochs - 1 - recorded[:, :, ::-1].argmax(axis=2)
    ended_so = np.take_along_axis(diverged, last[:, :, None], axis=2)
    result: Bools = diverged | (ended_so & (np.arange(n_epochs) > last[:, :, None]))
    return result


def _stages(
    history: pd.DataFrame, where: tuple[npt.NDArray[np.intp], ...], shape: tuple[int, ...]
) -> tuple[tuple[str, ...], Ints]:
    index = np.full(shape, -1, dtype=np.int64)
    if "stage" not in history.columns:
        index[where] = 0
        return ("",), index
    codes, names = pd.factorize(history["stage"])
    starts = pd.Series(history["epoch"].to_numpy()).groupby(codes).min().to_numpy()
    order = np.argsort(starts, kind="stable")
    index[where] = np.argsort(order)[codes]
    return tuple(str(names[position]) for position in order), index


def _trial_names(history: pd.DataFrame) -> dict[tuple[int, int], str]:
    cells = history.drop_duplicates(["batch_size", "replicate"])
    pairs = [(int(b), int(r)) for b, r in zip(cells["batch_size"], cells["replicate"], strict=True)]
    if "trial" in cells.columns:
        return dict(zip(pairs, map(str, cells["trial"]), strict=True))
    return {pair: f"b{pair[0]}-r{pair[1]}" for pair in pairs}
