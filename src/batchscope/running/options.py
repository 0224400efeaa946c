"""How a run uses the machine; nothing here is part of the study."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ByteSize, TypeAdapter, ValidationError

from batchscope.errors import Problem, StudyError

__all__ = ["RunOptions", "parse_size"]


@dataclass(frozen=True)
class RunOptions:
    """How a run uses the machine.

    Attributes:
        workers: Trials at a time; None lets the run choose.
        cache_limit: Bytes that ready features may take up on disk.

    Raises:
        StudyError: There is to be no worker.
    """

    workers: int | None = None
    cache_limit: int = 8_000_000_000

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise StudyError("run", [Problem("workers", "must be at least 1", str(self.workers))])


def parse_size(size: int | str, key: str = "cache_limit") -> int:
    """Bytes from a number of them, or from a text such as ``8GB`` (10^9) or ``8GiB`` (2^30).

    Args:
        size: As given.
        key: Names it in the message.

    Raises:
        StudyError: It is no size.
    """
    try:
        return int(TypeAdapter(ByteSize).validate_python(size))
    except ValidationError as error:
        rule = "must be a number of bytes, or a size such as 500MB, 8GB or 8GiB"
        raise StudyError("run", [Problem(key, rule, repr(size))]) from error
