"""What a person may choose about the analysis, and what a history alone cannot tell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from batchscope.errors import HistoryError
from batchscope.recipe import Budget, TargetSpec
from batchscope.spec import UntilCi

__all__ = ["Budget", "Plan", "RecipeFacts", "Settings", "Target", "WorkersUsed"]

Rule = Literal["linear", "sqrt"]

VALIDATION_METRICS = ("val_accuracy", "val_loss")


@dataclass(frozen=True)
class Settings:
    """Choices that the figures depend on.

    Attributes:
        margin: Differences of the metric below it do not matter in practice; in the unit of the
            metric, so half a point of accuracy is 0.005.
        summary_epochs: Epochs of the summary besides the end; None for three quarters of the way.
        metric: ``val_accuracy`` or ``val_loss``; None for the first of these that the history has.
        confidence: Coverage of all intervals, between 0 and 1.
        resamples: Number of bootstrap resamples, at least 100.
        seed: Of the bootstrap, so that the same history gives the same interval.
        targets: To which the updates of each trial are counted, each once; none without having been asked
            for.
        price_per_hour: Of the machine that trains, in any currency; None for no prices.
        memory_limit: Bytes that a trial may take; batch sizes that took more are no choice. None for none.

    Raises:
        HistoryError: A value lies outside its range.
    """

    margin: float = 0.005
    summary_epochs: tuple[int, ...] | None = None
    metric: str | None = None
    confidence: float = 0.95
    resamples: int = 1000
    seed: int = 0
    targets: tuple[TargetSpec, ...] = ()
    price_per_hour: float | None = None
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        if not self.margin > 0:
            raise HistoryError(f"margin must be above 0, but got {self.margin}")
        if not 0 < self.confidence < 1:
            raise HistoryError(f"confidence must lie between 0 and 1, but got {self.confidence}")
        if self.resamples < 100:
            raise HistoryError(f"resamples must be at least 100, but got {self.resamples}")
        if self.metric not in (None, *VALIDATION_METRICS):
            raise HistoryError(
                f"metric must be one of {', '.join(VALIDATION_METRICS)}, but got {self.metric}"
            )
        if self.price_per_hour is not None and not 0 < self.price_per_hour < math.inf:
            raise HistoryError(f"price_per_hour must be above 0, but got {self.price_per_hour}")
        if self.memory_limit is not None and self.memory_limit <= 0:
            raise HistoryError(f"memory_limit must be above 0 bytes, but got {self.memory_limit}")


@dataclass(frozen=True)
class Target:
    """Validation that ends a stage.

    Attributes:
        metric: ``val_accuracy``, at least `value`, or ``val_loss``, at most.
        value: In the unit of the metric.
        epochs: The most epochs of the stage, for trials that do not get there.
    """

    metric: str
    value: float
    epochs: int


@dataclass(frozen=True)
class Plan:
    """How long a study trains.

    Attributes:
        budgets: By name of the stage, in the order of training, of what all batch sizes are given the
            same; ``until`` where it ends at a target.
        last_epochs: By batch size, the epoch at which its trials end; None where that is not known
            ahead, because a budget is in seconds or until a target.
        targets: By name of the stage, for those that end at one.
        ended: Names of the trials that have ended; they tell where, if `last_epochs` is None.
        planned: Pairs of batch size and replicate of all trials but those that failed.
    """

    budgets: Mapping[str, Budget]
    last_epochs: Mapping[int, int] | None
    targets: Mapping[str, Target] = field(default_factory=dict)
    ended: frozenset[str] = frozenset()
    planned: frozenset[tuple[int, int]] = frozenset()

    @property
    def goal(self) -> Target | None:
        """The target at which trials end; None where the last stage has another budget."""
        return self.targets.get(list(self.budgets)[-1])


@dataclass(frozen=True)
class WorkersUsed:
    """How trials shared a machine.

    Attributes:
        workers: Trials at a time.
        threads: Of each.
    """

    workers: int
    threads: int


@dataclass(frozen=True)
class RecipeFacts:
    """What is known about the recipe beyond its history.

    Attributes:
        learning_rate_retuned: Whether the learning rate was tuned anew for each batch size. None
            leaves it to the history's learning_rate column. A grid in the history counts above it.
        learning_rate_rule: By which it was scaled with batch size, if it was; this is no tuning.
        plan: How long the study trains. None leaves it to the history, see
            `batchscope.analysis.ends.find_ends`.
        until_ci: By which replicates were added to batch sizes, if they were.
        workers: How the trials shared the machine, each way once; empty where nobody knows.
    """

    learning_rate_retuned: bool | None = None
    learning_rate_rule: Rule | None = None
    plan: Plan | None = None
    until_ci: UntilCi | None = None
    workers: tuple[WorkersUsed, ...] = ()
