"""How many workers with how many threads each: what may be tried, and what is taken."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from batchscope.running.machine import Machine

__all__ = [
    "BYTES_PER_WORKER",
    "MEASURED_FROM_EXAMPLES",
    "Choice",
    "Layout",
    "WorkLeft",
    "choose",
    "fastest",
    "told",
]

# MobileNetV2 at 96 px and batch size 128 was seen to take 1.4 GB, and 3.0 GB with the default probes.
BYTES_PER_WORKER = 3_500_000_000
MEASURED_FROM_EXAMPLES = 500_000


@dataclass(frozen=True)
class Layout:
    """Workers at a time, and the threads that each computes with."""

    workers: int
    threads: int

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        return (
            f"1 worker with {threads}" if self.workers == 1 else f"{self.workers} workers with {threads} each"
        )


@dataclass(frozen=True)
class WorkLeft:
    """What a run has still to do.

    Attributes:
        trials: Trials that have not finished.
        examples: Examples that these have still to present; NaN where that is not known ahead, and then
            nothing is measured.
        own_code: Whether the training is somebody's own, of whose threads nothing is known.
    """

    trials: int
    examples: float
    own_code: bool = False


@dataclass(frozen=True)
class Choice:
    """What is to be taken, or measured first.

    Attributes:
        layouts: The one to take, or those to measure, fewest workers first.
        reason: Why.
    """

    layouts: tuple[Layout, ...]
    reason: str


def choose(
    machine: Machine, work: WorkLeft, asked: int | None = None, threads_before: int | None = None
) -> Choice:
    """Decides how the trials that are left share the machine.

    There are never more workers than trials left, nor than memory has room for at
    `BYTES_PER_WORKER` each. The number of threads can move the last bits of TensorFlow's figures,
    so it is ``cores // asked`` however few workers are started, and that of the stored epochs where
    a run goes on. Measuring costs a second start of the backend and some seconds, together about a
    minute; it pays from `MEASURED_FROM_EXAMPLES` on, which take a quarter of an hour at 550
    examples/s.

    Where fewer trials are left than there are cores, Keras' are trained one after the other with all
    threads. Somebody's own code may not heed the threads it is given, or have no use for them, and
    then leaves cores idle: its trials run side by side.

    Args:
        machine: What may be used.
        work: What is left; at least one trial.
        asked: Number of workers that the caller wants.
        threads_before: Threads a worker that the stored epochs were trained with; None where
            none is stored.
    """
    cores = machine.cores
    room = _room(machine)
    if asked is not None:
        return _limited(Layout(asked, max(cores // asked, 1)), room, work, "as asked for")
    if threads_before is not None:
        workers = 1 if machine.gpu else max(cores // threads_before, 1)
        return _limited(Layout(workers, threads_before), room, work, "threads as in the session before")
    if machine.gpu:
        return Choice((Layout(1, cores),), "a GPU is visible")
    if work.examples >= MEASURED_FROM_EXAMPLES and len(measured := _to_measure(cores, work, room)) > 1:
        return Choice(measured, "much is left to do")
    if work.trials >= cores:
        reason = "there are trials for all cores"
    elif work.own_code:
        reason = "each trial has its share of the cores"
    else:
        return Choice((Layout(1, cores),), "fewer trials are left than there are cores")
    wanted = min(cores, work.trials)
    return _limited(Layout(wanted, cores // min(wanted, room)), room, work, reason)


def fastest(rates: Mapping[Layout, float]) -> Layout:
    """The layout with the most examples/s; of equals the first."""
    return max(rates, key=lambda layout: rates[layout])


def told(rates: Mapping[Layout, float]) -> str:
    """Measured rates as text."""
    return "fastest of " + ", ".join(f"{layout} ({rate:.0f} examples/s)" for layout, rate in rates.items())


def _room(machine: Machine) -> int:
    """Workers that memory has room for, at least one; any number where nobody knows how much there is."""
    return sys.maxsize if machine.memory is None else max(machine.memory // BYTES_PER_WORKER, 1)


def _limited(wanted: Layout, room: int, work: WorkLeft, reason: str) -> Choice:
    """As many of the wanted workers as there are trials, and room in memory, for."""
    workers = min(wanted.workers, work.trials)
    if room < workers:
        workers, reason = room, f"{reason}, but memory has room for {room} of {workers} workers"
    return Choice((Layout(workers, wanted.threads),), reason)


def _to_measure(cores: int, work: WorkLeft, room: int) -> tuple[Layout, ...]:
    """One worker, as many as there are cores and trials for, and on more than 4 cores their geometric mean.

    The best so far stays alive while the next is measured, so memory must have room for both.
    """
    most = min(cores, work.trials)
    few = math.isqrt(most) if cores > 4 else 1
    most = min(most, room - few)
    return tuple(Layout(count, cores // count) for count in sorted({1, few, most}) if 1 <= count <= most)
