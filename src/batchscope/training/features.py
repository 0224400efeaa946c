"""Ready features on disk, computed once and shared by all workers of a run.

An array is a file that all workers map into memory, so that the system's page cache is the memory
that holds it while there is room. Workers that need the same array at the same time fill different
chunks of it: each chunk is claimed by a lock that the system lets go of however a worker ends.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from batchscope.errors import TrainingError

try:
    import fcntl
except ImportError:  # Windows: chunks cannot be claimed, so nothing is shared there
    fcntl = None  # type: ignore[assignment]

__all__ = ["NOTHING_KEPT", "FeatureStore"]

# Small, so that workers share the last of an array, too; whole parts of what a prefix takes at a time.
_CHUNK_BYTES = 2**20
_CHUNK_MULTIPLE = 32
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# A byte of the lock file beyond those of all chunks: held while the array's files are made.
_CREATION = 2**40

Floats = NDArray[np.float32]


class FeatureStore:
    """Arrays of features by name and key, within a folder and a limit.

    Args:
        folder: Where they are kept; it is made when it is needed.
        limit: Bytes that all of them together may take.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._left = folder, limit

    def admit(self, size: int) -> bool:
        """Sets bytes aside for an array, if the limit leaves so many."""
        if fcntl is None or size > self._left:
            return False
        self._left -= size
        return True

    def ready(
        self, name: str, key: str, shape: tuple[int, ...], compute: Callable[[NDArray[np.int64]], Floats]
    ) -> Floats:
        """Gives an array, computing what is not there yet.

        Args:
            name: Beginning of the files' names.
            key: Everything that the values depend on; its hash is part of the names.
            shape: Of the array, examples first.
            compute: Values at some positions, shape (k, ...). How examples are grouped is the same
                in every worker and session.

        Returns:
            Float32, memory-mapped, read-only.

        Raises:
            TrainingError: There is no room, or no right to write.
        """
        stem = f"{name}-{hashlib.sha256(f'{key} {shape}'.encode()).hexdigest()[:16]}"
        with self._refusals(shape):
            self._folder.mkdir(parents=True, exist_ok=True)
            state = os.open(self._folder / f"{stem}.state", os.O_RDWR | os.O_CREAT, 0o644)
        with contextlib.closing(os.fdopen(state, "rb+", buffering=0)):
            with self._refusals(shape):
                array = self._writable(stem, state, shape)
            for chunk in self._chunks_to_do(state, shape):
                positions = np.arange(*_bounds(shape, chunk))
                array[positions] = compute(positions)
        with self._refusals(shape):
            return _mapped(self._folder / f"{stem}.npy", "r")

    def _chunks_to_do(self, state: int, shape: tuple[int, ...]) -> Iterator[int]:
        with self._refusals(shape):
            yield from _chunks_to_do(state, _count(shape))

    @contextlib.contextmanager
    def _refusals(self, shape: tuple[int, ...]) -> Iterator[None]:
        """Translates what the file system refuses; what computing raises is no business of it."""
        try:
            yield
        except OSError as error:
            if error.errno == errno.ENOMEM:
                raise  # no matter of the disk
            remedy = (
                "make room, or give a smaller --cache-limit"
                if error.errno in _NO_ROOM
                else "let the folder be written, or give --cache-limit 0"
            )
            raise TrainingError(
                f"{self._folder}: ready features need {np.prod(shape) * 4 / 1e9:.1f} GB here, but: {error}; "
                f"{remedy} (0 computes them anew in every trial)"
            ) from error

    def _writable(self, stem: str, state: int, shape: tuple[int, ...]) -> Floats:
        """The array for writing; `state` is the file that says which chunks are done and claims others."""
        path = self._folder / f"{stem}.npy"
        with _claimed(state, _CREATION):
            if not path.exists():
                os.ftruncate(state, 0)
                os.ftruncate(state, _count(shape))
                self._make(path, shape)
        return _mapped(path, "r+")

    def _make(self, path: Path, shape: tuple[int, ...]) -> None:
        """An array on disk whose room is certain: writing to a mapped file on a full disk would crash."""
        partial = path.with_suffix(".partial")
        try:
            made = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
            with partial.open("rb+") as file:
                _allocate(file.fileno(), made.offset, partial.stat().st_size)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        partial.replace(path)


def _allocate(file: int, start: int, size: int) -> None:
    """Gives every byte of a file from `start` to `size`, all of them 0, its place on the disk.

    Simplified: a file system that writes elsewhere what is written again, as ZFS does, promises nothing.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise  # else this file system cannot
        else:
            return
    while start < size:
        start += os.pwrite(file, bytes(min(_CHUNK_BYTES, size - start)), start)
    os.fsync(file)


def _mapped(path: Path, mode: Literal["r", "r+"]) -> Floats:
    array: Floats = np.load(path, mmap_mode=mode, allow_pickle=False)
    return array


def _chunks_to_do(state: int, count: int) -> Iterator[int]:
    """Chunks that nobody has done, each claimed while the caller works on it; ends when all are done."""
    waiting = list(range(count))
    while waiting:
        left = []
        for chunk in waiting:
            with _claim(state, chunk) as mine:
                if not mine:
                    left.append(chunk)
                elif not _is_done(state, chunk):
                    yield chunk
                    os.pwrite(state, b"\1", chunk)
        waiting = left
        if waiting:
            # All that is left is claimed by others: wait for one, which is done then, unless its worker died.
            with _claimed(state, waiting[0]):
                pass


def _is_done(state: int, chunk: int) -> bool:
    return os.pread(state, 1, chunk) == b"\1"


@contextlib.contextmanager
def _claim(state: int, chunk: int) -> Iterator[bool]:
    """Claims a chunk unless another process has."""
    try:
        fcntl.lockf(state, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, chunk)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        yield False
        return
    try:
        yield True
    finally:
        fcntl.lockf(state, fcntl.LOCK_UN, 1, chunk)


@contextlib.contextmanager
def _claimed(state: int, chunk: int) -> Iterator[None]:
    """Claims a chunk as soon as no other process does."""
    fcntl.lockf(state, fcntl.LOCK_EX, 1, chunk)
    try:
        yield
    finally:
        fcntl.lockf(state, fcntl.LOCK_UN, 1, chunk)


def _rows(shape: tuple[int, ...]) -> int:
    """Examples a chunk."""
    fit = _CHUNK_BYTES // (4 * int(np.prod(shape[1:])))
    return max(fit - fit % _CHUNK_MULTIPLE, _CHUNK_MULTIPLE)


def _count(shape: tuple[int, ...]) -> int:
    return -(-shape[0] // _rows(shape))


def _bounds(shape: tuple[int, ...], chunk: int) -> tuple[int, int]:
    return chunk * _rows(shape), min((chunk + 1) * _rows(shape), shape[0])


NOTHING_KEPT = FeatureStore(Path(), 0)
"""A store without room."""
