"""Filling a new folder so that it is complete, or absent, or shows that it is neither."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from batchscope.errors import DataError

__all__ = ["DISK_ERRORS", "UNFINISHED", "new_folder"]

UNFINISHED = "batchscope-unfinished"
"""Name of the folder in which the files lie until all of them are written."""

_NO_ROOM = "free space, or name a folder on another disk"
_NO_RIGHT = "name a folder in which you may write"
_REMEDIES = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EFBIG: _NO_ROOM,
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.EROFS: _NO_RIGHT,
}
DISK_ERRORS = frozenset(_REMEDIES)
"""Numbers of the system's errors that mean a disk without room or without rights."""


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Gives a place to write the files of a new folder; they appear in it when all are written.

    Whether the folder is empty and may be written is found out before anything is yielded. An
    error in the block, Ctrl-C too, removes what was written and the folders that were made. A
    process that is killed leaves the subfolder `UNFINISHED`, which `new_folder` and
    `load_dataset` refuse by name; it is not removed here, for another process may be filling it.

    Args:
        folder: New or empty; folders above it are made where they are missing.

    Yields:
        ``folder/batchscope-unfinished``.

    Raises:
        DataError: The folder is not empty, or cannot be written: the message tells why, and what
            to do.
    """
    place = folder / UNFINISHED
    with ExitStack() as undo:
        try:
            for missing in [path for path in (*reversed(folder.parents), folder) if not path.exists()]:
                missing.mkdir()
                undo.callback(_remove_empty, missing)
            _check_empty(folder)
            place.mkdir()
            undo.callback(shutil.rmtree, place, ignore_errors=True)
            yield place
            for path in list(place.iterdir()):
                undo.callback(_remove, folder / path.name)
                path.rename(folder / path.name)
            place.rmdir()
        except OSError as error:
            raise DataError(f"{folder}: cannot be written: {_why(error)}") from error
        undo.pop_all()


def _why(error: OSError) -> str:
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{error.strerror or error}{f'; {remedy}' if remedy else ''}"


def _check_empty(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    if UNFINISHED in names:
        raise DataError(
            f"{folder}: must be a new or an empty folder, but it holds {UNFINISHED}/, from a command "
            "that was stopped or is still writing; if none is, remove it, or name another folder"
        )
    if names:
        raise DataError(f"{folder}: must be a new or an empty folder, but it holds files; name another")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
