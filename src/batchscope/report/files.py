"""Files that are replaced as a whole or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from batchscope.errors import ReportError

__all__ = ["replace_file"]


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file so that a reader finds the old content or the new, never a part.

    The content goes to a temporary file in the same folder, which then takes the name.

    Raises:
        ReportError: The folder cannot be made or written to, or there is no room.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise ReportError(
            f"{path} must be writable, but: {error.strerror or error}; choose another folder or make room"
        ) from error
