"""Files that are replaced as a whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["replacing"]


@contextmanager
def replacing(path: Path, partial: Path | None = None) -> Iterator[BinaryIO]:
    """Writes a file so that a reader finds the old content or the new, never a part, also after a power cut.

    Args:
        path: Takes the content when the block has ended well; its folder is made.
        partial: Where the content is meanwhile, in the same folder. Where one process alone writes
            `path`, a fixed name is used again after a kill and leaves nothing behind; None gives
            each writer a name of its own.

    Yields:
        The file to write to.

    Raises:
        OSError: There is no room, or no right to write; the old content is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if partial is None:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        file, place = os.fdopen(handle, "wb"), Path(name)
    else:
        file, place = partial.open("wb"), partial
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if partial is None:
            place.chmod(0o644)  # such files are made for their owner alone
        place.replace(path)
    except BaseException:
        with suppress(OSError):
            place.unlink()
        raise
