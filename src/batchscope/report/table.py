"""A table as page and terminal show it, and how its cells are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from batchscope.analysis.estimates import Estimate
from batchscope.analysis.words import number

__all__ = [
    "NOTHING",
    "Cell",
    "Table",
    "estimate_cell",
    "figure_cell",
    "lost",
    "range_text",
    "whole_cell",
]

NOTHING = "\u2013"


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: What is read.
        value: What is sorted by where it is a number; None sorts as text.
        detail: Stands below in small print, in lines: standard deviation, interval.
    """

    text: str
    value: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        key: Stable name.
        title: Heads it.
        note: What a reader must know to read it.
        columns: Their heads.
        rows: As many cells each as there are columns.
    """

    key: str
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers, which are set flush right."""
        return any(row[column].value is not None for row in self.rows)


def estimate_cell(found: Estimate | None) -> Cell:
    """A mean with standard deviation and interval."""
    if found is None or not math.isfinite(found.mean):
        return Cell(NOTHING)
    if not math.isfinite(found.sd):
        return Cell(number(found.mean), found.mean, "no interval from one replicate")
    return Cell(
        number(found.mean),
        found.mean,
        f"sd {number(found.sd)}\n{range_text(found.low, found.high)}",
    )


def lost(diverged: int, missing: int) -> str:
    """How many trials a figure lacks, and why."""
    parts: Sequence[tuple[int, str]] = ((diverged, "diverged"), (missing, "not there yet"))
    return ", ".join(f"{count} {word}" for count, word in parts if count)


def range_text(low: float, high: float) -> str:
    """An interval; empty where there is none."""
    return f"{number(low)} to {number(high)}" if math.isfinite(low) else ""


def whole_cell(value: int) -> Cell:
    """A count."""
    return Cell(f"{value:,}", float(value))


def figure_cell(value: float, write: Callable[[float], str]) -> Cell:
    """A figure as it is written; a dash where it is not finite."""
    return Cell(write(value), value) if math.isfinite(value) else Cell(NOTHING)
