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

__all__ = ["ask_to_end", "bearers", "end_all", "mark_settings", "new_mark", "own_mark", "run_mark"]

_VARIABLE = "BATCHSCOPE_MARKS"
_PROCESSES = Path("/proc")
_TRIES = 100
_POLL_SECONDS = 0.02


def run_mark(identity: str, folder: Path) -> str:
    """Begins all marks of a run's workers.

    Neither will do alone. The same path may be another folder: later, or in another container that shares
    the processes. A copy of a run's folder has the same identity.

    Args:
        identity: Drawn at random for the run.
        folder: The run's, wherever it is named from.
    """
    return hashlib.sha256(identity.encode() + b"\0" + os.fsencode(folder.resolve())).hexdigest()[:16]


def new_mark(of_run: str) -> str:
    """A mark for one worker of a run, given the run's."""
    return f"{of_run}-{uuid.uuid4().hex}"


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
    above = _lineage()
    running = (int(entry.name) for entry in _PROCESSES.glob("[0-9]*"))
    return [pid for pid in running if _bears(pid, mark) and pid not in above]


def ask_to_end(mark: str) -> None:
    """Has the group that this process leads, and those beyond it who bear its mark, asked to end.

    This process must heed no SIGTERM.
    """
    group = os.getpid()
    if os.getpgrp() != group:
        return
    os.killpg(0, signal.SIGTERM)
    for pid in bearers(mark):
        with suppress(ProcessLookupError):
            if os.getpgid(pid) != group:  # the others have been asked
                _signal(pid, mark, signal.SIGTERM)


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
            _signal(pid, mark, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _signal(pid: int, mark: str, number: signal.Signals) -> None:
    """Signals a process that bears a mark; by now it may have ended, and its number be another's.

    The signal goes through a handle that was open before the look, so that it reaches who was looked at
    or nobody. Where there are no handles (Linux before 5.3), the number may change hands between the two.
    """
    handle = None
    try:
        with suppress(AttributeError, OSError):
            handle = os.pidfd_open(pid)
        if not _bears(pid, mark):
            return
        # It may have ended since, or run with the rights of somebody else.
        with suppress(ProcessLookupError, PermissionError):
            if handle is None:
                os.kill(pid, number)
            else:
                signal.pidfd_send_signal(handle, number)
    finally:
        if handle is not None:
            os.close(handle)


def _bears(pid: int, mark: str) -> bool:
    settings = _settings(pid)
    return any(f"{sign}{mark}".encode() in settings for sign in "=,")


def _settings(pid: int) -> bytes:
    """The line of the environment that holds the marks; empty where it may not be read or has none."""
    try:
        content = (_PROCESSES / str(pid) / "environ").read_bytes()
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
