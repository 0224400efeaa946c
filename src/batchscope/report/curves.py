"""The history in the long form that charts draw, and what is left out of a drawing.

One row per (trial, epoch, part). Figures of an epoch whose loss or accuracy is not finite are NaN,
all of them, as in the analysis: they break a curve, and their trials are counted as diverged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import pandas as pd

from batchscope.analysis.words import count
from batchscope.errors import HistoryError
from batchscope.history import METRICS

__all__ = [
    "PARTS",
    "POINTS",
    "StageStart",
    "accuracy_or_loss",
    "curve_points",
    "diverged_note",
    "even_choice",
    "last_common_epoch",
    "measures",
    "replicate_label",
    "stage_starts",
    "thin_epochs",
]

Measure = Literal["accuracy", "loss"]
Item = TypeVar("Item")
PARTS = ("training", "validation")
POINTS = 2400
"""So many points a chart draws at most, which keeps a page of ten charts small and quick."""
EPOCHS = 200
"""So many points a single curve draws at most; a panel has hardly more pixels."""
FEWEST_EPOCHS = 12


@dataclass(frozen=True)
class StageStart:
    """Where a stage after the first begins.

    Attributes:
        stage: Its name.
        epoch: Its first epoch.
    """

    stage: str
    epoch: int


def measures(history: pd.DataFrame) -> tuple[Measure, ...]:
    """Which of accuracy and loss the history has, for training or for validation."""
    known: tuple[Measure, ...] = ("accuracy", "loss")
    return tuple(name for name in known if _columns(history, name))


def accuracy_or_loss(history: pd.DataFrame) -> Measure:
    """The measure that the main figures show: accuracy where there is one.

    Raises:
        HistoryError: The history has neither.
    """
    found = measures(history)
    if not found:
        raise HistoryError("a chart needs an accuracy or a loss, but this history has neither")
    return found[0]


def curve_points(history: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """One measure in long form.

    Args:
        history: In standard form, see `batchscope.history.check_history`.
        measure: Both parts are taken where the history has them.

    Returns:
        Columns ``batch_size``, ``replicate`` (text, or the trial's name where a batch size has
        the same replicate twice), ``epoch``, ``part`` (``training`` or ``validation``) and
        ``value`` (float64, NaN where any of the history's `METRICS` is not finite: an accuracy beside
        a loss that is NaN means nothing).
    """
    label = replicate_label(history)
    figures = [name for name in METRICS if name in history.columns]
    finite = np.isfinite(history[figures].to_numpy(dtype=np.float64)).all(axis=1)
    frames = [
        pd.DataFrame(
            {
                "batch_size": history["batch_size"],
                "replicate": label,
                "epoch": history["epoch"],
                "part": part,
                "value": history[column].where(finite),
            }
        )
        for part, column in _columns(history, measure).items()
    ]
    return pd.concat(frames, ignore_index=True)


def stage_starts(history: pd.DataFrame) -> tuple[StageStart, ...]:
    """First epochs of all stages but the first; none where the history names no stages.

    A stage that begins at different epochs, as it may after a budget in updates, has no start for all.
    """
    if "stage" not in history.columns:
        return ()
    starts = history.groupby(["stage", "batch_size"])["epoch"].min().groupby("stage").agg(["min", "max"])
    later = starts.sort_values("min").iloc[1:].query("min == max")
    return tuple(StageStart(str(stage), int(epoch)) for stage, epoch in later["min"].items())


def last_common_epoch(history: pd.DataFrame) -> int:
    """The last epoch that every batch size has reached with at least one replicate."""
    return int(history.groupby("batch_size")["epoch"].max().min())


def diverged_note(points: pd.DataFrame) -> str:
    """Says how many trials have a figure that is not finite; empty where none has."""
    lost = points.loc[points["value"].isna(), ["batch_size", "replicate"]].drop_duplicates()
    if lost.empty:
        return ""
    sizes = sorted(lost["batch_size"].unique())
    where = ", ".join(str(size) for size in sizes[:8]) + (", \u2026" if len(sizes) > 8 else "")
    return (
        f"{count(len(lost), 'trial')} diverged (batch {where}); "
        "curves break there, and means are over the trials that still have figures."
    )


def thin_epochs(points: pd.DataFrame, curves: int) -> tuple[pd.DataFrame, str]:
    """Keeps evenly chosen epochs, first and last among them, so that a chart stays quick.

    Args:
        points: With a column ``epoch``.
        curves: How many curves share the chart's `POINTS`.

    Returns:
        The points at the epochs kept, and a note that says so, empty where all are.
    """
    epochs = sorted(points["epoch"].unique())
    most = max(FEWEST_EPOCHS, min(EPOCHS, POINTS // max(curves, 1)))
    kept = even_choice(epochs, most)
    if len(kept) == len(epochs):
        return points, ""
    return points[points["epoch"].isin(kept)], f"{len(kept)} of {len(epochs)} epochs drawn."


def even_choice(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` items at even steps, first and last among them."""
    if len(items) <= most:
        return list(items)
    return [items[index] for index in np.linspace(0, len(items) - 1, most).round().astype(int)]


def _columns(history: pd.DataFrame, measure: Measure) -> dict[str, str]:
    pairs = {"training": f"train_{measure}", "validation": f"val_{measure}"}
    return {part: column for part, column in pairs.items() if column in history.columns}


def replicate_label(history: pd.DataFrame) -> pd.Series:
    """Each row's replicate as text, or its trial's name where a batch size has a replicate twice."""
    repeated = history.duplicated(["batch_size", "replicate", "epoch"]).any()
    column = "trial" if repeated and "trial" in history.columns else "replicate"
    return history[column].astype(str)
