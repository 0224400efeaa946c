"""The local executor: trials in worker processes on this machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from batchscope.errors import HistoryError, TrainingError
from batchscope.records import BatchProgress, EpochRecord, Trial
from batchscope.running.layout import Layout, fastest
from batchscope.running.measuring import measure
from batchscope.running.messages import (
    AnySetUp,
    BatchDone,
    Discarded,
    EpochDone,
    Fatal,
    Message,
    Ready,
    Refused,
    RunTrial,
    Stored,
    TrialEnded,
)
from batchscope.running.pool import Job, Pool, Worker

__all__ = ["Job", "More", "Sink", "execute"]

More = Callable[[], Sequence[Job]]
"""Asked for further jobs whenever none waits any more."""

_TRIES = 3
"""Workers that may end one after the other, none of them set up, before no more are started."""


class Sink(Protocol):
    """Takes what happens, in the order in which it happens."""

    def note(self, text: str) -> None:
        """Something worth telling that belongs to no trial."""

    def ready(self, facts: Mapping[str, str]) -> None:
        """A worker is set up."""

    def chosen(self, layout: Layout, rates: Mapping[Layout, float]) -> None:
        """The workers are to be these; `rates` in examples/s are what was measured, if anything was."""

    def started(self, trial: Trial) -> None:
        """A trial begins or goes on."""

    def batch(self, trial: Trial, progress: BatchProgress) -> None:
        """An epoch got further."""

    def epoch(self, trial: Trial, record: EpochRecord) -> None:
        """An epoch ended; when this returns, its record is safe.

        Raises:
            HistoryError: The record does not go with those that are stored.
        """

    def discarded(self, trial: Trial, epoch: int, *, replaced: bool) -> None:
        """The trial's code has begun anew, and its stored records from this epoch on are no more.

        Others come in their place where they are `replaced`; else the code has ended before.
        """

    def ended(self, trial: Trial, error: str | None) -> None:
        """A trial is over; `error` is the traceback of a failed one."""


def _no_more() -> Sequence[Job]:
    return ()


def execute(
    set_up: AnySetUp,
    jobs: Sequence[Job],
    sink: Sink,
    logs: Path,
    layouts: Sequence[Layout],
    more: More = _no_more,
    mark: str = "",
) -> None:
    """Carries out jobs, each in one of the worker processes, until none is left and no more come.

    A job that fails, or whose worker dies, is told to the sink and the others go on. A worker that
    dies without a job costs none; another is started in its place. Where `_TRIES` workers in a row
    die before any is set up, no more are started, and those that are at work go on alone.

    Args:
        set_up: What the workers work on.
        jobs: In the order in which to start them.
        sink: Told of everything, from this thread only.
        logs: Folder for what the workers print.
        layouts: Workers and threads to take. Of several, fewest workers first, each is measured and
            the fastest taken. No more workers are started than there are jobs.
        more: Gives jobs that come up while others are carried out, such as those that the results of these
            call for; asked from this thread whenever none waits and a worker is free or gone.
        mark: The run's, as for `Pool`.

    Raises:
        BatchscopeError: A worker cannot be started or refuses what it is set up with, or none of
            those that are started in a row gets set up and none is left at work.
    """
    if not jobs:
        return
    with Pool(set_up, logs, mark) as pool:
        if len(layouts) > 1:
            rates, crew = measure(layouts, pool, sink.ready)
            layout = fastest(rates)
            sink.chosen(layout, rates)
            _Execution(pool, jobs, sink, layout, more).carry_out(crew, are_ready=True)
        else:
            [layout] = layouts
            sink.chosen(layout, {})
            crew = [pool.start(layout.threads) for _ in range(min(layout.workers, len(jobs)))]
            _Execution(pool, jobs, sink, layout, more).carry_out(crew, are_ready=False)


class _Execution:
    """The jobs that wait, and the workers that are at work or will be."""

    def __init__(self, pool: Pool, jobs: Sequence[Job], sink: Sink, layout: Layout, more: More) -> None:
        self._pool, self._sink, self._threads, self._more = pool, sink, layout.threads, more
        self._waiting = deque(jobs)
        self._active: set[Worker] = set()
        self._idle: list[Worker] = []
        self._stillborn: list[str] = []

    def carry_out(self, crew: Collection[Worker], *, are_ready: bool) -> None:
        """Hands out the jobs, and takes what the workers say until all are done."""
        self._active.update(crew)
        if are_ready:
            for worker in crew:
                if worker.is_alive():
                    self._next_job(worker)
                else:
                    self._bury(worker)
        while self._active:
            worker, message = self._pool.hear()
            if worker in self._active:
                self._take(worker, message)
            elif message is None and worker in self._idle:
                self._idle.remove(worker)

    def _take(self, worker: Worker, message: Message | None) -> None:
        match message:
            case None:
                self._bury(worker)
            case Fatal(error):
                raise error
            case Ready(facts):
                self._stillborn.clear()
                self._sink.ready(facts)
                self._next_job(worker)
            case TrialEnded(error):
                self._sink.ended(worker.trial, error)
                self._next_job(worker)
            case BatchDone(progress):
                self._sink.batch(worker.trial, progress)
            case EpochDone(record):
                worker.tell(self._stored(worker.trial, record))
            case Discarded(epoch, replaced):
                self._sink.discarded(worker.trial, epoch, replaced=replaced)
                worker.tell(Stored())

    def _stored(self, trial: Trial, record: EpochRecord) -> Stored | Refused:
        try:
            self._sink.epoch(trial, record)
        except HistoryError as error:
            return Refused(str(error))
        return Stored()

    def _bury(self, worker: Worker) -> None:
        """Tells of the trial that a worker died at, and puts one that is idle or another in its place."""
        self._active.remove(worker)
        if worker.job is not None:
            self._sink.ended(worker.trial, worker.obituary())
        else:
            self._stillborn.append(worker.obituary())
        self._look_for_more()
        self._wake()
        if not self._waiting:
            return
        again = len(self._stillborn) < _TRIES
        if worker.job is None:
            what = "another is started" if again else f"as were {_TRIES} in a row, so no other is started"
            self._sink.note(f"a worker is gone before it was at any trial (see {worker.log}); {what}")
        if again:
            self._active.add(self._pool.start(self._threads))
        elif not self._active:
            count, last = len(self._stillborn), self._stillborn[-1]
            raise TrainingError(f"{count} workers in a row could not be set up; {last}")

    def _next_job(self, worker: Worker) -> None:
        """Gives the worker its next job; where there is none, it is idle as long as others are active."""
        self._look_for_more()
        if not self._waiting:
            self._active.remove(worker)
            self._idle.append(worker)
            return
        self._give(worker)
        self._wake()

    def _look_for_more(self) -> None:
        if not self._waiting:
            self._waiting.extend(self._more())

    def _wake(self) -> None:
        """Gives jobs that wait to workers that are idle and still there."""
        while self._waiting and self._idle:
            idle = self._idle.pop()
            if idle.is_alive():
                self._active.add(idle)
                self._give(idle)

    def _give(self, worker: Worker) -> None:
        worker.job = self._waiting.popleft()
        self._sink.started(worker.trial)
        worker.tell(RunTrial(worker.trial, worker.job.checkpoint, worker.job.stored))
