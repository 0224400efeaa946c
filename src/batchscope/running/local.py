"""The local executor: trials in worker processes on this machine."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from batchscope.errors import TrainingError
from batchscope.records import BatchProgress, EpochRecord, Trial
from batchscope.running.messages import (
    BatchDone,
    EpochDone,
    Fatal,
    Message,
    Ready,
    RunTrial,
    SetUp,
    Stored,
    TrialEnded,
    receive,
    send,
)
from batchscope.spec import Study

__all__ = ["Job", "Sink", "execute"]

_COMMAND = (sys.executable, "-m", "batchscope.running.worker")
_LOG_TAIL = 2000
_GRACE_SECONDS = 5


@dataclass(frozen=True)
class Job:
    """A trial to carry out, from where it stands.

    Attributes:
        trial: The trial.
        checkpoint: File that holds its state.
        stored_epochs: Epochs that are stored already.
    """

    trial: Trial
    checkpoint: Path
    stored_epochs: int


class Sink(Protocol):
    """Takes what happens, in the order in which it happens."""

    def ready(self, facts: Mapping[str, str]) -> None:
        """A worker is set up."""

    def started(self, trial: Trial) -> None:
        """A trial begins or goes on."""

    def batch(self, trial: Trial, progress: BatchProgress) -> None:
        """An epoch got further."""

    def epoch(self, trial: Trial, record: EpochRecord) -> None:
        """An epoch ended; when this returns, its record is safe."""

    def ended(self, trial: Trial, error: str | None) -> None:
        """A trial is over; `error` is the traceback of a failed one."""


@dataclass(eq=False)
class _Worker:
    """A worker process, the job it is at, and what was wrong with the last it wrote."""

    process: subprocess.Popen[bytes]
    log: Path
    inbox: queue.SimpleQueue[tuple[_Worker, Message | None]]
    job: Job | None = None
    fault: str = ""
    reader: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        stream = cast("BinaryIO", self.process.stdout)
        try:
            while (message := receive(stream)) is not None:
                self.inbox.put((self, message))
        except Exception as error:  # noqa: BLE001  # what is cut off or no message may break pickle in any way
            self.fault = f"; the last it wrote is no whole message: {error}"
            self.process.kill()
        self.inbox.put((self, None))

    def tell(self, message: Message) -> None:
        """Sends a message; a worker that is gone is noticed by its reader."""
        try:
            send(cast("BinaryIO", self.process.stdin), message)
        except BrokenPipeError:
            return

    def obituary(self) -> str:
        """Why the process may have ended: the end of its log, and in the last line how it ended."""
        code = self.process.wait()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        tail = self.log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:].strip()
        return f"the end of {self.log}:\n{tail or '(empty)'}\nthe worker process {how}{self.fault}"


def execute(study: Study, data: Path, jobs: Sequence[Job], sink: Sink, logs: Path, workers: int = 1) -> None:
    """Carries out jobs, each in one of the worker processes, until none is left.

    A job that fails, or whose worker dies, is told to the sink and the others go on.

    Args:
        study: The recipe.
        data: Folder of the prepared images.
        jobs: In the order in which to start them.
        sink: Told of everything, from this thread only.
        logs: Folder for what the workers print.
        workers: Number of processes; no more are started than there are jobs.

    Raises:
        BatchscopeError: A worker cannot be started or set up.
    """
    waiting = deque(jobs)
    inbox: queue.SimpleQueue[tuple[_Worker, Message | None]] = queue.SimpleQueue()
    with _pool(min(workers, len(jobs)), study, data, logs, inbox) as pool:
        active = set(pool)
        while active:
            worker, message = inbox.get()
            if worker not in active:
                continue  # it had nothing left to do, and how it ends concerns no trial
            match message:
                case None:
                    active.remove(worker)
                    _bury(worker, sink)
                    if waiting:
                        pool.append(_start_worker(len(pool), study, data, logs, inbox))
                        active.add(pool[-1])
                case Fatal(error):
                    raise error
                case Ready(facts):
                    sink.ready(facts)
                    _next_job(worker, waiting, sink, active)
                case TrialEnded(error):
                    sink.ended(_trial(worker), error)
                    _next_job(worker, waiting, sink, active)
                case BatchDone(progress):
                    sink.batch(_trial(worker), progress)
                case EpochDone(record):
                    sink.epoch(_trial(worker), record)
                    worker.tell(Stored())


def _trial(worker: _Worker) -> Trial:
    if worker.job is None:
        raise TypeError("a worker without a job must not speak of a trial")
    return worker.job.trial


def _bury(worker: _Worker, sink: Sink) -> None:
    """Tells of the trial that a worker died at."""
    if worker.job is None:
        raise TrainingError(f"a worker could not be set up; {worker.obituary()}")
    sink.ended(worker.job.trial, worker.obituary())


def _next_job(worker: _Worker, waiting: deque[Job], sink: Sink, active: set[_Worker]) -> None:
    """Gives the worker its next job; where there is none left, it is not active any more."""
    if not waiting:
        active.remove(worker)
        return
    worker.job = waiting.popleft()
    sink.started(worker.job.trial)
    worker.tell(RunTrial(worker.job.trial, worker.job.checkpoint, worker.job.stored_epochs))


@contextmanager
def _pool(
    count: int,
    study: Study,
    data: Path,
    logs: Path,
    inbox: queue.SimpleQueue[tuple[_Worker, Message | None]],
) -> Iterator[list[_Worker]]:
    """Workers that are gone, whatever happens, when the block is left."""
    pool: list[_Worker] = []
    try:
        for index in range(count):
            pool.append(_start_worker(index, study, data, logs, inbox))  # noqa: PERF401  # kept if a start fails
        yield pool
    finally:
        for worker in pool:
            worker.process.kill()
        for worker in pool:
            worker.process.wait(_GRACE_SECONDS)
            worker.reader.join(_GRACE_SECONDS)
            for stream in (worker.process.stdin, worker.process.stdout):
                _close(stream)


def _close(stream: object) -> None:
    try:
        cast("BinaryIO", stream).close()
    except BrokenPipeError:
        return  # the last message had nobody to go to


def _start_worker(
    index: int,
    study: Study,
    data: Path,
    logs: Path,
    inbox: queue.SimpleQueue[tuple[_Worker, Message | None]],
) -> _Worker:
    log = logs / f"worker-{index + 1}.log"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as sink:
            process = subprocess.Popen(
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
    except OSError as error:
        raise TrainingError(f"a worker with its log {log} must be startable, but: {error}") from error
    worker = _Worker(process, log, inbox)
    worker.tell(SetUp(study, data))
    return worker
