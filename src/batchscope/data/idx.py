"""IDX files as MNIST and Fashion-MNIST come in: images and labels apart, packed with gzip or not.

The format is that of yann.lecun.com/exdb/mnist: two zero bytes, 8 for unsigned bytes, the number of
dimensions, each length as four bytes with the highest first, then the bytes.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from batchscope.data.array_inputs import checked_arrays
from batchscope.data.image_files import LARGEST_RATIO, LEAST_UNPACKED
from batchscope.data.parts import Arrays, Parts, part_for_validation
from batchscope.errors import DataError

__all__ = ["idx_files_in", "read_idx"]

_NAME = re.compile(r"(train|t10k)-(images-idx3|labels-idx1)-ubyte(\.gz)?")
_PARTS = {"train": "training", "t10k": "test"}
_DIMENSIONS = {"images-idx3": 3, "labels-idx1": 1}
_UNSIGNED_BYTES = 8
_PIECE = 2**20


def idx_files_in(folder: Path) -> dict[tuple[str, str], Path]:
    """The IDX files of a folder: (part, what it holds) and path.

    Raises:
        DataError: One lies there both packed and not.
    """
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        key = (_PARTS[match[1]], match[2])
        if key in found:
            raise DataError(f"{folder}: must hold {found[key].name} or {path.name}, but holds both; keep one")
        found[key] = path
    return found


def read_idx(folder: Path, another: str | None) -> Parts:
    """Reads ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and, where they are, ``t10k-...``.

    Args:
        folder: Holds the files, each with or without ``.gz``. Where there is one part alone, it is
            taken for training, whatever its name.
        another: See `part_for_validation`.

    Returns:
        Grey images, uint8 of shape (n, rows, columns, 1), and classes by the labels' numbers.

    Raises:
        DataError: A file of a pair is missing, is no such file, or is cut short or too long.
    """
    files = idx_files_in(folder)
    names = list(dict.fromkeys(part for part, _ in sorted(files, reverse=True)))
    if names == ["test"]:
        return Parts(_read_part(folder, files, "test"))
    chosen, notes = part_for_validation(str(folder), names, another)
    training = _read_part(folder, files, "training")
    validation = None if chosen is None else _read_part(folder, files, chosen)
    return Parts(training, validation, ("training", chosen or "validation"), notes)


def _read_part(folder: Path, files: dict[tuple[str, str], Path], part: str) -> Arrays:
    arrays = []
    for what, dimensions in _DIMENSIONS.items():
        if (part, what) not in files:
            there = ", ".join(path.name for (name, _), path in files.items() if name == part)
            raise DataError(
                f"{folder}: the {part} part must have images and labels, but there is only {there}"
            )
        arrays.append(_read(files[part, what], dimensions))
    return checked_arrays(str(folder), part, *arrays)


def _read(path: Path, dimensions: int) -> NDArray[np.uint8]:
    try:
        with _opened(path) as file:
            shape = _shape(path, file, dimensions)
            content = _content(path, file, math.prod(shape))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read as an IDX file: {getattr(error, 'strerror', None) or error}"
        ) from error
    return np.frombuffer(content, np.uint8).reshape(shape)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as raw:
        if path.suffix != ".gz":
            yield raw
            return
        with gzip.open(raw) as unpacked:
            yield cast("BinaryIO", unpacked)


def _shape(path: Path, file: BinaryIO, dimensions: int) -> tuple[int, ...]:
    magic = struct.pack(">HBB", 0, _UNSIGNED_BYTES, dimensions)
    head = file.read(4 + 4 * dimensions)
    if head[:4] != magic or len(head) < 4 + 4 * dimensions:
        raise DataError(
            f"{path}: an IDX file of bytes in {dimensions} dimensions must begin with {magic.hex(' ')} and "
            f"{dimensions} lengths, but begins with {head[:16].hex(' ') or 'nothing'}"
        )
    shape: tuple[int, ...] = struct.unpack(f">{dimensions}I", head[4:])
    if 0 in shape:  # beside it another length may be beyond what an array can have
        raise DataError(f"{path}: each length must be 1 or more, but the header has {shape}")
    most = max(LEAST_UNPACKED, LARGEST_RATIO * path.stat().st_size)
    if math.prod(shape) > most:
        raise DataError(
            f"{path}: must hold at most {most:,} bytes (1 GiB, or {LARGEST_RATIO} times the file), but "
            f"claims {math.prod(shape):,}"
        )
    return shape


def _content(path: Path, file: BinaryIO, size: int) -> bytearray:
    """All that follows; memory grows with what is there and not with what is claimed."""
    content = bytearray()
    while len(content) <= size and (piece := file.read(min(_PIECE, size + 1 - len(content)))):
        content += piece
    if len(content) != size:
        there = "more" if len(content) > size else f"{len(content):,}"
        raise DataError(f"{path}: by its header {size:,} bytes must follow, but there are {there}")
    return content
