"""A contender as a process of its own, watched from outside: lines with their moments, memory, exit."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

__all__ = ["ContenderError", "Memory", "Watched", "memory_of", "watch"]

_POLL_SECONDS = 0.2
# Reading what is mapped costs the kernel milliseconds.
_MEMORY_EVERY = 5
_TAIL = 3000


class ContenderError(Exception):
    """A contender did not do what it was told to."""


@dataclass(frozen=True)
class Memory:
    """What a process and its descendants hold in memory.

    Attributes:
        whole: Bytes, the pages of mapped files among them; what several processes share counts once.
        private: Of them, those that are no file's, which the system cannot drop and read again.
    """

    whole: int = 0
    private: int = 0

    def highest(self, other: Memory) -> Memory:
        """The larger of each."""
        return Memory(max(self.whole, other.whole), max(self.private, other.private))


@dataclass(frozen=True)
class Watched:
    """What was seen of a process.

    Attributes:
        lines: Each line of its standard output, and when it came, in seconds since the start.
        wall: Seconds until it exited.
        peak: The most memory that it and its descendants held, seen once a second.
    """

    lines: tuple[tuple[float, str], ...]
    wall: float
    peak: Memory


def watch(command: Sequence[str], log: Path, poll: Callable[[float], None] | None = None) -> Watched:
    """Runs a command to its end.

    Args:
        command: Program and arguments.
        log: File for its standard error.
        poll: Called five times a second with the seconds since the start.

    Raises:
        ContenderError: It failed.
    """
    lines: queue.SimpleQueue[tuple[float, str]] = queue.SimpleQueue()
    peak, looks = Memory(), 0
    with log.open("wb") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        output = cast("IO[str]", process.stdout)
        reader = threading.Thread(target=_read, args=(output, lines, start), daemon=True)
        reader.start()
        try:
            while process.poll() is None:
                if looks % _MEMORY_EVERY == 0:
                    peak = peak.highest(memory_of(process.pid))
                looks += 1
                if poll is not None:
                    poll(time.perf_counter() - start)
                _sleep(process)
        finally:
            process.kill()
            process.wait()
        wall = time.perf_counter() - start
        reader.join()
        output.close()
    if process.returncode != 0:
        tail = log.read_text(encoding="utf-8", errors="replace")[-_TAIL:]
        raise ContenderError(f"{' '.join(command)} ended with exit code {process.returncode}:\n{tail}")
    return Watched(tuple(lines.get() for _ in range(lines.qsize())), wall, peak)


def _sleep(process: subprocess.Popen[str]) -> None:
    """Waits until the next poll, or until the process exits, which is then noticed at once."""
    try:
        process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return


def _read(stream: IO[str], lines: queue.SimpleQueue[tuple[float, str]], start: float) -> None:
    for line in stream:
        lines.put((time.perf_counter() - start, line.rstrip("\n")))


def memory_of(pid: int) -> Memory:
    """Memory of a process and its descendants: their proportional set sizes, from Linux's /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                # The command, in brackets, may hold anything; the fields after it are numbers.
                text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
                parents[int(entry.name)] = int(text.rpartition(")")[2].split()[1])
    whole = private = 0
    for child in parents:
        if _descends(child, pid, parents):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                sizes = _sizes(Path(f"/proc/{child}/smaps_rollup").read_text(encoding="utf-8"))
                whole += sizes["Pss"]
                private += sizes["Anonymous"]
    return Memory(whole, private)


def _sizes(rollup: str) -> dict[str, int]:
    """Bytes by name of the lines like ``Pss:  4711 kB``; the first line is the address range."""
    lines = (line.split() for line in rollup.splitlines()[1:])
    return {name.rstrip(":"): int(size) * 1024 for name, size, _ in lines}


def _descends(child: int, ancestor: int, parents: dict[int, int]) -> bool:
    while child != ancestor:
        if child not in parents:
            return False
        child = parents[child]
    return True
