"""Worker processes: started with their share of the machine, heard, and gone when the run is."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self, cast

from batchscope.errors import TrainingError
from batchscope.masking import masked
from batchscope.own.leftovers import end_all, mark_settings, new_mark
from batchscope.records import EpochRecord, Trial
from batchscope.running.machine import thread_settings
from batchscope.running.messages import AnySetUp, Message, receive, send
from batchscope.running.stopping import held

__all__ = ["Job", "Pool", "Worker"]

_COMMAND = (sys.executable, "-m", "batchscope.running.worker")
_LOG_TAIL = 2000
_GRACE_SECONDS = 5

Heard = tuple["Worker", Message | None]


@dataclass(frozen=True)
class Job:
    """A trial to carry out, from where it stands.

    Attributes:
        trial: The trial.
        checkpoint: Holds its state: a file, or a folder where the training is somebody's own.
        stored: Its records that are stored already.
    """

    trial: Trial
    checkpoint: Path
    stored: tuple[EpochRecord, ...] = ()


@dataclass(eq=False)
class Worker:
    """A worker process, the job it is at, and what was wrong with the last it wrote.

    One that is to carry out somebody's own code has a mark, and leads a process group. It is ended with
    that, and with all who bear its mark; the group, once the worker is gone, no more than once, for
    its number may then be another's.
    """

    process: subprocess.Popen[bytes]
    log: Path
    inbox: queue.SimpleQueue[Heard]
    mark: str = ""
    job: Job | None = None
    fault: str = ""
    reader: threading.Thread = field(init=False)
    _ended: bool = field(init=False, default=False)
    _ending: threading.Lock = field(init=False, default_factory=threading.Lock)

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
        if self.mark:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_GRACE_SECONDS)
            self.kill()
        self.inbox.put((self, None))

    def kill(self) -> None:
        """Ends it at once, and what it has left behind where it is gone already."""
        if not self.mark:
            self.process.kill()
            return
        with self._ending:
            if self._ended:
                return
            self._ended = not self.is_alive()
            # The second is how some systems say that all of the group are dead already.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            end_all(self.mark)

    @property
    def trial(self) -> Trial:
        """The trial it is at."""
        if self.job is None:
            raise TypeError("a worker without a job must not speak of a trial")
        return self.job.trial

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def tell(self, message: Message) -> None:
        """Sends a message; a worker that is gone is noticed by its reader."""
        try:
            send(cast("BinaryIO", self.process.stdin), message)
        except BrokenPipeError:
            return

    def ended_for_memory(self) -> bool:
        """Whether the process ended as systems and libraries end one where memory runs out."""
        return -self.process.wait() in (signal.SIGKILL, signal.SIGABRT) and not self.fault

    def obituary(self) -> str:
        """Why the process may have ended: the end of its log, and in the last line how it ended."""
        code = self.process.wait()
        how = f"was ended by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        if self.ended_for_memory():
            how += ", as where memory runs out (then give fewer --workers)"
        return masked(f"the end of {self.log}:\n{_tail(self.log)}\nthe worker process {how}{self.fault}")


class Pool:
    """Workers that are gone, whatever happens, when the block is left.

    Args:
        set_up: What each of them is told first.
        logs: Folder for what they print.
        mark: The run's, which begins those of workers that carry out somebody's own code; empty for
            Keras' workers, which start nothing and have none.
    """

    def __init__(self, set_up: AnySetUp, logs: Path, mark: str = "") -> None:
        self._set_up, self._logs, self._mark = set_up, logs, mark
        self._workers: list[Worker] = []
        self._started = 0
        self._inbox: queue.SimpleQueue[Heard] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(list(self._workers))

    def start(self, threads: int) -> Worker:
        """Starts a worker that computes with so many threads.

        Raises:
            TrainingError: It cannot be started.
        """
        with held():
            return self._start(threads)

    def _start(self, threads: int) -> Worker:
        self._started += 1
        log = self._logs / f"worker-{self._started}.log"
        mark = new_mark(self._mark) if self._mark else ""
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as sink:
                process = subprocess.Popen(
                    _COMMAND,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=sink,
                    env={
                        **os.environ,
                        "PYTHONUNBUFFERED": "1",
                        **thread_settings(threads),
                        **(mark_settings(mark) if mark else {}),
                    },
                    process_group=0 if mark else None,
                )
        except OSError as error:
            raise TrainingError(f"a worker with its log {log} must be startable, but: {error}") from error
        worker = Worker(process, log, self._inbox, mark)
        self._workers.append(worker)
        worker.tell(self._set_up)
        return worker

    def hear(self) -> Heard:
        """Waits for the next message of any worker; None is the last of one that is gone."""
        return self._inbox.get()

    def hear_within(self, seconds: float) -> Heard | None:
        """The same, but None where there is none for so long."""
        try:
            return self._inbox.get(timeout=seconds)
        except queue.Empty:
            return None

    def hear_again(self, heard: Heard) -> None:
        """Puts a message back, to be heard after those that wait."""
        self._inbox.put(heard)

    def stop(self, workers: Iterable[Worker]) -> None:
        """Ends workers at once, and waits until they are gone."""
        ending = list(workers)
        for worker in ending:
            worker.kill()
        for worker in ending:
            # One that the kernel does not let go of must not hide why the run ends.
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(_GRACE_SECONDS)
            worker.reader.join(_GRACE_SECONDS)
            for stream in (worker.process.stdin, worker.process.stdout):
                _close(stream)
            self._workers.remove(worker)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # the real-time signals between the first and the last have none
        return f"signal {number}"


def _tail(log: Path) -> str:
    try:
        return log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:].strip() or "(empty)"
    except OSError as error:  # a log that is gone must not hide what it was to explain
        return f"(cannot be read: {error.strerror or error})"


def _close(stream: object) -> None:
    try:
        cast("BinaryIO", stream).close()
    except BrokenPipeError:
        return  # the last message had nobody to go to
