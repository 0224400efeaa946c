"""A contender as a process of its own, watched from outside: lines with their moments, memory, exit."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

__all__ = ["ContenderError", "Watched", "resident_bytes", "watch"]

_POLL_SECONDS = 0.2
_TAIL = 3000
_PAGE = os.sysconf("SC_PAGE_SIZE")


class ContenderError(Exception):
    """A contender did not do what it was told to."""


@dataclass(frozen=True)
class Watched:
    """What was seen of a process.

    Attributes:
        lines: Each line of its standard output, and when it came, in seconds since the start.
        wall: Seconds until it exited.
        peak_bytes: Largest sum of the resident sets of it and its descendants.
    """

    lines: tuple[tuple[float, str], ...]
    wall: float
    peak_bytes: int


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
    peak = 0
    with log.open("wb") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        output = cast("IO[str]", process.stdout)
        reader = threading.Thread(target=_read, args=(output, lines, start), daemon=True)
        reader.start()
        try:
            while process.poll() is None:
                peak = max(peak, resident_bytes(process.pid))
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


def resident_bytes(pid: int) -> int:
    """Sum of the resident sets of a process and its descendants, from Linux's /proc.

    Pages that several of them share count in each.
    """
    parents: dict[int, int] = {}
    pages: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The command, in brackets, may hold anything; the fields after it are numbers.
            fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        parents[int(entry.name)] = int(fields[1])
        pages[int(entry.name)] = int(fields[21])
    return _PAGE * sum(count for child, count in pages.items() if _descends(child, pid, parents))


def _descends(child: int, ancestor: int, parents: dict[int, int]) -> bool:
    while child != ancestor:
        if child not in parents:
            return False
        child = parents[child]
    return True
