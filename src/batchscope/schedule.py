"""How long each stage of a trial is, as far as that is known ahead, and its learning rates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from batchscope.records import EpochRecord
from batchscope.spec import LearningRate, Stage, Study

__all__ = ["StageSchedule", "StageStart", "schedule"]


@dataclass(frozen=True)
class StageStart:
    """Where a stage of a trial began: what the trial had been through before it.

    Attributes:
        epoch: The last epoch before it; 0 for the first stage.
        updates: Optimizer steps before it.
        seconds: Training time before it.
    """

    epoch: int
    updates: int
    seconds: float


@dataclass(frozen=True)
class StageSchedule:
    """A stage of one trial. Its epochs are counted from 1 within the stage.

    Attributes:
        stage: The stage.
        batch_size: Examples per update.
        first_epoch: Counted on through the stages from 1; None where an earlier stage's length is
            not known ahead.
        examples: Examples of the whole stage; the most with a budget until a target, None with one in
            seconds.
        updates_per_epoch: Updates of an epoch that is not cut short.
        examples_per_epoch: Examples of such an epoch.
        learning_rate: By the stage's rule at this batch size; what a warm-up ends at.
        warmup: Updates that warm up; 0 for none.
    """

    stage: Stage
    batch_size: int
    first_epoch: int | None
    examples: int | None
    updates_per_epoch: int
    examples_per_epoch: int
    learning_rate: float
    warmup: int

    @property
    def epochs(self) -> int | None:
        """Epochs of the stage, or the most of them, as `examples`; the last may be cut short."""
        return None if self.examples is None else math.ceil(self.examples / self.examples_per_epoch)

    @property
    def updates(self) -> int | None:
        """Updates of the whole stage, or the most of them, as `examples`."""
        if self.epochs is None:
            return None
        return (self.epochs - 1) * self.updates_per_epoch + self.updates_in(self.epochs)

    @property
    def last_epoch(self) -> int | None:
        """The stage's last epoch, or its latest, counted as `first_epoch`; None where not known ahead."""
        if self.first_epoch is None or self.epochs is None:
            return None
        return self.first_epoch + self.epochs - 1

    def updates_in(self, epoch: int) -> int:
        """Updates of the stage's 1st, 2nd, ... epoch."""
        return math.ceil(self.examples_in(epoch) / self.batch_size)

    def examples_in(self, epoch: int) -> int:
        """Examples of the stage's 1st, 2nd, ... epoch."""
        if self.examples is None:
            return self.examples_per_epoch
        return min(self.examples_per_epoch, self.examples - (epoch - 1) * self.examples_per_epoch)

    def learning_rate_at(self, update: int) -> float:
        """In force at the stage's 1st, 2nd, ... update."""
        return self.learning_rate * min(update / self.warmup, 1.0) if self.warmup else self.learning_rate

    def is_over(self, start: StageStart, last: EpochRecord) -> bool:
        """Whether the stage, begun at `start`, ends with the epoch of a record."""
        epochs = last.epoch - start.epoch
        if epochs == 0:
            return False
        if self.stage.seconds is not None:
            return last.seconds - start.seconds >= self.stage.seconds
        if self.reaches_target(last.val_accuracy, last.val_loss):
            return True
        return self.epochs is not None and epochs >= self.epochs

    def reaches_target(self, val_accuracy: float, val_loss: float) -> bool:
        """Whether the stage ends at such validation; never where it has no target, nor where it diverged.

        An accuracy beside a loss that is not finite means nothing.
        """
        until = self.stage.until
        if until is None or not math.isfinite(val_loss):
            return False
        return val_accuracy >= until.value if until.metric == "val_accuracy" else val_loss <= until.value

    @property
    def forward_batch(self) -> int:
        """Examples that pass the network together, and share BatchNorm statistics, in training."""
        return self.stage.ghost_batch or self.batch_size


def schedule(
    study: Study, batch_size: int, images: int, learning_rate: float | None = None
) -> tuple[StageSchedule, ...]:
    """Lays out a trial.

    Args:
        study: The study.
        batch_size: Examples per update.
        images: Number of training images, at least `batch_size`.
        learning_rate: The trial's, where a stage has a grid. None lays out the counts alone: that
            stage's learning rate is then NaN.

    Returns:
        One for each stage, in their order.
    """
    whole = images - images % batch_size
    per_epoch = images if study.last_batch == "keep" else whole
    stages: list[StageSchedule] = []
    first: int | None = 1
    for stage in study.stages:
        updates = math.ceil(per_epoch / batch_size)
        planned = StageSchedule(
            stage=stage,
            batch_size=batch_size,
            first_epoch=first,
            examples=_examples(stage, batch_size, per_epoch, whole_batches=study.last_batch == "drop"),
            updates_per_epoch=updates,
            examples_per_epoch=per_epoch,
            learning_rate=_learning_rate(stage.learning_rate, batch_size, learning_rate),
            warmup=_warmup(stage.learning_rate, updates),
        )
        stages.append(planned)
        first = None if stage.is_open or planned.last_epoch is None else planned.last_epoch + 1
    return tuple(stages)


def _examples(stage: Stage, batch_size: int, per_epoch: int, *, whole_batches: bool) -> int | None:
    """Examples that a stage's budget comes to, or comes to at most; None for one in seconds."""
    if stage.seconds is not None:
        return None
    if stage.updates is not None:
        epochs, updates = divmod(stage.updates, math.ceil(per_epoch / batch_size))
        return epochs * per_epoch + updates * batch_size
    if stage.examples is not None:
        epochs, examples = divmod(stage.examples, per_epoch)
        return epochs * per_epoch + (examples - examples % batch_size if whole_batches else examples)
    most = stage.epochs if stage.until is None else stage.until.epochs
    return (most or 0) * per_epoch


def _learning_rate(given: float | LearningRate, batch_size: int, of_grid: float | None) -> float:
    if not isinstance(given, LearningRate):
        return given
    base = of_grid if given.base is None else given.base
    if base is None:
        return math.nan
    factor = batch_size / (given.base_batch_size or batch_size)
    return base * {"constant": 1.0, "linear": factor, "sqrt": math.sqrt(factor)}[given.rule]


def _warmup(given: float | LearningRate, updates_per_epoch: int) -> int:
    if not isinstance(given, LearningRate):
        return 0
    return given.warmup_updates or (given.warmup_epochs or 0) * updates_per_epoch
