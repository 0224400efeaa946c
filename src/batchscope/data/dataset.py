"""Labelled examples in memory, as every source of data delivers them."""

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
    """Labelled examples: images, decoded once, or rows of features.

    Attributes:
        inputs: Images, uint8 of shape (n, height, width, 3) in red, green and blue, or
            (n, height, width, 1) in grey; or features, float32 of shape (n, features).
        labels: Index into `classes`, int64 of shape (n,).
        ids: One name per example, in the order of the examples.
        classes: Names of the classes; ``("0", "1")`` for tables of zeros and ones, otherwise sorted.
        source: Where the examples came from.
        skipped: Images left out because they cannot be used.

    Raises:
        DataError: The shapes or types contradict this description.
    """

    inputs: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.int64]
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    source: str
    skipped: tuple[BadImage, ...]

    def __post_init__(self) -> None:
        count = len(self.ids)
        kinds = (self.inputs.dtype, self.labels.dtype)
        described = (_is_images(self.inputs) or _is_features(self.inputs)) and kinds[1] == np.int64
        if not described or len(self.inputs) != count or self.labels.shape != (count,):
            raise DataError(
                "a dataset has inputs uint8 (n, height, width, 3 or 1) or float32 (n, features), labels "
                f"int64 (n,) and n ids, but got inputs {kinds[0]} {self.inputs.shape}, labels {kinds[1]} "
                f"{self.labels.shape}, {count} ids"
            )
        if count and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise DataError(
                f"labels must be between 0 and {len(self.classes) - 1}, but got "
                f"{self.labels.min()} to {self.labels.max()}"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def fingerprint(self) -> str:
        """Identifies the content: SHA-256, in hexadecimal, over inputs, labels, ids and classes.

        The source and what was skipped do not count, so the same images in a folder and in an
        archive have the same fingerprint.
        """
        described = json.dumps([self.inputs.shape, self.ids, self.classes]).encode()
        digest = hashlib.sha256(described)
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").data)
        digest.update(np.ascontiguousarray(self.inputs).data)
        return digest.hexdigest()


def _is_images(inputs: NDArray[np.uint8] | NDArray[np.float32]) -> bool:
    return inputs.dtype == np.uint8 and inputs.ndim == 4 and inputs.shape[3] in (1, 3)


def _is_features(inputs: NDArray[np.uint8] | NDArray[np.float32]) -> bool:
    return inputs.dtype == np.float32 and inputs.ndim == 2 and inputs.shape[1] > 0
