"""Labelled images in memory, as every source of data delivers them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchscope.errors import DataError

__all__ = ["BadImage", "Dataset"]


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be used.

    Attributes:
        id: As in the table, or as found in the folder or archive.
        reason: The rule that it breaks, with the value.
    """

    id: str
    reason: str


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images, decoded once.

    Attributes:
        images: Red, green and blue bytes, uint8 of shape (n, height, width, 3).
        labels: Index into `classes`, int64 of shape (n,).
        ids: One name per image, in the order of the images.
        classes: Names of the classes; ``("0", "1")`` for tables of zeros and ones, otherwise sorted.
        source: Where the images came from.
        skipped: Images left out because they cannot be used.

    Raises:
        DataError: The shapes or types contradict this description.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    source: str
    skipped: tuple[BadImage, ...]

    def __post_init__(self) -> None:
        count = len(self.ids)
        shapes = (self.images.shape[:1], self.images.shape[3:], self.labels.shape)
        kinds = (self.images.dtype, self.labels.dtype)
        if shapes != ((count,), (3,), (count,)) or kinds != (np.dtype(np.uint8), np.dtype(np.int64)):
            raise DataError(
                "a dataset has images uint8 (n, height, width, 3), labels int64 (n,) and n ids, but got "
                f"images {kinds[0]} {self.images.shape}, labels {kinds[1]} {self.labels.shape}, {count} ids"
            )
        if count and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise DataError(
                f"labels must be between 0 and {len(self.classes) - 1}, but got "
                f"{self.labels.min()} to {self.labels.max()}"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def fingerprint(self) -> str:
        """Identifies the content: SHA-256, in hexadecimal, over images, labels, ids and classes.

        The source and what was skipped do not count, so the same images in a folder and in an
        archive have the same fingerprint.
        """
        described = json.dumps([self.images.shape, self.ids, self.classes]).encode()
        digest = hashlib.sha256(described)
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").data)
        digest.update(np.ascontiguousarray(self.images).data)
        return digest.hexdigest()
