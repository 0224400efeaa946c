"""One attempt after another at hostile input: what may come of it, and what may not happen meanwhile."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, settings

from batchscope.errors import BatchscopeError

__all__ = ["FUZZED", "LONG", "Attempts"]

T = TypeVar("T")

EXAMPLES = int(os.environ.get("BATCHSCOPE_FUZZ_EXAMPLES", "0"))
LONG = EXAMPLES > 0
"""Whether this is `make fuzz`: many examples, other ones each time."""
SECONDS = 2.0 if LONG else 30.0
"""Processor time that one input may take: a load on the machine does not count."""

FUZZED = settings(
    max_examples=EXAMPLES or 100,
    derandomize=not LONG,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = (
    *("os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate"),
    *("shutil.copyfile", "shutil.move", "shutil.rmtree"),
)
_FORBIDDEN = (
    *("os.exec", "os.fork", "os.posix_spawn", "os.system", "pickle.find_class", "subprocess.Popen"),
    *("socket.connect", "socket.getaddrinfo"),
)


class Attempts:
    """Tries inputs of one kind and counts what came of them.

    Attributes:
        tried: Inputs so far.
        accepted: Those that were read.
        refused: Those that were refused by a `BatchscopeError`.
    """

    def __init__(self) -> None:
        self.tried = self.accepted = self.refused = 0

    def __call__(self, action: Callable[[], T], folder: Path, *names: str) -> T | None:
        """What the action makes of its input; None where it refuses it as it should.

        Args:
            action: Reads the input.
            folder: Nothing may be written outside it.
            names: A refusal must name one of these.
        """
        self.tried += 1
        result, message = None, ""
        with _confined(folder), _limited():
            try:
                result = action()
            except BatchscopeError as error:
                message = str(error) or f"{type(error).__name__} that says nothing"
        if message:
            assert any(name in message for name in names), f"none of {names} is in {message!r}"
            self.refused += 1
            return None
        self.accepted += 1
        return result


@contextmanager
def _limited() -> Iterator[None]:
    """Ends what takes too long; it is the processor's time that counts, so a busy machine does no harm."""

    def end(*_: object) -> None:
        raise AssertionError(f"took more than {SECONDS:g} s")

    gc.disable()  # what hypothesis left behind takes seconds to collect, which are none of the input's
    before, start = signal.signal(signal.SIGPROF, end), time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        gc.enable()
    taken = time.process_time() - start  # for code that swallows every error
    assert taken < SECONDS, f"took {taken:.1f} s"


_watched: list[str] = []
_seen: list[str] = []


def _watch(event: str, values: tuple[object, ...]) -> None:
    """Writes down what an attempt does to files outside its folder, and what it must never do."""
    if not _watched:
        return
    if event in _FORBIDDEN:
        _seen.append(f"{event} {values}")
    elif (event == "open" and isinstance(values[2], int) and values[2] & _WRITING) or event in _CHANGES:
        paths = values[:2] if event in ("os.link", "os.rename", "os.symlink") else values[:1]
        outside = [
            path for path in paths if isinstance(path, str | bytes | os.PathLike) and not _inside(path)
        ]
        _seen.extend(f"{event} {path!r}" for path in outside)


def _inside(path: str | bytes | os.PathLike[str]) -> bool:
    return os.path.abspath(os.fsdecode(path)).startswith(_watched[0])  # noqa: PTH100


sys.addaudithook(_watch)


@contextmanager
def _confined(folder: Path) -> Iterator[None]:
    """Nothing may be written outside a folder, unpickled, started or fetched."""
    compiled, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    _seen.clear()
    _watched.append(f"{folder}{os.sep}")
    try:
        yield
    finally:
        _watched.clear()
        sys.dont_write_bytecode = compiled
    assert not _seen, _seen
