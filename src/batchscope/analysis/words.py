"""Sentences that carry their figures, and how figures are written in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = [
    "MOST_LISTED",
    "Figure",
    "Sentence",
    "batch_sizes",
    "count",
    "interval",
    "listed",
    "minus",
    "number",
    "of_quantity",
    "p_value",
    "percent",
    "quantity_name",
    "some",
    "target_text",
]

# Longer lists are cut, so that a sentence stays one.
MOST_LISTED = 5
# Batch sizes are short and in order, so a few more of them can be read.
_MOST_BATCH_SIZES = 8

Figure = float | int | str | None


@dataclass(frozen=True)
class Sentence:
    """Something said in words, with the rule that said it and its figures.

    Attributes:
        rule: Stable snake_case name of the rule that drew the sentence.
        text: For a practitioner, figures rounded.
        figures: (name, value) pairs that it rests on, unrounded.
    """

    rule: str
    text: str
    figures: tuple[tuple[str, Figure], ...] = ()


_NAMES = {
    "train_accuracy": "training accuracy",
    "train_loss": "training loss",
    "val_accuracy": "validation accuracy",
    "val_loss": "validation loss",
    "gap": "observed gap",
    "selection_accuracy": "selection accuracy",
    "selection_loss": "selection loss",
}


def quantity_name(quantity: str) -> str:
    """For example ``validation accuracy`` for ``val_accuracy``."""
    return _NAMES[quantity]


def target_text(metric: str, value: float) -> str:
    """For example ``a validation accuracy of 0.850``."""
    return f"a {quantity_name(metric)} of {number(value)}"


def minus(figure: str) -> str:
    """A written figure with a true minus sign, and none before a zero."""
    if not any(digit in figure for digit in "123456789"):
        figure = figure.removeprefix("-")
    return figure.replace("-", "\u2212")


def number(value: float, digits: int = 3) -> str:
    """Fixed digits; two significant ones where those would show only zeros."""
    if not math.isfinite(value):
        return "unknown"
    text = f"{value:.{digits}f}"
    return minus(f"{value:.2g}" if value != 0 and float(text) == 0 else text)


def of_quantity(value: float) -> str:
    """A whole number with separators if it is large, otherwise three significant digits."""
    return minus(f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}")


def percent(share: float) -> str:
    """A share as a whole percentage."""
    return minus(f"{100 * share:.0f}%")


def interval(low: float, high: float, confidence: float, form: str = "number") -> str:
    """For example ``95% interval 0.161 to 0.328``."""
    write = percent if form == "percent" else number
    return f"{percent(confidence)} interval {write(low)} to {write(high)}"


def p_value(p: float) -> str:
    """For example ``p = 0.016``; below 0.001 as ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def listed(items: Iterable[object]) -> str:
    """For example ``16, 32 and 64``."""
    texts = [str(item) for item in items]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def batch_sizes(sizes: Sequence[int]) -> str:
    """All of a few; of more than eight the ends and the number, ``8 to 96 (12 of them)``."""
    if len(sizes) <= _MOST_BATCH_SIZES:
        return listed(sizes)
    return f"{min(sizes)} to {max(sizes)} ({len(sizes)} of them)"


def some(items: Sequence[object]) -> str:
    """The first few of many, for example ``1, 2, 3, 4, 5 and 7 more``."""
    rest = len(items) - MOST_LISTED
    return listed(items if rest <= 0 else [*items[:MOST_LISTED], f"{rest} more"])


def count(n: int, noun: str) -> str:
    """For example ``1 replicate`` and ``3 replicates``."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
