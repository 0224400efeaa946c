"""What training code has started and left behind, found by a mark that it has inherited.

A process that leads a group or a session of its own (``timeout``, ``setsid``, ``torchrun``) is no longer
reached by what ends its parent's group. Its environment still bears the mark that its worker was
started with.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

__all__ = ["ask_to_end", "bearers", "end_all", "folder_mark", "mark_settings", "new_mark", "own_mark"]

_VARIABLE = "BATCHSCOPE_MARKS"
_PROCESSES = Path("/proc")
_TRIES = 100
_POLL_SECONDS = 0.02


def folder_mark(folder: Path) -> str:
    """Begins all marks of workers of the run whose folder this is, wherever it is named from."""
    return hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]


def new_mark(folder: Path) -> str:
    """A mark for one worker of a run."""
    return f"{folder_mark(folder)}-{uuid.uuid4().hex}"


def mark_settings(mark: str) -> Mapping[str, str]:
    """Environment variables that have a process, and what it starts, bear a mark beside those it inherits."""
    before = os.environ.get(_VARIABLE, "")
    return {_VARIABLE: f"{before},{mark}" if before else mark}


def own_mark() -> str:
    """The mark that this worker was started with; empty where it was started without."""
    return os.environ.get(_VARIABLE, "").rpartition(",")[2]


def bearers(mark: str) -> list[int]:
    """Ids of the processes that bear a mark, or one that begins so, but for this one and those above it.

    Simplified: the environment is that with which a program was started, so one that was started with
    an empty one, or that has overwritten it (as some do to change their title), is not found. Where
    the system has no ``/proc``, as macOS, nobody is.
    """
    if not mark:
        return []
    wanted = [f"{sign}{mark}".encode() for sign in "=,"]
    above = _lineage()
    found = []
    for entry in _PROCESSES.glob("[0-9]*"):
        settings = _settings(entry)
        if any(sought in settings for sought in wanted) and int(entry.name) not in above:
            found.append(int(entry.name))
    return found


def ask_to_end(mark: str) -> None:
    """Has the group that this process leads, and those beyond it who bear its mark, asked to end.

    This process must heed no SIGTERM.
    """
    group = os.getpid()
    if os.getpgrp() != group:
        return
    os.killpg(0, signal.SIGTERM)
    for pid in bearers(mark):
        with suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) != group:  # the others have been asked
                os.kill(pid, signal.SIGTERM)


def end_all(mark: str, grace: float = 0.0) -> None:
    """Ends at once, or after so many seconds, all who bear a mark, and whom they start meanwhile."""
    until = time.monotonic() + grace
    while grace and bearers(mark) and time.monotonic() < until:
        time.sleep(_POLL_SECONDS)
    for _ in range(_TRIES):
        found = bearers(mark)
        if not found:
            return
        for pid in found:
            # It may have ended since, or run with the rights of somebody else.
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _settings(process: Path) -> bytes:
    """The line of the environment that holds the marks; empty where it may not be read or has none."""
    try:
        content = (process / "environ").read_bytes()
    except OSError:
        return b""
    begin = f"{_VARIABLE}=".encode()
    return next((line for line in content.split(b"\0") if line.startswith(begin)), b"")


def _lineage() -> set[int]:
    """This process and those that it descends from."""
    found, pid = set(), os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        try:
            stat = (_PROCESSES / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            break
        pid = int(stat.rpartition(")")[2].split()[1])
    return found
