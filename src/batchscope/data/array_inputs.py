"""Arrays that somebody brings, checked and turned into what a dataset holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchscope.data.parts import Arrays, classes_of_numbers, counted_ids
from batchscope.data.word_classes import classes_of_words
from batchscope.errors import DataError

__all__ = ["SMALLEST_SIDE", "as_features", "checked_arrays"]

SMALLEST_SIDE = 4
"""Pixels; as for image files."""


def checked_arrays(source: str, part: str, inputs: NDArray[Any], labels: NDArray[Any]) -> Arrays:
    """Inputs and labels as a dataset holds them.

    Args:
        source: Names the file in messages.
        part: Names the part in messages.
        inputs: Images, uint8 of shape (n, height, width) or (n, height, width, 1 or 3); or
            features, numbers of shape (n, features).
        labels: Whole numbers or words of shape (n,) or (n, 1).

    Returns:
        Images stay as they are; features become float32.

    Raises:
        DataError: Names the rule, what there is, and how to put it right.
    """
    where = f"{source}: the {part} part"
    found = _inputs(where, inputs)
    indices, classes = _labels(where, labels)
    if len(found) != len(indices):
        raise DataError(
            f"{where}: each example needs a label, but there are {len(found):,} and {len(indices):,} labels"
        )
    return Arrays(found, indices, counted_ids(len(found)), classes)


def as_features(
    where: str, numbers: NDArray[Any], names: tuple[str, ...] = (), first_row: int = 0
) -> NDArray[np.float32]:
    """Numbers as float32.

    Args:
        where: Names them in messages.
        numbers: Of shape (n, features).
        names: Of the columns; empty where they have none.
        first_row: The number that messages give the first row.

    Raises:
        DataError: One is missing, infinite or beyond float32; its row and column are named.
    """
    with np.errstate(over="ignore"):
        features = numbers.astype(np.float32)
    wrong = ~np.isfinite(features)
    if wrong.any():
        row, column = (int(place) for place in np.argwhere(wrong)[0])
        name = repr(names[column]) if names else str(column)
        raise DataError(
            f"{where}: features must be finite numbers within float32, but {int(wrong.sum()):,} are not: "
            f"the first is {numbers[row, column]} in row {row + first_row} of column {name}; fill them in or "
            "leave them out"
        )
    return features


def _inputs(where: str, inputs: NDArray[Any]) -> NDArray[np.uint8] | NDArray[np.float32]:
    if inputs.ndim == 2 and inputs.shape[1] > 0 and inputs.dtype.kind in "biuf":
        return as_features(where, inputs)
    if inputs.ndim == 3:
        inputs = inputs[:, :, :, None]
    rule = (
        f"{where}: inputs must be images, uint8 (n, height, width) or (n, height, width, 1 or 3), or "
        f"features, numbers (n, features), but are {inputs.dtype} {inputs.shape}"
    )
    if inputs.ndim != 4:
        raise DataError(rule)
    if inputs.dtype != np.uint8:
        raise DataError(f"{rule}; bring images to 0..255 and write them with astype('uint8')")
    if inputs.shape[3] not in (1, 3):
        turned = "; put the colours last, as in x.transpose(0, 2, 3, 1)" if inputs.shape[1] in (1, 3) else ""
        raise DataError(f"{rule}{turned}")
    if min(inputs.shape[1:3]) < SMALLEST_SIDE:
        raise DataError(f"{rule}; sides must be at least {SMALLEST_SIDE} px")
    return np.ascontiguousarray(inputs)


def _labels(where: str, labels: NDArray[Any]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "biuU":
        remedy = "; of one column for each class keep y.argmax(axis=1)" if labels.ndim == 2 else ""
        raise DataError(
            f"{where}: labels must be whole numbers or words of shape (n,), but are {labels.dtype} "
            f"{labels.shape}{remedy}"
        )
    if labels.dtype.kind == "U":
        return classes_of_words(where, [str(word) for word in labels], first_row=0)
    return classes_of_numbers(where, labels)
