"""How findings are put into words: rules from numbers to phrases, and nothing canned.

Accuracies and losses are written with three decimals. A difference below `TOLERANCE` is not
called a rise or a fall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from batchscope.analysis.words import minus

__all__ = [
    "TOLERANCE",
    "Direction",
    "Level",
    "direction",
    "direction_phrase",
    "figure_text",
    "level_sentence",
]

Direction = Literal["single", "flat", "uneven", "rises", "falls"]

TOLERANCE = 0.005
"""Half a point of accuracy."""


@dataclass(frozen=True)
class Level:
    """A figure of one batch size.

    Attributes:
        batch_size: Examples per update.
        value: The figure, never NaN.
    """

    batch_size: int
    value: float


def figure_text(value: float) -> str:
    """An accuracy, loss or gap as text: three decimals, a true minus sign, never ``-0.000``."""
    return minus(f"{value:.3f}")


def direction(levels: Sequence[Level], tolerance: float = TOLERANCE) -> Direction:
    """How a figure goes with batch size.

    The rules, in order. ``single``: one batch size. ``flat``: all within `tolerance` of each
    other. ``uneven``: the highest or the lowest value is beyond both ends by more than
    `tolerance`. ``rises`` or ``falls``: from the smallest batch size to the largest.

    Args:
        levels: By increasing batch size, at least one.
        tolerance: In the figure's own unit.
    """
    values = [level.value for level in levels]
    ends = values[0], values[-1]
    if len(values) == 1:
        return "single"
    if max(values) - min(values) < tolerance:
        return "flat"
    if max(values) - max(ends) > tolerance or min(ends) - min(values) > tolerance:
        return "uneven"
    return "rises" if ends[1] > ends[0] else "falls"


def level_sentence(name: str, levels: Sequence[Level], when: str, tolerance: float = TOLERANCE) -> str:
    """Says how a figure goes with batch size, by the rules of `direction`.

    Args:
        name: What the figure is, to open the sentence, for example ``Mean validation accuracy``.
        levels: By increasing batch size, at least one.
        when: Closes the sentence, for example ``(epoch 20)``; may be empty.
        tolerance: In the figure's own unit.
    """
    first, last = levels[0], levels[-1]
    low, high = _extremes(levels)
    way = direction(levels, tolerance)
    if way == "single":
        text = f"is {figure_text(first.value)} at batch {first.batch_size}"
    elif way == "flat":
        text = f"hardly depends on batch size: {figure_text(low.value)} to {figure_text(high.value)}"
    elif way == "uneven":
        text = (
            f"is highest at batch {high.batch_size} ({figure_text(high.value)}) "
            f"and lowest at batch {low.batch_size} ({figure_text(low.value)})"
        )
    else:
        text = (
            f"{way} from {figure_text(first.value)} at batch {first.batch_size} "
            f"to {figure_text(last.value)} at batch {last.batch_size}"
        )
    return f"{name} {text} {when}".rstrip()


def direction_phrase(levels: Sequence[Level], tolerance: float = TOLERANCE) -> tuple[str, str]:
    """A verb phrase by the rules of `direction`, and the figures that go with it.

    For example ``("falls with batch size", "0.980 to 0.736")``.
    """
    first, last = levels[0], levels[-1]
    low, high = _extremes(levels)
    way = direction(levels, tolerance)
    if way == "single":
        return f"at batch {first.batch_size} stands", figure_text(first.value)
    if way == "flat":
        return "hardly depends on batch size", f"{figure_text(low.value)} to {figure_text(high.value)}"
    if way == "uneven":
        return (
            f"is highest at batch {high.batch_size} and lowest at batch {low.batch_size}",
            f"{figure_text(high.value)} and {figure_text(low.value)}",
        )
    return f"{way} with batch size", f"{figure_text(first.value)} to {figure_text(last.value)}"


def _extremes(levels: Sequence[Level]) -> tuple[Level, Level]:
    return min(levels, key=lambda level: level.value), max(levels, key=lambda level: level.value)
