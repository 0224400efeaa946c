"""NumPy archives: ``x`` and ``y``, or such a pair for each part, as arrays and nothing else.

Only the arrays that are asked for are read, and each only once its header has been held against
what is really there: no pickle is opened, and a header cannot claim memory that its bytes do not fill.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from batchscope.data.array_inputs import checked_arrays
from batchscope.data.image_files import ZIP_ERRORS, check_total, fault_of_member
from batchscope.data.parts import Parts, part_for_validation
from batchscope.data.problems import first_ten
from batchscope.errors import DataError

__all__ = ["read_npz"]

_PARTS = {"training": "train", "validation": "val", "test": "test"}
_WANTED = "x and y, or x_train and y_train with perhaps x_val and y_val, or x_test and y_test"
_SUFFIX = ".npy"
_VERSIONS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(path: Path, source: str, another: str | None) -> Parts:
    """Reads an archive that ``numpy.savez`` or ``numpy.savez_compressed`` wrote.

    Args:
        path: The archive. `x` are images, uint8 of shape (n, height, width) or (n, height, width,
            1 or 3), or features, numbers of shape (n, features); `y` are whole numbers or words of
            shape (n,) or (n, 1).
        source: Names it in messages.
        another: See `part_for_validation`.

    Raises:
        DataError: It is no such archive, holds other arrays, or they do not fit each other.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pairs = _pairs(path, archive.infolist())
            check_total(path, [member for pair in pairs.values() for member in pair])
            chosen, notes = part_for_validation(source, pairs.keys(), another)
            parts = [
                checked_arrays(source, name, *(_read(path, archive, member) for member in pairs[name]))
                for name in ("training", chosen)
                if name is not None
            ]
    except (*ZIP_ERRORS, NotImplementedError) as error:
        raise DataError(
            f"{path}: must be an archive of NumPy arrays, but cannot be read as one: {error}"
        ) from error
    return Parts(parts[0], parts[1] if chosen else None, ("training", chosen or "validation"), notes)


def _pairs(
    path: Path, infos: Iterable[zipfile.ZipInfo]
) -> dict[str, tuple[zipfile.ZipInfo, zipfile.ZipInfo]]:
    """The members with inputs and labels of each part."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.removesuffix(_SUFFIX)
        if fault := fault_of_member(info):
            raise DataError(f"{path}: {info.filename!r}: {fault}; write the archive anew with numpy.savez")
        if name in members:
            raise DataError(
                f"{path}: {info.filename!r}: must occur once; write the archive anew with numpy.savez"
            )
        members[name] = info
    names = (
        {"training": ("x", "y")} if "x" in members else {part: _names(end) for part, end in _PARTS.items()}
    )
    pairs = {part: pair for part, pair in names.items() if members.keys() & set(pair)}
    known = [name for pair in pairs.values() for name in pair]
    if "training" not in pairs or set(known) != members.keys():
        raise DataError(
            f"{path}: must hold the arrays {_WANTED} and no others, but holds "
            f"{first_ten(sorted(members)) or 'nothing'}"
        )
    return {part: (members[x], members[y]) for part, (x, y) in pairs.items()}


def _names(end: str) -> tuple[str, str]:
    return f"x_{end}", f"y_{end}"


@dataclass(frozen=True)
class _Header:
    """What an array's header claims."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int


def _read(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    where = f"{path}: {member.filename}"
    try:
        with archive.open(member) as file:
            header = _header(where, file)
        claimed = math.prod(header.shape) * header.dtype.itemsize
        if claimed != member.file_size - header.start:
            raise DataError(
                f"{where}: an array of shape {header.shape} and dtype {header.dtype} must have {claimed:,} "
                f"bytes, but has {member.file_size - header.start:,}"
            )
        with archive.open(member) as file:
            array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
            file.read(1)  # at the end of the member its checksum is held against what was read
    except (*ZIP_ERRORS, NotImplementedError) as error:
        raise DataError(f"{where}: must be a NumPy array, but cannot be read as one: {error}") from error
    return array


def _header(where: str, file: IO[bytes]) -> _Header:
    """Reads a header; NumPy parses it as a literal of at most 10,000 characters.

    Raises:
        DataError: It describes Python objects, records, or a shape that no array has.
    """
    version = np.lib.format.read_magic(file)
    if version not in _VERSIONS:  # the third is for records with names beyond Latin-1
        raise DataError(f"{where}: must be an array of numbers or words, but has records")
    try:
        shape, _, dtype = _VERSIONS[version](file)
    except Exception as error:  # the parsers that NumPy uses raise many kinds of error on malformed text
        raise DataError(f"{where}: must be a NumPy array, but its header cannot be read: {error}") from error
    if dtype.hasobject or dtype.names is not None or dtype.kind not in "biufU":
        raise DataError(
            f"{where}: must be an array of numbers or words, but has dtype {dtype}; write plain numbers, "
            "which need no pickle"
        )
    if any(isinstance(length, bool) or length < 0 for length in shape):
        raise DataError(f"{where}: lengths of an array must be 0 or more, but its shape is {shape}")
    return _Header(shape, dtype, file.tell())
