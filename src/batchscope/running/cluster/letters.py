"""What tasks and the driver of a Ray run say to each other, beside the messages of any worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from batchscope.running.messages import AnySetUp, Message, RunTrial, TrialEnded

__all__ = ["Begun", "DataReady", "Errand", "Letter", "Lost", "Order", "Outcome", "Seated", "Told", "Unfit"]


@dataclass(frozen=True)
class Errand:
    """What all tasks of a session have in common.

    Attributes:
        run: The run's mark, which tells its files from those of others on a node.
        session: Tells this session's from those of an earlier one of the run. A file in the run's folder
            holds it, by which nodes know whether they see that folder.
        version: Of batchscope, at the driver.
        set_up: What workers are told first; of Keras' its folders are the driver's.
        folder: Of the run, absolute, at the driver.
        cwd: Where the driver was started.
        environment: Variables that decide how workers train; None for those that are not to be set.
        cache_limit: Bytes that each node may keep ready beside the data.
        threads: Of a worker.
        keep_workers: Whether a worker is kept for the next trial. One that has used a GPU would keep its
            memory, while Ray counts the GPU as free.
    """

    run: str
    session: str
    version: str
    set_up: AnySetUp
    folder: Path
    cwd: Path
    environment: Mapping[str, str | None]
    cache_limit: int
    threads: int
    keep_workers: bool


@dataclass(frozen=True)
class Order:
    """To a task: carry out this trial.

    Attributes:
        attempt: Numbers the tasks of the session.
        command: The trial, from where it stands, its checkpoint as the driver names it.
        over: Replicates of which no trial waits or runs any more, whose views may be deleted.
        progress_seconds: How much time is to pass at least between two letters of where an epoch stands.
    """

    attempt: int
    command: RunTrial
    over: frozenset[int]
    progress_seconds: float


@dataclass(frozen=True)
class Begun:
    """From a task: its worker is set up and begins with the trial."""


@dataclass(frozen=True)
class DataReady:
    """From a task: it has brought the data to its node's disk.

    Attributes:
        size: Bytes.
        seconds: That it took.
    """

    size: int
    seconds: float


@dataclass(frozen=True)
class Seated:
    """From a task: its worker is set up.

    Attributes:
        facts: As in `batchscope.running.messages.Ready`.
        shared: Whether the run's folder is seen from there.
    """

    facts: Mapping[str, str]
    shared: bool


@dataclass(frozen=True)
class Lost:
    """From a task: its worker is gone.

    Attributes:
        reason: What is known of why.
        seated: Whether it was set up.
    """

    reason: str
    seated: bool = True


@dataclass(frozen=True)
class Unfit:
    """From a task: its node refuses what it is told, as it would for any trial.

    Attributes:
        error: What to raise where no other node is left.
    """

    error: Exception


Told = Message | Begun | DataReady | Seated
Outcome = TrialEnded | Unfit | Lost


@dataclass(frozen=True)
class Letter:
    """From a task.

    Attributes:
        attempt: Of the task.
        message: What it says.
        ticket: Under which it waits for an answer; None where it does not.
    """

    attempt: int
    message: Told
    ticket: int | None = None
