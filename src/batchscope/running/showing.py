"""Where the course of a run is shown when nobody says otherwise: terminal, notebook, or plain lines."""

from __future__ import annotations

import io
import sys
import time
from typing import Any

from rich.console import Console, RenderableType

from batchscope.running.progress import LinePrinter, LiveDisplay, Silent, Watcher

__all__ = ["NotebookDisplay", "usual_watcher"]

_WIDTH = 100
_REDRAWN_SECONDS = 0.25


def usual_watcher(*, quiet: bool) -> Watcher:
    """A display that renews itself in a terminal or a notebook, lines elsewhere, or nothing."""
    if quiet:
        return Silent()
    console = Console(force_jupyter=False)  # which would print each line as an output of its own
    if _in_notebook():
        return NotebookDisplay(console)
    return LiveDisplay(console) if console.is_terminal else LinePrinter(console)


class NotebookDisplay(LiveDisplay):
    """The display of a terminal as an output of a notebook's cell that renews itself.

    It takes no widgets, which not every notebook has.

    Args:
        console: Where to print what stays.
    """

    def _live_on(self, console: Console) -> _Output:  # noqa: ARG002  # the output is the notebook's
        return _Output(self._render())


class _Output:
    """Does what `rich.live.Live` does for a terminal."""

    def __init__(self, content: RenderableType) -> None:
        self._content = content
        self._handle: Any = None
        self._drawn = 0.0

    def __enter__(self) -> None:
        from IPython.display import display

        self._handle = display(_as_output(self._content), raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def update(self, content: RenderableType, *, refresh: bool = False) -> None:
        """Shows something else: at once, or a few times a second at most."""
        now = time.monotonic()
        if refresh or now - self._drawn >= _REDRAWN_SECONDS:
            self._drawn = now
            self._handle.update(_as_output(content), raw=True)

    def stop(self) -> None:
        """Leaves nothing but an empty output."""
        self._handle.update({"text/plain": ""}, raw=True)


def _as_output(content: RenderableType) -> dict[str, str]:
    text = io.StringIO()
    Console(file=text, width=_WIDTH, force_jupyter=False, color_system=None).print(content)
    return {"text/plain": text.getvalue().rstrip()}


def _in_notebook() -> bool:
    """Whether a notebook's kernel runs this; IPython in a terminal is none."""
    program = sys.modules.get("IPython")  # what is not imported does not run this
    shell = None if program is None else program.get_ipython()
    return shell is not None and hasattr(shell, "kernel")
