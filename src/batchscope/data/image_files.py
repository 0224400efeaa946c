"""Where the bytes of images lie: in a folder, or in a zip archive that is never unpacked to disk."""

from __future__ import annotations

import os
import re
import stat
import struct
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from batchscope.data.problems import UnusableImageError, first_ten, why_unreadable
from batchscope.errors import DataError

__all__ = [
    "EXTENSIONS",
    "LARGEST_FILE",
    "LARGEST_RATIO",
    "LEAST_UNPACKED",
    "ZIP_ERRORS",
    "FolderImages",
    "ImageFiles",
    "ZipImages",
    "check_names",
    "check_total",
    "fault_of_member",
    "is_clutter",
]

LARGEST_FILE = 64 * 2**20
"""Bytes that one image file may have, unpacked."""

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""What names of image files end in, in any case. Only the content tells what a file is."""

LEAST_UNPACKED = 2**30
"""Bytes that an archive may always unpack to."""

LARGEST_RATIO = 200
"""Times its own size that a larger one may unpack to; data that is worth studying does not shrink so far."""

_CLUTTER = ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")
_DRIVE = re.compile(r"^[A-Za-z]:")
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    OverflowError,
    IndexError,
)
"""What Python's zipfile raises on malformed bytes."""


class ImageFiles(Protocol):
    """Image files by name. Reading is safe from several threads."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of them: paths with ``/``, without the ``train`` folders that they lie in."""

    def read(self, name: str) -> bytes:
        """The content of one.

        Raises:
            UnusableImageError: It cannot be read, or is too large.
        """

    def close(self) -> None:
        """Lets go of the archive."""


class FolderImages:
    """The files of a folder and its subfolders; links to folders are not followed.

    Args:
        folder: The folder.
        wrapper: Name of folders that do not count as a part of names, as ``train`` in
            ``train/train/1.jpg``.

    Raises:
        DataError: The folder cannot be listed, two files come to the same name, or a name is not
            UTF-8.
    """

    def __init__(self, folder: Path, wrapper: str = "") -> None:
        found = [(_unwrapped(path, wrapper), path) for path in _walk(folder)]
        check_names(folder, [path for _, path in found])
        self._folder = folder
        self._files = dict(sorted(found))
        if twice := _repeated(name for name, _ in found):
            raise DataError(f"{folder}: each image must lie there once, but twice lie {first_ten(twice)}")

    @property
    def names(self) -> tuple[str, ...]:
        """See `ImageFiles`."""
        return tuple(self._files)

    def read(self, name: str) -> bytes:
        """See `ImageFiles`."""
        path = self._folder / self._files[name]
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise UnusableImageError("must be a regular file, but is a device, pipe or folder")
            _check_size(status.st_size)
            return path.read_bytes()
        except OSError as error:
            raise UnusableImageError(why_unreadable(error)) from error

    def close(self) -> None:
        """Does nothing: no file stays open."""


class ZipImages:
    """The members of a zip archive.

    Args:
        path: The archive.
        wrapper: As for `FolderImages`.

    Raises:
        DataError: It is no archive, or has members that cannot be trusted or told apart: absolute
            names, names with ``..``, links, encrypted or oversized members, names that occur
            twice, unknown compression. They are named. Or all of them together unpack to more
            than 1 GiB and than 200 times the archive, which pictures do not.
    """

    def __init__(self, path: Path, wrapper: str = "") -> None:
        self._lock = threading.Lock()
        try:
            self._archive = zipfile.ZipFile(path)
        except PermissionError as error:
            raise DataError(f"{path}: {why_unreadable(error)}") from error
        except (*ZIP_ERRORS, NotImplementedError) as error:
            raise DataError(f"{path}: must be a zip archive, but cannot be read as one: {error}") from error
        try:
            self._members = _trusted_members(path, self._archive.infolist(), wrapper)
            check_total(path, self._members.values())
        except DataError:
            self._archive.close()
            raise

    @property
    def names(self) -> tuple[str, ...]:
        """See `ImageFiles`."""
        return tuple(self._members)

    def read(self, name: str) -> bytes:
        """See `ImageFiles`."""
        member = self._members[name]
        try:
            # The lock: zipfile counts its users without one. The size: a member that unpacks to more
            # than it declares is cut there, and then fails its checksum.
            with self._lock, self._archive.open(member) as file:
                return file.read(member.file_size)
        except (*ZIP_ERRORS, NotImplementedError) as error:
            raise UnusableImageError(f"cannot be unpacked: {error}") from error

    def close(self) -> None:
        """See `ImageFiles`."""
        self._archive.close()


def is_clutter(name: str) -> bool:
    """Whether operating systems leave files or folders of this name about: ``.DS_Store`` and the like."""
    return name.startswith(".") or name.casefold() in _CLUTTER


def check_names(folder: Path, names: Sequence[str]) -> None:
    """Refuses names that are not text and so could neither be stored nor shown.

    Raises:
        DataError: With the names.
    """
    if odd := [name for name in names if not _is_text(name)]:
        raise DataError(
            f"{folder}: names must be UTF-8, but {len(odd):,} are not; rename them: {first_ten(odd)}"
        )


def _is_text(name: str) -> bool:
    """Whether UTF-8 can write it; Python reads other bytes in file names as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _walk(folder: Path) -> Iterable[str]:
    """Paths of the files, relative to the folder, with ``/``."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: the folder {why_unreadable(error)}") from error

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not is_clutter(name))
        inside = Path(parent).relative_to(folder).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        yield from (prefix + name for name in files if not is_clutter(name))


def _unwrapped(name: str, wrapper: str) -> str:
    prefix = f"{wrapper}/"
    while wrapper and name.startswith(prefix):
        name = name.removeprefix(prefix)
    return name


def _check_size(size: int) -> None:
    if size > LARGEST_FILE:
        raise UnusableImageError(f"a file must have at most {LARGEST_FILE:,} bytes, but it has {size:,}")


def _trusted_members(
    path: Path, infos: Iterable[zipfile.ZipInfo], wrapper: str
) -> dict[str, zipfile.ZipInfo]:
    """Members by name, sorted; folders and clutter left out."""
    named = [(info.filename.replace("\\", "/"), info) for info in infos]
    files = [(name, info) for name, info in named if not name.endswith("/") and not _has_clutter(name)]
    problems = [f"{info.filename!r}: {fault}" for name, info in files if (fault := _fault(name, info))]
    members = [(_unwrapped("/".join(_parts(name)), wrapper), info) for name, info in files]
    problems += [f"{name!r}: must occur once" for name in _repeated(name for name, _ in members)]
    if problems:
        head = f"{path}: {len(problems):,} members of the archive cannot be trusted; make it anew without"
        raise DataError(f"{head}\n  {first_ten(problems, between=chr(10) + '  ')}")
    return dict(sorted(members, key=lambda member: member[0]))


def check_total(path: Path, members: Iterable[zipfile.ZipInfo]) -> None:
    """Refuses many members that share their bytes, or that are small only while they are packed.

    Raises:
        DataError: They unpack to more than 1 GiB and than 200 times the archive.
    """
    total = sum(member.file_size for member in members)
    allowed = max(LEAST_UNPACKED, LARGEST_RATIO * path.stat().st_size)
    if total > allowed:
        raise DataError(
            f"{path}: the members must unpack to at most {allowed:,} bytes together (1 GiB, or "
            f"{LARGEST_RATIO} times the archive), but have {total:,}; if you trust it, unpack it"
        )


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _has_clutter(name: str) -> bool:
    return any(is_clutter(part) for part in _parts(name) if part != "..")


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


def _fault(name: str, info: zipfile.ZipInfo) -> str | None:
    """What makes a member untrustworthy, if anything."""
    rules = (
        (not name, "must have a name"),
        (name.startswith("/") or _DRIVE.match(name), "names must be relative"),
        (".." in name.split("/"), "names must not contain '..'"),
        (fault := fault_of_member(info), fault),
        (
            info.file_size > LARGEST_FILE,
            f"must unpack to at most {LARGEST_FILE:,} bytes, but has {info.file_size:,}",
        ),
    )
    return next((rule for broken, rule in rules if broken), None)


def fault_of_member(info: zipfile.ZipInfo) -> str | None:
    """Why a member of an archive cannot be read as a plain file, whatever its name; None where it can."""
    rules = (
        (stat.S_ISLNK(info.external_attr >> 16), "must be a file, but is a link"),
        (info.flag_bits & _ENCRYPTED, "must not be encrypted"),
        (info.compress_type not in _METHODS, f"must be stored or deflated, not method {info.compress_type}"),
    )
    return next((rule for broken, rule in rules if broken), None)
