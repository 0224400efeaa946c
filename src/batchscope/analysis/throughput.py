"""How fast trials trained, by stage and batch size, and what memory they took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from batchscope.analysis.estimates import Estimate
from batchscope.analysis.moments import estimate
from batchscope.analysis.panel import Floats, Panel
from batchscope.analysis.settings import WorkersUsed
from batchscope.analysis.words import Sentence, count, listed
from batchscope.records import PEAK_MEMORY

__all__ = ["Throughput", "ThroughputRow", "find_throughput", "throughput_notes"]


@dataclass(frozen=True)
class ThroughputRow:
    """One batch size in one stage.

    Attributes:
        stage: As in the history; empty where it has no stage column.
        batch_size: Examples per update.
        n_epochs: Epochs that the figures rest on, over all trials.
        examples_per_second: Of training, each trial's over its epochs together.
        seconds_per_update: Likewise; None without the column ``updates``.
        peak_memory: Bytes: the most that a trial's process had taken by the end of the stage; None where
            it was not measured.
    """

    stage: str
    batch_size: int
    n_epochs: int
    examples_per_second: Estimate
    seconds_per_update: Estimate | None
    peak_memory: Estimate | None


@dataclass(frozen=True)
class Throughput:
    """How fast trials trained.

    Attributes:
        rows: By stage, then batch size.
        layouts: Workers and threads of each that the trials ran in, in the order of the run's sessions;
            empty where nobody knows.
        reason: Why there are no rows; None where there are.
    """

    rows: tuple[ThroughputRow, ...]
    layouts: tuple[WorkersUsed, ...]
    reason: str | None


def find_throughput(panel: Panel, confidence: float, layouts: tuple[WorkersUsed, ...] = ()) -> Throughput:
    """Examples a second and seconds an update, from what each epoch added to the trial's counts.

    Each trial's first epoch in a stage is left out where there are later ones, for it holds what is done
    once: memory is taken, files are read for the first time.

    Args:
        panel: The whole history.
        confidence: Of the intervals over replicates.
        layouts: As in `Throughput`.
    """
    missing = [name for name in ("examples", "seconds") if name not in panel.costs]
    if missing:
        return Throughput((), layouts, f"throughput needs the column {' and '.join(missing)}")
    rows = tuple(
        row
        for stage in range(len(panel.stages))
        for index in range(len(panel.batch_sizes))
        if (row := _row(panel, stage, index, confidence)) is not None
    )
    return Throughput(rows, layouts, None if rows else "no epoch tells both its examples and its seconds")


def _row(panel: Panel, stage: int, index: int, confidence: float) -> ThroughputRow | None:
    used = np.array([_timed(row) for row in panel.stage_index[index] == stage])
    steps = {name: _steps(panel, name)[index] for name in panel.costs}
    used &= np.isfinite(steps["examples"]) & np.isfinite(steps["seconds"])
    if not used.any():
        return None

    def total(name: str) -> Floats:
        sums: Floats = np.where(used, steps[name], 0.0).sum(axis=1)
        return np.where(used.any(axis=1), sums, np.nan)

    seconds = total("seconds")
    seconds = np.where(seconds > 0, seconds, np.nan)  # a clock that is too coarse tells nothing
    updates = None
    if "updates" in steps:
        updates = estimate(_ratio(seconds, total("updates")), confidence)
    return ThroughputRow(
        stage=panel.stages[stage],
        batch_size=int(panel.batch_sizes[index]),
        n_epochs=int(used.sum()),
        examples_per_second=estimate(_ratio(total("examples"), seconds), confidence),
        seconds_per_update=updates,
        peak_memory=_peak(panel, stage, index, confidence),
    )


def _timed(inside: np.ndarray) -> np.ndarray:
    """Of one trial, the epochs of a stage that count: all but the first, if there are others."""
    counted = inside.copy()
    if inside.sum() > 1:
        counted[inside.argmax()] = False
    return counted


def _steps(panel: Panel, name: str) -> Floats:
    """What each epoch added to a count, (B, R, E); NaN where it or the epoch before has none."""
    values = panel.costs[name]
    before = np.full_like(values, np.nan)
    known = panel.recorded.cumsum(axis=2) > 0
    before[:, :, 1:] = np.where(known[:, :, :-1], values[:, :, :-1], 0.0)
    before[:, :, 0] = 0.0
    steps: Floats = values - before
    return steps


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """NaN where the denominator is not above 0."""
    ratio: Floats = np.divide(
        numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0
    )
    return ratio


def _peak(panel: Panel, stage: int, index: int, confidence: float) -> Estimate | None:
    measured = panel.probes.get(PEAK_MEMORY)
    if measured is None:
        return None
    inside = (panel.stage_index[index] == stage) & np.isfinite(measured[index])
    if not inside.any():
        return None
    most = np.where(inside, measured[index], -np.inf).max(axis=1)
    return estimate(np.where(np.isfinite(most), most, np.nan), confidence)


def throughput_notes(found: Throughput) -> list[Sentence]:
    """How trials shared the machine, on which throughput depends; nothing where nobody knows."""
    if not found.rows or not found.layouts:
        return []
    ways = [f"{count(way.workers, 'worker')} of {count(way.threads, 'thread')}" for way in found.layouts]
    text = f"Throughput is that of trials in {listed(ways)}"
    if len(ways) > 1:
        text += ", one after the other, and not told apart by these"
    if any(way.workers > 1 for way in found.layouts):
        text += ": trials that ran side by side took cores and memory from each other"
    figures = (("workers", found.layouts[-1].workers), ("threads", found.layouts[-1].threads))
    return [Sentence("throughput", f"{text}.", figures)]
