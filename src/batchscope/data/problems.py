"""What is wrong with images and tables, told in one form: how many, and the first ten by name."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from batchscope.data.dataset import BadImage

__all__ = ["UnusableImageError", "first_ten", "tell_bad_images", "tell_problems", "why_unreadable"]

_SHOWN = 10
_FORBIDDEN = (errno.EACCES, errno.EPERM)


class UnusableImageError(Exception):
    """One image cannot be used; the message is the `BadImage.reason`. Does not leave this package."""


def first_ten(names: Sequence[str], *, between: str = ", ") -> str:
    """Names at most ten, and says how many more there are.

    Names come from files that anybody may have made. What does not print in them, such as line ends
    and commands to the terminal, is written as an escape.
    """
    more = len(names) - _SHOWN
    shown = [_legible(name) for name in names[:_SHOWN]]
    return between.join([*shown, f"and {more:,} more"] if more > 0 else shown)


def tell_problems(source: str, problems: Sequence[str]) -> str:
    """One line that counts the problems, and one for each."""
    count = len(problems)
    return "\n  ".join([f"{source}: {count} problem{'' if count == 1 else 's'}", *problems])


def tell_bad_images(bad: Sequence[BadImage]) -> str:
    """One line that counts the bad images, and one for each of the first ten."""
    head = (
        f"{len(bad):,} image{'' if len(bad) == 1 else 's'} cannot be used; mend or remove them, or leave "
        "them out with --skip-bad-images (skip_bad_images = true under [data]):"
    )
    lines = [f"{image.id}: {image.reason}" for image in bad]
    return f"{head}\n    {first_ten(lines, between=chr(10) + '    ')}"


def why_unreadable(error: OSError) -> str:
    """What the system says against reading, and what helps where rights are missing."""
    remedy = "; give yourself the right to read it" if error.errno in _FORBIDDEN else ""
    return f"cannot be read: {error.strerror or error}{remedy}"


def _legible(text: str) -> str:
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )
