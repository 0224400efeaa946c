"""What passes between training, running and the history: plain frozen records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["BatchProgress", "EpochRecord", "Trial", "TrialState"]


class TrialState(StrEnum):
    """Where a trial stands."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETE = "complete"
    DIVERGED = "diverged"
    FAILED = "failed"

    def is_finished(self) -> bool:
        """Whether the trial's history will not change any more."""
        return self in (TrialState.COMPLETE, TrialState.DIVERGED)


@dataclass(frozen=True)
class Trial:
    """One training run of a study.

    Attributes:
        batch_size: Examples per update.
        replicate: The bundle of seeds, counted from 1.
        learning_rate: The grid's value, before any rule; None where there is no grid.
    """

    batch_size: int
    replicate: int
    learning_rate: float | None = None

    @property
    def name(self) -> str:
        """Identifies the trial within its study, for example ``b16-r1`` or ``b16-lr0.01-r1``."""
        rate = "" if self.learning_rate is None else f"-lr{repr(self.learning_rate).removesuffix('.0')}"
        return f"b{self.batch_size}{rate}-r{self.replicate}"


@dataclass(frozen=True)
class EpochRecord:
    """The figures of one epoch of one trial: a row of the history.

    Attributes:
        stage: Name of the stage that the epoch belongs to.
        epoch: Counted from 1 on through the stages.
        updates: Optimizer steps since the trial's start.
        examples: Images presented since the trial's start.
        seconds: Training time since the trial's start, without evaluation and probes.
        learning_rate: In force at the epoch's last update; while it is warmed up, smaller before.
        train_loss: As the training loop reports it, the running mean over the epoch.
        train_accuracy: Likewise.
        val_loss: At the epoch's end.
        val_accuracy: At the epoch's end.
        probes: Extra measurements at the epoch's end, by column name, and those on the images by which
            a learning rate is chosen.
        unreported: Names of those of the four metrics, and ``learning_rate``, that were not told and
            are NaN for that reason alone.
    """

    stage: str
    epoch: int
    updates: int
    examples: int
    seconds: float
    learning_rate: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    probes: Mapping[str, float] = field(default_factory=dict)
    unreported: tuple[str, ...] = ()

    @property
    def metrics(self) -> Mapping[str, float]:
        """Those losses and accuracies that were told."""
        four = {
            "train_loss": self.train_loss,
            "train_accuracy": self.train_accuracy,
            "val_loss": self.val_loss,
            "val_accuracy": self.val_accuracy,
        }
        return {name: value for name, value in four.items() if name not in self.unreported}

    @property
    def diverged(self) -> bool:
        """Whether one of the metrics is not finite."""
        return not all(map(math.isfinite, self.metrics.values()))


@dataclass(frozen=True)
class BatchProgress:
    """Where a running epoch stands.

    Attributes:
        stage: Name of the stage.
        epoch: Counted on through the stages.
        examples: Images presented in this epoch so far.
        total: Images that this epoch presents.
        accuracy: Running mean of the training accuracy.
        seconds: Since the epoch's start.
    """

    stage: str
    epoch: int
    examples: int
    total: int
    accuracy: float
    seconds: float
