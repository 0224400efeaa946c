"""What a tool that shows runs is asked to do."""

from __future__ import annotations

from typing import Protocol

from batchscope.export.content import RunContent
from batchscope.running.folder import RunFolder

__all__ = ["Tracker"]


class Tracker(Protocol):
    """Keeps what another tool shows of one run up to date."""

    @property
    def tool(self) -> str:
        """The tool's name, as ``--to`` and ``--track`` have it."""

    @property
    def place(self) -> str:
        """Where the tool keeps the run, secrets masked."""

    def update(self, run: RunContent) -> None:
        """Adds what the tool does not have yet of a run; what it has is not added again.

        Raises:
            ExportError: The tool cannot be reached or refuses it.
        """

    def conclude(self, run: RunContent, folder: RunFolder) -> None:
        """Adds page, history and analysis, where the tool keeps files; called after an update.

        Raises:
            BatchscopeError: The tool cannot be reached or refuses them, or they cannot be made.
        """
