"""Too little memory, told with its remedy whichever library found it out."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from batchscope.errors import TrainingError

__all__ = ["shortage_of", "shortage_told"]

# Python's and NumPy's, TensorFlow's, and PyTorch's; by name, since a backend need not be installed.
_SHORTAGES = frozenset({"MemoryError", "ResourceExhaustedError", "OutOfMemoryError"})
# How JAX, and PyTorch on a CPU, begin or word an error that is of a wider kind.
_WORDS = ("RESOURCE_EXHAUSTED", "can't allocate memory")

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of terminals, in which TensorFlow writes


@contextmanager
def shortage_told(what: str) -> Iterator[None]:
    """Tells what to do where memory runs out; every other error passes as it is.

    Simplified: a system that ends the process instead, as Linux may, leaves nobody to tell.

    Args:
        what: Names what is done, to begin a sentence.

    Raises:
        TrainingError: Python, NumPy or the backend could not have the memory that it asked for.
    """
    try:
        yield
    except Exception as error:
        told = shortage_of(error)
        if told is None:
            raise
        raise TrainingError(
            f"{what} needs more memory than this process may have ({told}); run fewer workers "
            "at a time (--workers 1), give more memory, or take smaller batches; the same command tries again"
        ) from error


def shortage_of(error: Exception) -> str | None:
    """The line by which an error says that memory ran out; None of any other error."""
    return _telling_line(error) if _is_shortage(error) else None


def _is_shortage(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & _SHORTAGES) or any(words in str(error) for words in _WORDS)


def _telling_line(error: Exception) -> str:
    """The line that says what could not be had, where there is one; TensorFlow's comes late."""
    plain = _COLOURS.sub("", str(error))
    lines = [line.strip() for line in plain.splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if "alloc" in line), lines[0])
