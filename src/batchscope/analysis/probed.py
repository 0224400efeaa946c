"""Which probed epochs there are, which of them end a stage, and which trials count at each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from batchscope.analysis.panel import Bools, Floats, Ints, Panel

__all__ = ["ProbedCell", "probed_cells", "stage_ends"]


class _Row(Protocol):
    @property
    def stage(self) -> str: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def ends_stage(self) -> bool: ...


_AnyRow = TypeVar("_AnyRow", bound=_Row)


@dataclass(frozen=True, eq=False)
class ProbedCell:
    """One batch size at one probed epoch of a stage.

    Attributes:
        epoch: Counted on through the stages.
        stage: That the epoch belongs to.
        batch_size: Examples per update.
        ends_stage: Whether it stands for the end of its stage, see `probed_cells`.
        row: Place of the batch size in the panel.
        trials: Places of the replicates that count; shape (n,).
        columns: Place of the epoch at which each is taken; shape (n,).
    """

    epoch: int
    stage: str
    batch_size: int
    ends_stage: bool
    row: int
    trials: Ints
    columns: Ints

    def of(self, values: Floats) -> Floats:
        """The trials' own among (B, R, E) values, shape (n,)."""
        taken: Floats = values[self.row, self.trials, self.columns]
        return taken


def probed_cells(panel: Panel, complete: Bools) -> Iterator[ProbedCell]:
    """Every probed epoch, by epoch, then batch size.

    What stands for the end of a stage is, for each batch size apart, the last probed epoch of the stage that
    the most of its trials reached or had diverged by. Stages may end at different epochs, since a budget may
    be in updates; while a run goes on, so do those of batch sizes that lag behind. Where trials have ends of
    their own, the end of a stage is each trial's own last probed epoch in it, over those that are through
    with the stage and did not diverge in it; the cell at the latest of these epochs stands for them all.

    Args:
        panel: The whole history.
        complete: (B, R, E), where a trial has all the figures that are needed.
    """
    own = panel.ends.own is not None
    ends = _own_stage_ends(panel, complete) if own else _stage_ends(panel, complete)
    for column, row, stage in np.argwhere(_probed_stages(panel, complete)):
        trials = np.flatnonzero(complete[row, :, column] & (panel.stage_index[row, :, column] == stage))
        columns = np.full(len(trials), column)
        if own and ends[stage, row].max() == column:
            trials = np.flatnonzero(ends[stage, row] >= 0)
            columns = ends[stage, row, trials]
        yield ProbedCell(
            epoch=int(panel.epochs[column]),
            stage=panel.stages[stage],
            batch_size=int(panel.batch_sizes[row]),
            ends_stage=bool(ends[stage, row].max() == column),
            row=int(row),
            trials=trials,
            columns=columns,
        )


def stage_ends(rows: Sequence[_AnyRow]) -> tuple[_AnyRow, ...]:
    """The rows that stand for the end of a stage, by stage, then batch size."""
    found = [row for row in rows if row.ends_stage]
    stages = {stage: place for place, stage in enumerate(dict.fromkeys(row.stage for row in found))}
    return tuple(sorted(found, key=lambda row: (stages[row.stage], row.batch_size)))


def _probed_stages(panel: Panel, complete: Bools) -> Bools:
    """Where any trial was probed, (E, B, stages): at one epoch trials may be in different stages."""
    stages = range(len(panel.stages))
    inside = [(complete & (panel.stage_index == stage)).any(axis=1).T for stage in stages]
    return np.stack(inside, axis=2)


def _own_stage_ends(panel: Panel, complete: Bools) -> Ints:
    """Column of each trial's last probe in each stage, (stages, B, R); -1 where it does not count."""
    ends = np.full((len(panel.stages), *complete.shape[:2]), -1, dtype=np.int64)
    columns = np.arange(complete.shape[2])
    for stage in range(len(panel.stages)):
        inside = panel.stage_index == stage
        last = np.where(inside, columns, -1).max(axis=2)
        lost = np.take_along_axis(panel.diverged, np.maximum(last, 0)[:, :, None], axis=2)[:, :, 0]
        through = (panel.stage_index > stage).any(axis=2)
        if panel.ends.own is not None:
            through |= panel.ends.own >= 0
        probed = np.where(inside & complete, columns, -1).max(axis=2)
        ends[stage] = np.where(through & ~lost, probed, -1)
    return ends


def _stage_ends(panel: Panel, complete: Bools) -> Ints:
    """Column of each stage's end at each batch size, (stages, B, 1); -1 where it was not probed."""
    ends = np.full((len(panel.stages), len(panel.batch_sizes), 1), -1, dtype=np.int64)
    reached = (complete | panel.diverged).sum(axis=1)
    for stage in range(len(panel.stages)):
        probed = (complete & (panel.stage_index == stage)).any(axis=1)
        count = np.where(probed, reached, 0)
        most = probed & (count == count.max(axis=1, keepdims=True))
        last = most.shape[1] - 1 - most[:, ::-1].argmax(axis=1)
        ends[stage, :, 0] = np.where(probed.any(axis=1), last, -1)
    return ends
