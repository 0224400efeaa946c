"""A file to which a program writes its records, followed while it grows."""

from __future__ import annotations

from pathlib import Path

from batchscope.errors import TrainingError

__all__ = ["RecordsFile"]


class RecordsFile:
    """The lines of a file that another program writes, each once.

    Args:
        path: The file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._taken = b""

    def new_lines(self, *, complete: bool = False) -> tuple[bool, list[str]]:
        """Lines that came since the last call.

        Simplified: the file is read as a whole each time, for it has a line an epoch.

        Args:
            complete: Whether nobody writes any more, so that a last line without its end is one.

        Returns:
            Whether the program has begun the file again, and the lines that are not empty.

        Raises:
            TrainingError: It cannot be read.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise TrainingError(f"{self._path}: the records must be readable, but: {error}") from error
        begun_again = not content.startswith(self._taken)
        start = 0 if begun_again else len(self._taken)
        end = len(content) if complete else content.rfind(b"\n") + 1
        self._taken = content[: max(start, end)]
        lines = content[start:end].decode("utf-8", errors="replace").split("\n")
        return begun_again, [line for line in lines if line.strip()]
