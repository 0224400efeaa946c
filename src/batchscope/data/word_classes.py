"""Labels that are written as text: whole numbers or words, as classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batchscope.data.label_table import MISSING, classes_of
from batchscope.data.problems import first_ten, tell_problems
from batchscope.errors import DataError

__all__ = ["classes_of_words"]

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")


def classes_of_words(
    source: str, words: Sequence[str], first_row: int
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels as indices into their classes.

    Whole numbers are classes in ascending order, words in the order of the alphabet. Unlike a table
    of images, whose labels are 0 and 1 or words, numbers beyond 1 are classes as well.

    Args:
        source: Names the data in messages.
        words: One per example; spaces around them do not count.
        first_row: The number that messages give the first of them.

    Raises:
        DataError: Labels are missing, are other numbers, or numbers beside words; there are fewer
            than two classes, or two that differ in nothing but case or how a number is written.
    """
    codes, kinds = pd.factorize(np.array([word.strip() for word in words], dtype=object))
    names = [str(name) for name in kinds]
    _check_kinds(source, names, codes, first_row)
    if names and _WHOLE.fullmatch(names[0]):
        _check_numbers(source, names)
        ordered = sorted(names, key=int)
    else:
        ordered = list(classes_of(Path(source), names))
    place = {name: index for index, name in enumerate(ordered)}
    return np.array([place[name] for name in names], dtype=np.int64)[codes], tuple(ordered)


def _check_kinds(source: str, names: list[str], codes: NDArray[np.intp], first_row: int) -> None:
    kinds = np.array([_kind(name) for name in names], dtype=object)
    rules = {
        "missing": "each example must have a label, but some have none",
        "other": "labels must be whole numbers or words, for each is a class, but some are other numbers",
    }
    if {"word", "whole"} <= set(kinds) or {"word", "other"} <= set(kinds):
        rules["word"] = "labels must be all whole numbers or all words, but some are words"
    problems = []
    for kind, rule in rules.items():
        rows = np.flatnonzero((kinds == kind)[codes])
        if len(rows):
            shown = [f"row {row + first_row}: {names[codes[row]]!r}" for row in rows]
            problems.append(f"{rule}: {first_ten(shown)}")
    if problems:
        raise DataError(tell_problems(source, problems))


def _kind(name: str) -> str:
    """``missing``, a ``whole`` number, an ``other`` number or a ``word``."""
    if name.casefold() in MISSING:
        return "missing"
    if _WHOLE.fullmatch(name):
        return "whole"
    try:
        float(name)
    except ValueError:
        return "word"
    return "other"


def _check_numbers(source: str, names: list[str]) -> None:
    written: dict[int, str] = {}
    for name in names:
        other = written.setdefault(int(name), name)
        if other != name:
            raise DataError(f"{source}: a class must be written in one way, but got {other!r}, {name!r}")
    if len(names) < 2:
        raise DataError(f"{source}: there must be at least two classes, but got {names[0]}")
