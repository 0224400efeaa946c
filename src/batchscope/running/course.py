"""How far the trials of a study are, several at a time, and how long they still take."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Mapping, Sequence
from typing import Literal

from batchscope.records import BatchProgress, EpochRecord, Trial

__all__ = ["Course", "Unit", "time_left"]

Unit = Literal["examples", "epochs"]
"""What the work that is left is counted in."""


def time_left(running: Sequence[float], waiting: Sequence[float], pace: float) -> float:
    """Seconds until the last trial ends, where each worker takes the next trial when it is free.

    Args:
        running: Examples left to each trial that runs, one a worker; at least one.
        waiting: Examples left to each trial that waits, in the order in which they begin.
        pace: Examples/s of one worker, above 0.
    """
    workers = list(running)
    heapq.heapify(workers)
    for amount in waiting:
        heapq.heapreplace(workers, workers[0] + amount)
    return max(workers) / pace


class Course:
    """How far the trials are.

    Reading the data and starting workers is over when the first trial starts, and the clock starts
    then. Simplified: all examples are taken to cost the same, whatever their stage.

    Args:
        left: What each trial has still to do, or the most of it, in the order in which they begin; NaN
            where nothing is known ahead, and then no time left is told either.
        unit: Of `left`.
    """

    def __init__(self, left: Mapping[Trial, float], unit: Unit = "examples") -> None:
        self._left, self._unit = dict(left), unit
        self._counts: dict[Trial, tuple[int, float]] = {}
        self._under_way: dict[Trial, BatchProgress | None] = {}
        self._done = 0.0
        self._busy, self._noted = 0.0, time.monotonic()

    def added(self, left: Mapping[Trial, float]) -> None:
        """More trials are to begin behind all others."""
        self._left.update(left)

    def started(self, trial: Trial, examples: int, seconds: float) -> None:
        """A trial begins, or goes on after so many examples and seconds of training."""
        self._note_time()
        self._counts[trial] = (examples, seconds)
        self._under_way[trial] = None

    def batch(self, trial: Trial, progress: BatchProgress) -> None:
        """An epoch got further."""
        self._under_way[trial] = progress

    def epoch(self, trial: Trial, record: EpochRecord) -> tuple[int, float]:
        """Examples and seconds of training that a record adds to its trial."""
        examples, seconds = self._counts[trial]
        if record.examples <= examples:  # the trial's checkpoint is lost, and it begins anew
            self._left[trial] += examples if self._unit == "examples" else 0
            examples, seconds = 0, 0.0
        added = record.examples - examples
        work = added if self._unit == "examples" else 1
        self._counts[trial] = (record.examples, record.seconds)
        self._left[trial] -= work
        self._done += work
        self._under_way[trial] = None
        return added, record.seconds - seconds

    def ended(self, trial: Trial) -> None:
        """A trial is over; what it leaves undone will not be done."""
        self._note_time()
        self._left.pop(trial)
        self._under_way.pop(trial)

    def seconds_left(self) -> float | None:
        """Seconds left; None before there is a pace to go by, and where what is left is not known."""
        self._note_time()
        done = self._done + sum(self._shown(trial) for trial in self._under_way)
        if done <= 0 or self._busy <= 0 or not self._under_way or any(map(math.isnan, self._left.values())):
            return None
        running = [max(self._left[trial] - self._shown(trial), 0.0) for trial in self._under_way]
        waiting = [amount for trial, amount in self._left.items() if trial not in self._under_way]
        return time_left(running, waiting, done / self._busy)

    def examples_per_second(self) -> float:
        """The paces that the running trials show now, together."""
        shown = [progress for progress in self._under_way.values() if progress is not None]
        return sum(progress.examples / progress.seconds for progress in shown if progress.seconds > 0)

    def _shown(self, trial: Trial) -> int:
        """Examples of the trial's epoch under way."""
        progress = self._under_way[trial]
        return 0 if progress is None else progress.examples

    def _note_time(self) -> None:
        """Adds up the seconds that workers were at trials."""
        now = time.monotonic()
        self._busy += (now - self._noted) * len(self._under_way)
        self._noted = now
