"""Disks that are full and media that cannot be written, as far as the system lets tests have them."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

KINDS = ("tmpfs", "limit")


class Disk:
    """A folder on a disk that can be filled up.

    Kind ``tmpfs`` is a small disk in memory, which only root may mount; kind ``limit`` forbids
    this process, and those that it starts meanwhile, to write any file, which everybody may.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        if self.kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, self._limits[1]))
            return
        with (self.folder / "filler").open("wb", buffering=0) as filler:
            for size in (2**16, 1):
                while _takes(filler.fileno(), size):
                    pass

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)
        (self.folder / "filler").unlink(missing_ok=True)


def _takes(file: int, size: int) -> bool:
    try:
        return os.write(file, bytes(size)) > 0
    except OSError:
        return False


@contextmanager
def disk(kind: str, folder: Path) -> Iterator[Disk]:
    if kind == "limit":
        made = Disk(kind, folder)
        try:
            yield made
        finally:
            made.free()
        return
    with _tmpfs(folder):
        yield Disk(kind, folder)


@contextmanager
def medium(folder: Path) -> Iterator[Path]:
    """A folder to fill and then to make unwritable with `lock`."""
    if os.geteuid() != 0:
        try:
            yield folder
        finally:
            unlock(folder)
        return
    with _tmpfs(folder):
        yield folder


def lock(folder: Path) -> None:
    """Makes a `medium` unwritable: root, whom no mode of a file stops, by mounting it so."""
    command = ["mount", "-o", "remount,ro", str(folder)]
    subprocess.run(command if os.geteuid() == 0 else ["chmod", "-R", "a-w", str(folder)], check=True)


def unlock(folder: Path) -> None:
    """Makes it writable again."""
    command = ["mount", "-o", "remount,rw", str(folder)]
    subprocess.run(command if os.geteuid() == 0 else ["chmod", "-R", "u+w", str(folder)], check=True)


@contextmanager
def _tmpfs(folder: Path) -> Iterator[None]:
    if not sys.platform.startswith("linux"):
        pytest.skip("disks in memory are mounted on Linux only")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"a disk in memory may not be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
