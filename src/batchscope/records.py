"""What passes between training, running and the history: plain frozen records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = [
    "PEAK_MEMORY",
    "BatchProgress",
    "EpochRecord",
    "MemoryUse",
    "SizesTried",
    "StagePace",
    "Trial",
    "TrialState",
    "TriedSize",
]

PEAK_MEMORY = "probe_peak_memory"
"""Column of the most bytes of memory that a trial's process took since the trial began or went on."""


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
        seconds: Of training since the epoch's start, without what is measured within it.
    """

    stage: str
    epoch: int
    examples: int
    total: int
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class MemoryUse:
    """How much of one kind of memory a process took.

    Attributes:
        kind: ``resident``, what it holds of the machine's memory; ``address_space``, where a limit is set on
            it (RLIMIT_AS); ``gpu``, what the framework holds of the GPU's.
        idle: Bytes when it was set up and had not trained yet.
        peak: The most bytes at any time.
        limit: Bytes that it may have; None where nobody knows.
    """

    kind: str
    idle: int
    peak: int
    limit: int | None

    @property
    def share(self) -> float:
        """Of the limit, at the peak; NaN where there is none."""
        return math.nan if self.limit is None else self.peak / self.limit


@dataclass(frozen=True)
class StagePace:
    """How fast a stage trained at one batch size, and what memory that took.

    Attributes:
        stage: Its name.
        examples: That the whole stage presents; of a length that is not known ahead, those of an epoch.
        block: Updates that were timed together.
        seconds: Of an update, the mean of each block.
        memory: Each kind that could be told.
    """

    stage: str
    examples: int
    block: int
    seconds: tuple[float, ...]
    memory: tuple[MemoryUse, ...]


@dataclass(frozen=True)
class TriedSize:
    """A batch size that was trained with, or could not be for want of memory.

    Attributes:
        batch_size: Examples per update.
        stages: In the order of training; empty where it did not fit.
        reason: Why it did not fit; None where it did.
    """

    batch_size: int
    stages: tuple[StagePace, ...]
    reason: str | None = None

    @property
    def fits(self) -> bool:
        """Whether it was trained with."""
        return self.reason is None


@dataclass(frozen=True)
class SizesTried:
    """Batch sizes of a study, each tried in a process of its own.

    Attributes:
        study: Its name.
        sizes: By batch size, ascending, each once.
        bound: No batch size was to be larger than this.
        bound_by: Why; for example ``the number of training examples``.
        facts: Threads, versions and hardware, by name.
    """

    study: str
    sizes: tuple[TriedSize, ...]
    bound: int
    bound_by: str
    facts: Mapping[str, str]
