"""Files of a report, replaced as a whole or not at all."""

from __future__ import annotations

from pathlib import Path

from batchscope.errors import ReportError
from batchscope.replacing import replacing

__all__ = ["replace_file"]


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file so that a reader finds the old content or the new, never a part.

    Raises:
        ReportError: The folder cannot be made or written to, or there is no room.
    """
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise ReportError(
            f"{path} must be writable, but: {error.strerror or error}; choose another folder or make room"
        ) from error
