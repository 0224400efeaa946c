"""What the run and its workers say to each other, over pipes of their own."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from batchscope.own_study import CommandStudy, FunctionStudy
from batchscope.records import BatchProgress, EpochRecord, StagePace, Trial
from batchscope.spec import Study

if TYPE_CHECKING:
    from batchscope.own.function import PackedFunction

__all__ = [
    "SOURCE_FACTS",
    "STAGE_FACT",
    "AnyOwnSetUp",
    "AnySetUp",
    "BatchDone",
    "CommandSetUp",
    "Discarded",
    "EpochDone",
    "Fatal",
    "FunctionSetUp",
    "Measure",
    "Measured",
    "Message",
    "Ready",
    "Refused",
    "Rehearse",
    "Rehearsed",
    "RunTrial",
    "SetUp",
    "Stored",
    "TooLarge",
    "TrialEnded",
    "receive",
    "send",
]

STAGE_FACT = "stage "
"""Begins the names of those facts that tell how a stage is computed; the stage's name follows."""
SOURCE_FACTS = ("network sha256", "weights sha256")
"""Names of those that identify the files that the network comes from."""


@dataclass(frozen=True)
class SetUp:
    """To a worker, first: what it will train with Keras.

    Attributes:
        study: The recipe.
        data: Folder of the prepared images.
        cache: Folder for ready features, which workers share.
        cache_limit: Bytes that ready features may take up there.
    """

    study: Study
    data: Path
    cache: Path
    cache_limit: int


@dataclass(frozen=True)
class FunctionSetUp:
    """To a worker, first: the function that it will call.

    Attributes:
        study: What it is called for.
        function: The function.
    """

    study: FunctionStudy
    function: PackedFunction


@dataclass(frozen=True)
class CommandSetUp:
    """To a worker, first: the command that it will run.

    Attributes:
        study: The command, and what it is run for.
        logs: Folder for what it prints.
    """

    study: CommandStudy
    logs: Path


AnyOwnSetUp = FunctionSetUp | CommandSetUp
AnySetUp = SetUp | AnyOwnSetUp


@dataclass(frozen=True)
class Measure:
    """To a worker: train for so many seconds, keep nothing of it, and say how fast that was."""

    seconds: float


@dataclass(frozen=True)
class Rehearse:
    """To a worker: train each stage of a trial for a while, keep nothing of it, and say what that took.

    Attributes:
        trial: The trial.
        seconds: To train each stage, about.
        memory: Bytes of the machine's memory that the worker may have; None where nobody knows.
    """

    trial: Trial
    seconds: float
    memory: int | None


@dataclass(frozen=True)
class RunTrial:
    """To a worker: carry out this trial, going on from where it stands.

    Attributes:
        trial: The trial.
        checkpoint: Holds its state: a file, or a folder where the training is somebody's own.
        stored: The records that are stored already.
    """

    trial: Trial
    checkpoint: Path
    stored: tuple[EpochRecord, ...] = ()

    @property
    def stored_epochs(self) -> int:
        """How many these are."""
        return len(self.stored)


@dataclass(frozen=True)
class Stored:
    """To a worker: the record is safe, go on to the next epoch."""


@dataclass(frozen=True)
class Refused:
    """To a worker: the record cannot be stored.

    Attributes:
        reason: Why.
    """

    reason: str


@dataclass(frozen=True)
class Ready:
    """From a worker: set up.

    Attributes:
        facts: Versions and other provenance that only a process with Keras knows.
    """

    facts: Mapping[str, str]


@dataclass(frozen=True)
class Measured:
    """From a worker: its pace while it was measured."""

    examples_per_second: float


@dataclass(frozen=True)
class Rehearsed:
    """From a worker: what each stage took."""

    stages: tuple[StagePace, ...]


@dataclass(frozen=True)
class TooLarge:
    """From a worker: memory ran out.

    Attributes:
        reason: As the library that noticed it says.
    """

    reason: str


@dataclass(frozen=True)
class BatchDone:
    """From a worker, now and then: where the epoch stands."""

    progress: BatchProgress


@dataclass(frozen=True)
class EpochDone:
    """From a worker: a record to store; it waits for `Stored` or `Refused`."""

    record: EpochRecord


@dataclass(frozen=True)
class Discarded:
    """From a worker: the trial's stored records from an epoch on are no more; it waits for `Stored`.

    Attributes:
        epoch: The first of them.
        replaced: Whether others come in their place.
    """

    epoch: int
    replaced: bool


@dataclass(frozen=True)
class TrialEnded:
    """From a worker: the trial is over.

    Attributes:
        error: The traceback of a failed trial, else None.
    """

    error: str | None = None


@dataclass(frozen=True)
class Fatal:
    """From a worker: nothing can be trained.

    Attributes:
        error: What to raise.
    """

    error: Exception


ToWorker = AnySetUp | Measure | Rehearse | RunTrial | Stored | Refused
FromWorker = Ready | Measured | Rehearsed | TooLarge | BatchDone | EpochDone | Discarded | TrialEnded | Fatal
Message = ToWorker | FromWorker


def send(stream: BinaryIO, message: Message) -> None:
    """Writes a message and flushes."""
    pickle.dump(message, stream)
    stream.flush()


def receive(stream: BinaryIO) -> Message | None:
    """Reads the next message; None when the other side is gone.

    What is cut off, or no message, raises whatever `pickle` makes of it.
    """
    try:
        # Both ends are this program's own processes; nothing from outside enters these pipes.
        message: Message = pickle.load(stream)  # noqa: S301
    except EOFError:
        return None
    return message
