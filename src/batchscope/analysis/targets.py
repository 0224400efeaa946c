"""Stages that end at a target: which trials reached it, and what that took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from batchscope.analysis.estimates import Estimate
from batchscope.analysis.facts import StudyFacts
from batchscope.analysis.moments import estimate
from batchscope.analysis.panel import Bools, Panel
from batchscope.analysis.settings import Target

__all__ = ["TargetRow", "goal_rows", "reached_by_all", "target_rows"]


@dataclass(frozen=True)
class TargetRow:
    """One batch size in a stage that ends at a target.

    Attributes:
        stage: As in the history.
        metric: ``val_accuracy``, at least `value`, or ``val_loss``, at most.
        value: The target.
        most_epochs: After so many the stage ends without it.
        batch_size: Examples per update.
        n_trials: Trials that have come to the stage.
        n_reached: Of these, how many reached the target.
        n_missed: Of these, how many left the stage, or diverged in it, without.
        epochs: When it was reached, over the trials that did, since the trial's start.
        updates: Likewise; None without the column.
        examples: Likewise.
        seconds: Likewise.
        resolution: Mean over these trials of the updates since the measurement before, after which the target
            was reached; None without the column, NaN without such a trial.
    """

    stage: str
    metric: str
    value: float
    most_epochs: int
    batch_size: int
    n_trials: int
    n_reached: int
    n_missed: int
    epochs: Estimate
    updates: Estimate | None
    examples: Estimate | None
    seconds: Estimate | None
    resolution: float | None

    def spent(self, cost: str) -> Estimate | None:
        """What it took in ``epochs``, ``updates``, ``examples`` or ``seconds``."""
        found: Estimate | None = getattr(self, cost)
        return found


def target_rows(panel: Panel, confidence: float) -> tuple[TargetRow, ...]:
    """By stage, then batch size; none where no stage ends at a target, or the history lacks its metric.

    Args:
        panel: The whole history.
        confidence: Of the intervals.
    """
    targets = {} if panel.plan is None else panel.plan.targets
    return tuple(
        row
        for position, name in enumerate(panel.stages)
        if name in targets and targets[name].metric in panel.metrics
        for row in _rows(panel, position, targets[name], confidence)
    )


def goal_rows(facts: StudyFacts, rows: Sequence[TargetRow]) -> tuple[TargetRow, ...]:
    """Those of the target at which trials end; none where they end otherwise."""
    return tuple(row for row in rows if facts.goal is not None and row.stage == facts.stages[-1].name)


def reached_by_all(panel: Panel, rows: Sequence[TargetRow]) -> tuple[TargetRow, ...]:
    """Those of which every trial got there, also of those that have not come to the stage.

    Args:
        panel: The whole history.
        rows: Of one stage.
    """
    begun = dict(
        zip(panel.batch_sizes.tolist(), panel.recorded.any(axis=2).sum(axis=1).tolist(), strict=True)
    )
    return tuple(row for row in rows if row.n_reached == begun[row.batch_size])


def _rows(panel: Panel, stage: int, target: Target, confidence: float) -> list[TargetRow]:
    inside = panel.stage_index == stage
    there = inside.any(axis=2)
    last = inside.shape[2] - 1 - inside[:, :, ::-1].argmax(axis=2)
    value = np.take_along_axis(panel.metrics[target.metric], last[:, :, None], axis=2)[:, :, 0]
    good = value >= target.value if target.metric == "val_accuracy" else value <= target.value
    reached = there & good
    missed = there & ~reached & _is_left(panel, stage, last)

    def when(row: int, cost: str) -> Estimate | None:
        values = panel.epochs if cost == "epochs" else panel.costs.get(cost)
        if values is None:
            return None
        columns = last[row, reached[row]]
        spent = values[columns] if values.ndim == 1 else values[row, reached[row], columns]
        return estimate(spent.astype(np.float64), confidence)

    def resolution(row: int) -> float | None:
        if "updates" not in panel.costs:
            return None
        here = row, reached[row], last[row, reached[row]]
        since = panel.costs["updates"][here] - panel.costs_before["updates"][here]
        return float(since.mean()) if since.size else math.nan

    return [
        TargetRow(
            stage=panel.stages[stage],
            metric=target.metric,
            value=target.value,
            most_epochs=target.epochs,
            batch_size=int(panel.batch_sizes[row]),
            n_trials=int(there[row].sum()),
            n_reached=int(reached[row].sum()),
            n_missed=int(missed[row].sum()),
            epochs=when(row, "epochs") or estimate(np.array([]), confidence),
            updates=when(row, "updates"),
            examples=when(row, "examples"),
            seconds=when(row, "seconds"),
            resolution=resolution(row),
        )
        for row in range(len(panel.batch_sizes))
        if there[row].any()
    ]


def _is_left(panel: Panel, stage: int, last: np.ndarray) -> Bools:
    """Whether each trial is over with the stage: it has ended, diverged there, or is in a later one."""
    later = (panel.stage_index > stage).any(axis=2)
    diverged = np.take_along_axis(panel.diverged, last[:, :, None], axis=2)[:, :, 0]
    ended = False if panel.ends.own is None else panel.ends.own >= 0
    result: Bools = later | diverged | ended
    return result
