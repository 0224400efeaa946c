"""A command that is killed, and killed again, at moments drawn by chance, and started again each time."""

from __future__ import annotations

import os
import queue
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from commands import await_end

from run_samples import children

Victim = Literal["run", "worker"]
Moment = Literal["now", "worker started", "epoch told", "checkpoint kept"]


@dataclass(frozen=True)
class Blow:
    """A kill to come.

    Attributes:
        victim: The run itself, or one of its workers, drawn by chance.
        moment: What is awaited first.
        within: Seconds after it, of which the delay is drawn evenly.
    """

    victim: Victim
    moment: Moment
    within: float


class Siege:
    """Strikes a command until all blows have been dealt, then lets it end.

    Args:
        start: Starts the command, the same each time.
        folder: The run's folder.
        seed: Of what is drawn by chance.
        states: Pattern of the files below ``checkpoints`` that hold trials' states.
    """

    def __init__(
        self, start: Callable[[], subprocess.Popen[str]], folder: Path, seed: int, states: str = "*.npz"
    ) -> None:
        self._start, self._folder, self._chance = start, folder, random.Random(seed)
        self._states = states
        self._process: subprocess.Popen[str] | None = None
        self._reader = threading.Thread()
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.dealt: list[tuple[Victim, Moment]] = []
        self.codes: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            with self._process:
                self._reader.join()

    def strike(self, blows: Sequence[Blow]) -> None:
        """Deals blows in turn; one that comes too late, the command having ended, is dealt to the next."""
        for blow in blows:
            while not self._deal(blow):
                if self._process is not None and self._process.poll() is not None:
                    self._ended()
                assert self.codes[-1:] != [0], f"the study ended before {blow}, after {self.dealt}"
            self.dealt.append((blow.victim, blow.moment))

    def conclude(self, restarts: int) -> None:
        """Starts the command until it ends well; it may fail so many times, for trials that were killed."""
        for _ in range(restarts + 1):
            self._running()
            if self._ended() == 0:
                return
        raise AssertionError(f"the study did not end well: {self.codes}")

    def _deal(self, blow: Blow) -> bool:
        """Whether somebody was killed; not so where the command ended first."""
        process = self._running()
        if not self._await(blow.moment, process):
            return False
        time.sleep(self._chance.uniform(0, blow.within))
        workers = children(process.pid)
        if blow.victim == "run":
            process.kill()
            code = self._ended()
            await_end(workers)
            return code == -signal.SIGKILL
        if not workers:
            return False
        try:
            os.kill(self._chance.choice(workers), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = self._start()
            self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
            self._reader.start()
        return self._process

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._lines.put(line)

    def _ended(self) -> int:
        """Waits for the command's end; what it then says must be about trials that were killed."""
        assert self._process is not None
        assert self._process.stderr is not None
        with self._process:
            said = self._process.stderr.read()
            code = self._process.wait()
            self._reader.join()
        self._process = None
        self.codes.append(code)
        assert code in (0, 1, -signal.SIGKILL), said
        assert "Traceback" not in said
        return code

    def _await(self, moment: Moment, process: subprocess.Popen[str]) -> bool:
        """Whether the moment came before the command ended."""
        has_come = {
            "now": lambda: True,
            "worker started": self._another_worker(process),
            "epoch told": self._another_epoch(),
            "checkpoint kept": self._another_checkpoint(),
        }[moment]
        while not has_come():
            if process.poll() is not None:
                return False
            time.sleep(0.005)
        return True

    def _another_worker(self, process: subprocess.Popen[str]) -> Callable[[], bool]:
        before = set(children(process.pid))
        return lambda: bool(set(children(process.pid)) - before)

    def _another_epoch(self) -> Callable[[], bool]:
        while not self._lines.empty():
            self._lines.get()
        return lambda: not self._lines.empty() and " epoch " in self._lines.get()

    def _another_checkpoint(self) -> Callable[[], bool]:
        before = self._checkpoints()
        return lambda: bool(self._checkpoints() - before)

    def _checkpoints(self) -> set[tuple[str, int]]:
        found = set()
        for path in (self._folder / "checkpoints").glob(self._states):
            try:
                found.add((str(path), path.stat().st_mtime_ns))
            except FileNotFoundError:  # its trial is complete
                continue
        return found
