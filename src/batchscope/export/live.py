"""Trackers that follow a run while it goes on, and never hold it up.

Each has a thread of its own, which is woken when a record was stored, reads the run's database and
sends what is new: what is stored is the only source, so a tracker shows nothing that a kill could
take back, and it gets the same as from an export. A tracker that fails is told once and left; an
export adds later what it lacks.
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self

from batchscope.errors import HistoryError
from batchscope.export.content import read_run
from batchscope.export.tracker import Tracker
from batchscope.masking import masked
from batchscope.records import BatchProgress, EpochRecord, Trial, TrialState
from batchscope.running.folder import RunFolder
from batchscope.running.progress import Unit, Watcher

__all__ = ["following"]

PATIENCE = 60.0
"""Seconds that a run which is over waits for its trackers."""
HURRY = 3.0
"""Likewise where it was stopped."""
_REST = 9.0  # times as long as the last update took: a tracker works a tenth of the time
_LEAST_REST = 0.5


@contextmanager
def following(watcher: Watcher, folder: RunFolder, trackers: Sequence[Tracker]) -> Iterator[Watcher]:
    """Gives a watcher that keeps trackers up to date too, and at the end waits for them for a while.

    Args:
        watcher: Told of everything, and of trackers that fail.
        folder: The run's.
        trackers: One of each tool at most.
    """
    if not trackers:
        yield watcher
        return
    live = _Live(watcher, [_Follower(tracker, folder) for tracker in trackers])
    try:
        yield live
    except BaseException:
        live.close(HURRY, conclude=False)
        raise
    live.close(PATIENCE, conclude=True)


class _Follower:
    """A tracker and its thread."""

    def __init__(self, tracker: Tracker, folder: RunFolder) -> None:
        self._tracker, self._folder = tracker, folder
        self._news, self._over = threading.Event(), threading.Event()
        self._conclude = False
        self._failure: str | None = None
        # A daemon, so that a tracker that hangs does not keep the program from ending.
        self._thread = threading.Thread(target=self._follow, name=tracker.tool, daemon=True)

    def start(self) -> None:
        """To be called once the folder is the run's own."""
        self._thread.start()

    def wake(self) -> None:
        """Something new is stored."""
        self._news.set()

    def close(self, patience: float, *, conclude: bool) -> None:
        """Waits until the tracker has everything, at most so many seconds."""
        if self._thread.ident is None:
            return
        self._conclude = conclude
        self._over.set()
        self._news.set()
        self._thread.join(patience)
        if self._thread.is_alive() and self._failure is None:
            self._failure = f"{self._tracker.place} does not answer, and was waited for {patience:.0f} s"

    def complaint(self) -> str | None:
        """Why the tracker was left; told once."""
        failure, self._failure = self._failure, None
        if failure is None:
            return None
        where = shlex.quote(str(self._folder.path))
        return (
            f"--track {self._tracker.tool} was given up, what the run stores is safe: {failure}. "
            f"Later 'batchscope export {where} --to {self._tracker.tool}' adds what is missing."
        )

    def _follow(self) -> None:
        try:
            while not self._over.is_set():
                self._news.wait()
                self._news.clear()
                began = time.monotonic()
                self._update(conclude=False)
                self._over.wait(max(_REST * (time.monotonic() - began), _LEAST_REST))
            self._update(conclude=self._conclude)
        except Exception as error:  # noqa: BLE001 - whatever fails here must not stop the training
            self._failure = masked(str(error) or type(error).__name__)

    def _update(self, *, conclude: bool) -> None:
        try:
            run = read_run(self._folder)
        except HistoryError:  # no epoch is stored yet
            return
        self._tracker.update(run)
        if conclude:
            self._tracker.conclude(run, self._folder)


class _Live:
    """A watcher that passes on what it is told, and wakes the trackers where something was stored."""

    def __init__(self, watcher: Watcher, followers: Sequence[_Follower]) -> None:
        self._watcher, self._followers = watcher, followers

    def __enter__(self) -> Self:
        self._watcher.__enter__()
        for follower in self._followers:
            follower.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._watcher.__exit__(*reason)

    def close(self, patience: float, *, conclude: bool) -> None:
        """Waits for the trackers, all together at most so many seconds."""
        until = time.monotonic() + patience
        for follower in self._followers:
            follower.close(max(until - time.monotonic(), 0.0), conclude=conclude)
        self._tell()

    def note(self, text: str) -> None:
        """Passed on."""
        self._watcher.note(text)

    def plan(
        self, trials: Sequence[Trial], done: int, left: Mapping[Trial, float], unit: Unit = "examples"
    ) -> None:
        """Passed on; what an earlier session stored may not be there yet."""
        self._watcher.plan(trials, done, left, unit)
        self._stored()

    def added(self, left: Mapping[Trial, float]) -> None:
        """Passed on."""
        self._watcher.added(left)

    def started(self, trial: Trial, examples: int, seconds: float) -> None:
        """Passed on."""
        self._watcher.started(trial, examples, seconds)
        self._stored()

    def batch(self, trial: Trial, progress: BatchProgress) -> None:
        """Passed on."""
        self._watcher.batch(trial, progress)

    def epoch(self, trial: Trial, record: EpochRecord) -> None:
        """Passed on; the record is stored."""
        self._watcher.epoch(trial, record)
        self._stored()

    def ended(self, trial: Trial, state: TrialState, error: str | None) -> None:
        """Passed on; the state is stored."""
        self._watcher.ended(trial, state, error)
        self._stored()

    def _stored(self) -> None:
        for follower in self._followers:
            follower.wake()
        self._tell()

    def _tell(self) -> None:
        for follower in self._followers:
            if (complaint := follower.complaint()) is not None:
                self._watcher.note(complaint)
