"""How many epochs, updates and examples each stage of a trial takes at its batch size."""

from __future__ import annotations

import math
from dataclasses import dataclass

from batchscope.spec import Stage, Study

__all__ = ["StageSchedule", "schedule"]


@dataclass(frozen=True)
class StageSchedule:
    """A stage at one batch size.

    Attributes:
        stage: The stage.
        batch_size: Examples per update.
        first_epoch: Counted on through the stages from 1.
        updates: Updates of the whole stage.
        updates_per_epoch: Updates of an epoch that is not cut short.
        examples_per_epoch: Examples of such an epoch.
    """

    stage: Stage
    batch_size: int
    first_epoch: int
    updates: int
    updates_per_epoch: int
    examples_per_epoch: int

    @property
    def epochs(self) -> int:
        """Epochs of the stage; the last may be cut short by a budget in updates."""
        return math.ceil(self.updates / self.updates_per_epoch)

    @property
    def last_epoch(self) -> int:
        """The stage's last epoch, counted on through the stages."""
        return self.first_epoch + self.epochs - 1

    @property
    def examples(self) -> int:
        """Examples of the whole stage."""
        return (self.epochs - 1) * self.examples_per_epoch + self.examples_in(self.last_epoch)

    def updates_in(self, epoch: int) -> int:
        """Updates of one epoch."""
        done = (epoch - self.first_epoch) * self.updates_per_epoch
        return min(self.updates_per_epoch, self.updates - done)

    def examples_in(self, epoch: int) -> int:
        """Examples of one epoch."""
        return min(self.updates_in(epoch) * self.batch_size, self.examples_per_epoch)

    @property
    def forward_batch(self) -> int:
        """Examples that pass the network together, and share BatchNorm statistics, in training."""
        return self.stage.ghost_batch or self.batch_size


def schedule(study: Study, batch_size: int, images: int) -> tuple[StageSchedule, ...]:
    """Lays out a trial.

    Args:
        study: The study.
        batch_size: Examples per update.
        images: Number of training images, at least `batch_size`.

    Returns:
        One for each stage, in their order.
    """
    whole = images - images % batch_size
    examples = images if study.last_batch == "keep" else whole
    per_epoch = math.ceil(examples / batch_size)
    stages: list[StageSchedule] = []
    first = 1
    for stage in study.stages:
        updates = stage.updates if stage.epochs is None else stage.epochs * per_epoch
        stages.append(StageSchedule(stage, batch_size, first, updates or 0, per_epoch, examples))
        first = stages[-1].last_epoch + 1
    return tuple(stages)
