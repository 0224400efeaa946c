"""Part one: mean, standard deviation and t-interval per batch size at chosen epochs."""

from __future__ import annotations

import numpy as np

from batchscope.analysis.estimates import Estimate, SummaryRow
from batchscope.analysis.moments import estimate
from batchscope.analysis.panel import Panel
from batchscope.analysis.settings import Settings
from batchscope.errors import HistoryError

__all__ = ["summarize", "summary_epochs"]


def summary_epochs(panel: Panel, chosen: tuple[int, ...] | None) -> tuple[int, ...]:
    """The epochs to summarize, ascending.

    By default the first recorded epoch at or after three quarters of the longest trial's last
    one. That last epoch, the end, is always among them.

    Raises:
        HistoryError: A chosen epoch was not recorded by any trial.
    """
    if chosen is None:
        last = int(panel.epochs[-1])
        late = panel.epochs[panel.epochs >= 0.75 * last]
        return tuple(sorted({int(late[0]), last}))
    unknown = sorted(set(chosen) - set(panel.epochs.tolist()))
    if unknown:
        raise HistoryError(
            f"epochs of the summary must be in the history, which runs from {panel.epochs[0]} to "
            f"{panel.epochs[-1]}, but got {', '.join(map(str, unknown))}"
        )
    return tuple(sorted({*chosen, int(panel.epochs[-1])}))


def summarize(panel: Panel, settings: Settings) -> tuple[SummaryRow, ...]:
    """Summary rows by epoch, then batch size.

    The gap is differenced within each trial before it is averaged, so its interval is that of
    paired values.
    """
    columns = np.searchsorted(panel.epochs, summary_epochs(panel, settings.summary_epochs))
    return tuple(
        _row(panel, row, int(column), settings.confidence)
        for column in columns
        for row in range(len(panel.batch_sizes))
    )


def _row(panel: Panel, row: int, column: int, confidence: float) -> SummaryRow:
    trials = panel.recorded[row].any(axis=1)
    diverged = panel.diverged[row, :, column] & trials
    missing = trials & ~diverged & ~panel.recorded[row, :, column]
    stages = panel.stage_index[row, :, column]

    def quantity(name: str) -> Estimate | None:
        if name not in panel.metrics:
            return None
        return estimate(panel.metrics[name][row, :, column], confidence)

    return SummaryRow(
        epoch=int(panel.epochs[column]),
        stage=panel.stages[stages.max()] if stages.max() >= 0 else None,
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
