"""Faults of the disk for tests of the data layer, and what shows what was written, and how much was done."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from batchscope.data.label_table import read_label_table
from batchscope.errors import DataError

_NOBODY = 65_534


@contextmanager
def without_rights() -> Iterator[None]:
    """Root may do everything, so it acts as nobody for a while; others have no rights to give up."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A new folder whose path everybody may walk, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def no_room_beyond(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: a write ends short and then fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def tree(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """All that lies in a folder: mode, time of the last change in nanoseconds, content."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_mtime_ns, content)
    return found


@contextmanager
def calls_counted() -> Iterator[Callable[[], int]]:
    """Counts calls of Python functions in this thread."""
    counted = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal counted
        counted += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield lambda: counted
    finally:
        sys.setprofile(before)


def refusal_of_table(path: Path, content: bytes) -> str:
    """What is said of a table that cannot be read; it names the file."""
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_label_table(path)
    assert str(path) in str(caught.value)
    return str(caught.value)
