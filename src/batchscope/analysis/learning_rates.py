"""At which learning rates batch sizes were compared, and how these came about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from batchscope.analysis.estimates import Estimate
from batchscope.analysis.settings import Target
from batchscope.analysis.to_target_results import RateToTarget, TrialToTarget

__all__ = ["BY_UPDATES", "How", "LearningRatePoint", "LearningRates", "Optimism"]

How = Literal["same", "linear", "sqrt", "grid", "differ"]
BY_UPDATES = "updates"
"""`LearningRates.chosen_by` where updates to the target at which trials end chose."""


@dataclass(frozen=True)
class LearningRatePoint:
    """One learning rate of a grid at one batch size, at the end of its trials.

    Attributes:
        batch_size: Examples per update.
        learning_rate: Of the grid.
        n_trials: Trials that have begun.
        n_diverged: Of these, how many ended with a NaN or infinite loss or accuracy; where `to_target` tells,
            without having reached the target.
        n_missing: Of these, how many have not come to the end.
        selection: Of what the best was chosen by, over the others; None where `to_target` tells it.
        finals: What `selection` is of, by replicate; empty likewise.
        metric: Of the metric that is analysed, over the trials that have ended and did not diverge.
        to_target: What it took to get to the target at which trials end, where that chose; else None. Its
            efficiency is NaN.
        chosen: Whether it is its batch size's best.
        at_edge: Whether it is, and is also the smallest or largest that its batch size tried; where
            `to_target` tells, only if none between these is as good.
        passed_over: Whether it would be if its diverged trials did not count; where `to_target` tells, by the
            least median alone, had not more of its trials missed the target.
    """

    batch_size: int
    learning_rate: float
    n_trials: int
    n_diverged: int
    n_missing: int
    selection: Estimate | None
    finals: tuple[float, ...]
    metric: Estimate
    to_target: RateToTarget | None
    chosen: bool
    at_edge: bool
    passed_over: bool


@dataclass(frozen=True)
class Optimism:
    """By how much a batch size's figures are too good because its replicates chose its learning rate.

    Attributes:
        batch_size: Examples per update.
        n_replicates: In which all of its learning rates have ended.
        n_changed: Of these, how many would have another learning rate if the others alone chose.
        estimate: In the unit of the metric, positive where its mean is too good; see
            `batchscope.analysis.choice.optimism`. NaN where there is none.
    """

    batch_size: int
    n_replicates: int
    n_changed: int
    estimate: float


@dataclass(frozen=True)
class LearningRates:
    """How the learning rates came about.

    Attributes:
        how: ``same`` at all batch sizes; scaled with batch size by the ``linear`` or ``sqrt`` rule; each
            batch size's best of a ``grid``; or ``differ``, between batch sizes or between replicates,
            where a history alone cannot tell why. None where nothing tells.
        stage: That has the grid; empty where the history has no stages, None without a grid.
        chosen_by: Column that chose. Without a column of its own it is the metric that is analysed,
            whose figures are then optimistic; `BY_UPDATES` where trials end at a target. None without a
            grid.
        goal: The target at which trials end, where updates to it chose; else None.
        points: By batch size, then learning rate; none without a grid.
        trials: What it took each trial to get to `goal`, by batch size, learning rate and replicate; none
            without one.
        optimism: Of each batch size that has tried several; none where updates to a target chose.
        mixed: Batch sizes whose replicates have different learning rates where these are no grid.
    """

    how: How | None
    stage: str | None = None
    chosen_by: str | None = None
    goal: Target | None = None
    points: tuple[LearningRatePoint, ...] = ()
    trials: tuple[TrialToTarget, ...] = ()
    optimism: tuple[Optimism, ...] = ()
    mixed: tuple[int, ...] = ()

    @property
    def optimistic(self) -> bool:
        """Whether the images that chose the learning rates are those that the figures are of."""
        return self.chosen_by is not None and self.chosen_by.startswith("val_")

    @property
    def chosen(self) -> tuple[LearningRatePoint, ...]:
        """The best of each batch size, ascending."""
        return tuple(point for point in self.points if point.chosen)
