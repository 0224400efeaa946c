"""Part one: mean, standard deviation and t-interval per batch size at chosen epochs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from batchscope.analysis.estimates import Estimate, SummaryRow
from batchscope.analysis.moments import estimate
from batchscope.analysis.panel import Bools, Ints, Panel
from batchscope.analysis.settings import Settings
from batchscope.errors import HistoryError

__all__ = ["summarize", "summary_epochs"]

# Takes (B, R, E) values to the (R,) of a batch size at a moment, and says which replicates are there.
Cut = tuple[Callable[[npt.NDArray[Any]], npt.NDArray[Any]], Bools]


def summary_epochs(panel: Panel, chosen: tuple[int, ...] | None) -> tuple[tuple[int, ...], ...]:
    """The epochs to summarize besides the end, ascending, for each batch size.

    By default the first epoch, of those that any trial of the batch size recorded, at or after three
    quarters of the way to its end; none where trials have ends of their own. A chosen epoch counts for
    the batch sizes that do not end before it.

    Raises:
        HistoryError: A chosen epoch was not recorded by any trial.
    """
    ends = panel.ends.epochs.tolist()
    if chosen is None and panel.ends.own is not None:
        return ((),) * len(ends)
    if chosen is None:
        return tuple(_late(panel, row, end) for row, end in enumerate(ends))
    unknown = sorted(set(chosen) - set(panel.epochs.tolist()))
    if unknown:
        raise HistoryError(
            f"epochs of the summary must be in the history, which runs from {panel.epochs[0]} to "
            f"{panel.epochs[-1]}, but got {', '.join(map(str, unknown))}"
        )
    return tuple(tuple(sorted(epoch for epoch in set(chosen) if epoch < end)) for end in ends)


def _late(panel: Panel, row: int, end: int) -> tuple[int, ...]:
    # At a common end, one epoch for all.
    recorded = panel.recorded[row].any(axis=0) | panel.ends.common
    late = panel.epochs[recorded & (panel.epochs >= 0.75 * end) & (panel.epochs < end)]
    return tuple(late[:1].tolist())


def summarize(panel: Panel, settings: Settings) -> tuple[SummaryRow, ...]:
    """Summary rows by epoch, then batch size, and after all of them those of the ends.

    The gap is differenced within each trial before it is averaged, so its interval is that of
    paired values.
    """
    before = summary_epochs(panel, settings.summary_epochs)
    cells = sorted((epoch, row) for row, epochs in enumerate(before) for epoch in epochs)
    rows = [_row(panel, row, epoch, settings.confidence, _cut_at(panel, row, epoch)) for epoch, row in cells]
    for row, epoch in enumerate(panel.ends.epochs.tolist()):
        own = panel.ends.own
        cut = _cut_at(panel, row, epoch) if own is None else _cut_at_own_ends(panel, row, own[row])
        rows.append(_row(panel, row, epoch, settings.confidence, cut))
    return tuple(rows)


def _cut_at(panel: Panel, row: int, epoch: int) -> Cut:
    # An end that no trial has reached is not among the panel's epochs.
    column = max(int(np.searchsorted(panel.epochs, epoch, side="right")) - 1, 0)
    there = panel.recorded[row, :, column] & (panel.epochs[column] == epoch)
    return lambda values: values[row, :, column], there


def _cut_at_own_ends(panel: Panel, row: int, own: Ints) -> Cut:
    return lambda values: panel.at_end(values.astype(np.float64))[row], own >= 0


def _row(panel: Panel, row: int, epoch: int, confidence: float, cut: Cut) -> SummaryRow:
    at, recorded = cut
    trials = panel.recorded[row].any(axis=1)
    diverged = (at(panel.diverged) == 1) & trials
    missing = trials & ~diverged & ~recorded
    stage = int(np.where(recorded, at(panel.stage_index), -1).max())

    def quantity(name: str) -> Estimate | None:
        if name not in panel.metrics:
            return None
        return estimate(np.where(recorded, at(panel.metrics[name]), np.nan), confidence)

    return SummaryRow(
        epoch=epoch,
        stage=panel.stages[stage] if stage >= 0 else None,
        batch_size=int(panel.batch_sizes[row]),
        n_trials=int(trials.sum()),
        n_diverged=int(diverged.sum()),
        n_missing=int(missing.sum()),
        train_accuracy=quantity("train_accuracy"),
        val_accuracy=quantity("val_accuracy"),
        gap=quantity("gap"),
        train_loss=quantity("train_loss"),
        val_loss=quantity("val_loss"),
    )
