"""What every contender is told to do: the recipe, its scale, and how it reports.

Standard library only, so that each script may run in an environment of its own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["EVALUATION_BATCH", "Augmentation", "Event", "Protocol", "StagePlan", "Work", "emit", "emitted"]

EVALUATION_BATCH = 256
"""Images scored together by every contender, whatever its trial's batch size."""


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random views, in the units of `batchscope.spec.Augmentation`."""

    rotation: float
    width_shift: float
    height_shift: float
    shear: float
    zoom: tuple[float, float]
    horizontal_flip: bool


@dataclass(frozen=True)
class StagePlan:
    """A stage.

    Attributes:
        name: As in the study.
        epochs: Passes over the training images.
        learning_rate: Of RMSprop, constant.
        fine_tuning: Whether the backbone is trained from `Protocol.first_trained` on; else the head alone.
        augmentation: Random views of the training images; None shows them as they are.
    """

    name: str
    epochs: int
    learning_rate: float
    fine_tuning: bool
    augmentation: Augmentation | None


@dataclass(frozen=True)
class Protocol:
    """A study as every contender carries it out.

    Attributes:
        name: The built-in study that it follows.
        size: Height and width in pixels that the network sees.
        to_minus_one: Whether bytes are scaled to [-1, 1]; else to [0, 1].
        batch_statistics: Whether BatchNorm normalises by the batch and moves its averages, in frozen
            layers too; else all of it is in inference mode.
        drop: Whether the last short batch is left out of training and validation.
        first_trained: Keras' name of the first backbone layer that fine-tuning trains.
        batch_sizes: One trial each, in this order, for each replicate.
        replicates: How many trials of each batch size.
        stages: In the order of training.
    """

    name: str
    size: int
    to_minus_one: bool
    batch_statistics: bool
    drop: bool
    first_trained: str
    batch_sizes: tuple[int, ...]
    replicates: int
    stages: tuple[StagePlan, ...]

    def trials(self) -> list[tuple[int, int]]:
        """Batch size and replicate of each trial."""
        return [(size, number + 1) for number in range(self.replicates) for size in self.batch_sizes]

    def save(self, path: Path) -> None:
        """Writes it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Protocol:
        """Reads what `save` wrote."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        stages = tuple(_stage(stage) for stage in raw.pop("stages"))
        return cls(**raw | {"batch_sizes": tuple(raw["batch_sizes"]), "stages": stages})


def _stage(raw: dict[str, object]) -> StagePlan:
    ranges = raw.pop("augmentation")
    augmentation = None
    if isinstance(ranges, dict):
        augmentation = Augmentation(**ranges | {"zoom": tuple(ranges["zoom"])})
    return StagePlan(**raw, augmentation=augmentation)  # type: ignore[arg-type]  # it is what asdict wrote


@dataclass(frozen=True)
class Work:
    """One epoch at one batch size.

    Attributes:
        updates: Optimizer steps.
        examples: Training images presented.
        validated: Validation images scored.
    """

    updates: int
    examples: int
    validated: int

    @classmethod
    def of(cls, protocol: Protocol, batch_size: int, training: int, validation: int) -> Work:
        """Counts it for that many training and validation images."""
        if protocol.drop:
            updates = training // batch_size
            return cls(updates, updates * batch_size, validation - validation % batch_size)
        return cls(math.ceil(training / batch_size), training, validation)


@dataclass(frozen=True)
class Event:
    """Something that a contender reports at the moment when it happens.

    Attributes:
        kind: ``started``, ``epoch`` or ``ended``; what follows `trial` is of an epoch alone.
        trial: Batch size and replicate.
        stage: The stage's name.
        epoch: Counted from 1 within the stage.
        work: What was done in it.
        training_seconds: Of training, without evaluation.
        figures: Losses and accuracies, by the history's names.
    """

    kind: str
    trial: tuple[int, int]
    stage: str = ""
    epoch: int = 0
    work: Work = Work(0, 0, 0)
    training_seconds: float = 0.0
    figures: Mapping[str, float] | None = None


def emit(event: Event) -> None:
    """Prints an event as a line of JSON."""
    print(json.dumps(asdict(event)), flush=True)


def emitted(line: str) -> Event | None:
    """The event that a line holds; None for any other line."""
    if not line.startswith('{"kind"'):
        return None
    raw = json.loads(line)
    trial: Sequence[int] = raw["trial"]
    return Event(**raw | {"trial": (trial[0], trial[1]), "work": Work(**raw["work"])})
