"""Signals that ask a run to end: how they end it, and what is said then."""

from __future__ import annotations

import math
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from batchscope.errors import RunFolderError

__all__ = ["ASK_TO_END", "Stopped", "held", "named", "resumable", "stoppable"]

ASK_TO_END = tuple(
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in signal.Signals.__members__
)
"""The signals that ask a program to end, of those that the system has."""
_ENDING_SECONDS = 15.0  # what ending the workers may take at most


class Stopped(KeyboardInterrupt):
    """A signal asked the program to end.

    Args:
        asked: The signal.
    """

    def __init__(self, asked: signal.Signals) -> None:
        super().__init__(asked.name)
        self.asked = asked

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells have it."""
        return 128 + self.asked


class _Hold:
    """How many blocks put off `Stopped`, the signal that waits for them, and what was raised at once."""

    depth = 0
    waiting: signal.Signals | None = None
    raised: Stopped | None = None


@contextmanager
def held() -> Iterator[None]:
    """Puts off `Stopped` to the end of the block, so that nothing that is begun in it is lost sight of.

    Simplified: a KeyboardInterrupt outside `stoppable`, as in a notebook, is not put off.
    """
    _Hold.depth += 1
    try:
        yield
    finally:
        _Hold.depth -= 1
        waiting = _Hold.waiting
        if waiting is not None and _Hold.depth == 0:
            _Hold.waiting = None
            raise Stopped(waiting)


@contextmanager
def named() -> Iterator[None]:
    """Raises the `Stopped` in whose place a library raises a KeyboardInterrupt that names no signal.

    Ray's does where it waits.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if isinstance(interrupt, Stopped) or _Hold.raised is None:
            raise
        raise _Hold.raised from interrupt


@contextmanager
def stoppable() -> Iterator[None]:
    """Makes signals that ask to end raise `Stopped` in the main thread.

    They are Ctrl-C (SIGINT), SIGTERM, and SIGHUP for a terminal that is gone. One that the program was
    started to ignore, as by nohup, it goes on ignoring. Those that follow while the program is ending
    are ignored, for `_ENDING_SECONDS`; once `Stopped` has left the block, all are.
    """
    last = -math.inf
    _Hold.waiting = _Hold.raised = None

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal last
        if time.monotonic() - last > _ENDING_SECONDS:
            last = time.monotonic()
            if _Hold.depth:
                _Hold.waiting = signal.Signals(number)
                return
            _Hold.raised = Stopped(signal.Signals(number))
            raise _Hold.raised

    heeded = [number for number in ASK_TO_END if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heeded}
    try:
        yield
    except Stopped:
        before = dict.fromkeys(heeded, signal.SIG_IGN)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Notes with an interruption, from Ctrl-C on, what is stored and how to go on.

    Args:
        folder: The run's.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(_how_to_go_on(folder))
        raise


def _how_to_go_on(folder: Path) -> str:
    # Not before: they bring pandas, and signals are to be heeded while that is imported.
    from batchscope.running.folder import RunFolder
    from batchscope.running.store import Store

    database = RunFolder(folder).database
    try:
        epochs = 0
        if database.exists():
            with Store(database) as store:
                epochs = sum(status.epochs for status in store.trials())
    except RunFolderError as error:
        return f"What is stored could not be looked at ({error})."
    if epochs == 0:
        return "No epoch is stored yet; the same command begins again."
    return (
        f"{epochs} epoch{' is' if epochs == 1 else 's are'} stored; the same command goes on from there. "
        f"The page of what is there so far: batchscope report {shlex.quote(str(folder))}"
    )
