"""Where each batch size ends: at one epoch for all, or each at its own where budgets are in updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from batchscope.analysis.settings import Budget, Plan

if TYPE_CHECKING:
    from batchscope.analysis.panel import Panel

__all__ = ["Ends", "find_ends"]


@dataclass(frozen=True)
class Ends:
    """Where the batch sizes are compared.

    Attributes:
        epochs: (B,) int64, each batch size's end; it may be an epoch that none of its trials has
            reached.
        budgets: For each stage, of what all batch sizes were given the same; None where nothing
            tells.
        planned: Whether the study told it, not the history.
        own: (B, R) int64, each trial's own last epoch, where the length of a stage is known only when it
            is over; -1 for trials that have not ended. `epochs` are then the largest of each batch
            size. None where all trials of a batch size end together.
    """

    epochs: npt.NDArray[np.int64]
    budgets: tuple[Budget | None, ...]
    planned: bool
    own: npt.NDArray[np.int64] | None = None

    @property
    def common(self) -> bool:
        """Whether all trials end at the same epoch."""
        return self.own is None and bool((self.epochs == self.epochs[0]).all())


@dataclass(frozen=True)
class _Course:
    """What the trials that did not diverge had been through at the end of each of S stages.

    Attributes:
        sizes: (b,) positions of the batch sizes that have such trials, ascending.
        epochs: (S, b) int64, the epoch.
        updates: (S, b) float64; NaN without the column.
        examples: (S, b) float64; NaN without the column.
    """

    sizes: npt.NDArray[np.intp]
    epochs: npt.NDArray[np.int64]
    updates: npt.NDArray[np.float64]
    examples: npt.NDArray[np.float64]


def find_ends(panel: Panel, plan: Plan | None) -> Ends:
    """Where each batch size ends.

    As a rule the end is one epoch for all, the longest trial's last one: batch sizes were given
    the same number of epochs, or are about to be, and those that are not there yet have no figures
    at the end. Where a budget is in updates, batch sizes end at different epochs, and the end is
    each batch size's own. Where a budget is in seconds, or until a target is reached, the end is each
    trial's own last epoch; a batch size that never reached its target is compared at the end of its
    most epochs, which `batchscope.analysis.targets` tells.

    The plan decides, where there is one: if it does not know where trials end, those that have
    ended tell, as soon as there is one; if it ends batch sizes at different epochs, these are the
    ends, as soon as a trial has reached its own. Without a plan the history is asked, stage by
    stage. A batch size's end of a stage is the last epoch of its longest trial, and at least half
    of its trials must end the stage there; trials that ended diverged do not count. A stage's
    budget is in epochs if batch sizes then have the same number of epochs in it, else in updates
    if their updates in it differ by no more than an epoch's worth at the largest batch size (whole
    epochs do not add up to any number), else in examples if these are equal. The ends are each
    batch size's own if every stage's budget is known and they differ. A batch size of which every
    trial diverged ends with the longest of them.

    The history of a run that goes on can look like this by chance: with a budget in epochs, where
    batch sizes trained side by side have taken equally many updates when it is read. Each is then
    compared at its last epoch, at equal updates, and a note says that the history alone told so.

    Args:
        panel: The whole history.
        plan: What the study says; None where there is no study.
    """
    common = np.full(len(panel.batch_sizes), panel.epochs[-1])
    planned = None if plan is None else plan.last_epochs
    if plan is not None and planned is None:
        return _own_ends(panel, plan, common)
    if plan is not None and planned is not None and {int(size) for size in panel.batch_sizes} <= set(planned):
        budgets = tuple(plan.budgets.get(name) for name in panel.stages)
        epochs = np.array([planned[int(size)] for size in panel.batch_sizes], dtype=np.int64)
        reached = (panel.recorded.any(axis=1) & (panel.epochs == epochs[:, None])).any()
        return Ends(epochs if reached and np.ptp(epochs) else common, budgets, planned=True)
    unknown = Ends(common, (None,) * len(panel.stages), planned=False)
    course = _course(panel)
    if course is None:
        return unknown
    budgets = tuple(_budget(course, stage) for stage in range(len(panel.stages)))
    if None in budgets:
        return unknown
    if not np.ptp(course.epochs[-1]):
        return Ends(common, budgets, planned=False)
    own = panel.epochs[_last(np.asarray(panel.recorded.any(axis=1)))]
    own[course.sizes] = course.epochs[-1]
    return Ends(own, budgets, planned=False)


def _own_ends(panel: Panel, plan: Plan, common: npt.NDArray[np.int64]) -> Ends:
    names = [
        [panel.trial_names.get((int(size), int(replicate)), "") for replicate in panel.replicates]
        for size in panel.batch_sizes
    ]
    ended = np.array([[name in plan.ended for name in row] for row in names])
    last = panel.epochs[_last(panel.recorded)]
    if not ended.any():
        return Ends(common, (None,) * len(panel.stages), planned=True)
    epochs = np.where(panel.recorded.any(axis=2), last, -1).max(axis=1)
    budgets = tuple(plan.budgets.get(name) for name in panel.stages)
    return Ends(epochs, budgets, planned=True, own=np.where(ended, last, -1))


def _course(panel: Panel) -> _Course | None:
    """None with fewer than two batch sizes, or where trials of one end too differently."""
    trials = panel.recorded.any(axis=2) & ~panel.diverged[:, :, -1]
    sizes = np.flatnonzero(trials.any(axis=1))
    if len(sizes) < 2:
        return None
    n_stages = len(panel.stages)
    epochs = np.zeros((n_stages, len(sizes)), dtype=np.int64)
    spent = {cost: np.full(epochs.shape, np.nan) for cost in ("updates", "examples")}
    for stage in range(n_stages):
        inside = (panel.stage_index == stage) & trials[:, :, None]
        last = np.where(inside.any(axis=2), _last(inside), -1)
        for place, row in enumerate(sizes):
            end = int(last[row].max())
            there = last[row] == end
            if end < 0 or 2 * there.sum() < trials[row].sum():
                return None
            epochs[stage, place] = panel.epochs[end]
            for cost in spent.keys() & panel.costs.keys():
                spent[cost][stage, place] = panel.costs[cost][row, there, end].mean()
    return _Course(sizes, epochs, spent["updates"], spent["examples"])


def _budget(course: _Course, stage: int) -> Budget | None:
    epochs, updates, examples = (
        np.diff(values, axis=0, prepend=0)[stage]
        for values in (course.epochs, course.updates, course.examples)
    )
    if not np.ptp(epochs):
        return "epochs"
    # NaN compares as False.
    if np.ptp(updates) <= updates[-1] / epochs[-1]:
        return "updates"
    return "examples" if np.ptp(examples) == 0 else None


def _last(marks: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Position of the last mark along the last axis."""
    position: npt.NDArray[np.intp] = marks.shape[-1] - 1 - marks[..., ::-1].argmax(axis=-1)
    return position
