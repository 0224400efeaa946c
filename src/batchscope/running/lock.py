"""One process at a time runs a study in a folder; one that comes second is told who is there."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from batchscope.errors import RunFolderError
from batchscope.running.provenance import now

__all__ = ["sole_writer"]


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Keeps every other process out while this one runs a study.

    The lock is SQLite's on an empty database: the system lets go of it when this process ends,
    however it ends, and no child of this process inherits it. Who holds it stands in a file beside
    it, which can be read at any time.

    Simplified: one that comes within the instant between another's taking the lock and its writing
    down who it is, is told of nobody, or of a process that was killed before.

    Args:
        path: A file for the lock alone, made where there is none; whatever is in it is no lock.

    Raises:
        RunFolderError: Another process holds it, or it cannot be made.
    """
    holder = path.with_suffix(".json")
    try:
        lock = _taken(path)
    except sqlite3.Error as error:
        if not _says(error, sqlite3.SQLITE_BUSY):
            raise RunFolderError(f"{path}: must be a file that can be written: {error}") from error
        raise RunFolderError(
            f"{path.parent}: must be run by one process at a time, but another is at it{_told(holder)}; "
            "wait until it ends, or give --out another folder"
        ) from error
    except OSError as error:
        raise RunFolderError(f"{path}: must be a file that can be written: {error}") from error
    with closing(lock):
        _sign(holder)
        try:
            yield
        finally:
            with suppress(OSError):  # it is read only while somebody holds the lock
                holder.unlink()


def _taken(path: Path) -> sqlite3.Connection:
    """The lock, held. Content that is no database is dropped: a process that holds the lock is met first."""
    try:
        return _exclusive(path)
    except sqlite3.DatabaseError as error:
        if not _says(error, sqlite3.SQLITE_NOTADB):
            raise
    path.write_bytes(b"")
    return _exclusive(path)


def _exclusive(path: Path) -> sqlite3.Connection:
    lock = sqlite3.connect(path, isolation_level=None, timeout=0)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error:
        lock.close()
        raise
    return lock


def _says(error: sqlite3.Error, code: int) -> bool:
    """Whether an error has this primary code, the lowest byte of SQLite's extended ones."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == code


def _sign(holder: Path) -> None:
    me = {"pid": os.getpid(), "host": platform.node(), "started": now()}
    try:
        holder.write_text(json.dumps(me), encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"{holder}: must be a file that can be written: {error}") from error


def _told(holder: Path) -> str:
    """Who holds the lock, as far as it is known."""
    try:
        known = json.loads(holder.read_text(encoding="utf-8"))
        return f": process {known['pid']} on {known['host']}, since {known['started']}"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""
