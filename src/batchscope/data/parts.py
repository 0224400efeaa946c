"""What a source holds, part by part, before it becomes one dataset."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from batchscope.data.dataset import BadImage
from batchscope.data.listing import Listing
from batchscope.errors import DataError

__all__ = ["Arrays", "Parts", "classes_of_numbers", "counted_ids", "part_for_validation"]


@dataclass(frozen=True, eq=False)
class Arrays:
    """Labelled examples that come as arrays.

    Attributes:
        inputs: Images or features as in `Dataset.inputs`.
        labels: Index into `classes`, int64 of shape (n,).
        ids: One per example.
        classes: Names of the classes, as in `Dataset.classes`.
        features: Names of the columns of a table; empty where they have none.
    """

    inputs: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.int64]
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    features: tuple[str, ...] = ()

    def take(self, rows: NDArray[np.int64]) -> Arrays:
        """Some of the examples, in this order."""
        ids = tuple(self.ids[row] for row in rows)
        return replace(self, inputs=self.inputs[rows], labels=self.labels[rows], ids=ids)


@dataclass(frozen=True, eq=False)
class Parts:
    """What a source gives for training and, where it brings one, for validation.

    Attributes:
        training: Image files or arrays.
        validation: Likewise; None where the split is to be drawn.
        names: What the source calls the two parts.
        notes: What a reader must know of where they came from.
    """

    training: Listing | Arrays
    validation: Listing | Arrays | None = None
    names: tuple[str, str] = ("training", "validation")
    notes: tuple[str, ...] = ()

    @property
    def bad(self) -> tuple[BadImage, ...]:
        """Ids without a file and files without a label, of both parts."""
        if self.validation is None:
            return self.training.bad if isinstance(self.training, Listing) else ()
        return tuple(
            BadImage(f"{name}/{image.id}", image.reason)
            for name, part in zip(self.names, (self.training, self.validation), strict=True)
            if isinstance(part, Listing)
            for image in part.bad
        )

    def close(self) -> None:
        """Lets go of archives."""
        for part in (self.training, self.validation):
            if isinstance(part, Listing):
                part.files.close()


def part_for_validation(
    source: str, parts: Collection[str], another: str | None
) -> tuple[str | None, tuple[str, ...]]:
    """Which part of a source validates, beside ``training``.

    A test part is for the end of a project. It validates only where there is nothing else, and is
    left alone where there is.

    Args:
        source: Names the source in messages.
        parts: Which of ``validation`` and ``test`` the source has.
        another: The study's ``data.validation``, which takes the place of both.

    Returns:
        Its name, or None; and notes for the reader.

    Raises:
        DataError: There are two sets for validation.
    """
    if another is not None and "validation" in parts:
        raise DataError(
            f"{source}: brings its own validation part, so data.validation must be left out, but it is "
            f"{another}"
        )
    alone = f"The test part of {source} is left alone."
    if another is not None or "validation" in parts:
        return (None if another else "validation"), ((alone,) if "test" in parts else ())
    if "test" in parts:
        note = (
            f"{source} has no validation part of its own, so its test part is used for validation; keep "
            "other examples for a test after the choice of a batch size."
        )
        return "test", (note,)
    return None, ()


def classes_of_numbers(
    source: str, numbers: NDArray[np.integer] | NDArray[np.bool_]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels as indices into their classes, in ascending order of the numbers.

    Raises:
        DataError: There are fewer than two classes.
    """
    found, labels = np.unique(numbers, return_inverse=True)
    classes = tuple(str(int(number)) for number in found)
    if len(classes) < 2:
        raise DataError(
            f"{source}: there must be at least two classes, but got {classes[0] if classes else 'none'}"
        )
    return labels.astype(np.int64), classes


def counted_ids(count: int) -> tuple[str, ...]:
    """Ids for examples that bring none: their numbers, from 0 on, as arrays count."""
    return tuple(map(str, range(count)))
