"""What a network is fed: images as they are, or ready features of those layers that stay as they are."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from batchscope.training.inputs import Feed

__all__ = ["Batches", "ImageSource", "PrefixedSource", "ReadySource", "Source"]

# Activations of so many images stay in the processor's caches where those of hundreds would not.
_IMAGES_AT_A_TIME = 32

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


class Source(Protocol):
    """Examples in a fixed order, each found by its position."""

    def __len__(self) -> int:
        """Number of examples."""

    def take(self, positions: Rows) -> tuple[Floats, Floats]:
        """Inputs of the network, shape (k, ...), and labels, float32, shape (k, 1)."""


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Images, enlarged, augmented and scaled when they are asked for; or rows of a table, scaled.

    Attributes:
        feed: Source of the images.
        rows: Rows of `feed`, in the order of positions; shape (n,).
        views: One transform each, shape (n, 8); None to show them as they are.
    """

    feed: Feed
    rows: Rows
    views: Floats | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def fingerprint(self) -> str:
        """SHA-256 of what is shown of the feed, and how."""
        digest = hashlib.sha256(np.ascontiguousarray(self.rows).tobytes())
        if self.views is not None:
            digest.update(np.ascontiguousarray(self.views).tobytes())
        return digest.hexdigest()

    def take(self, positions: Rows) -> tuple[Floats, Floats]:
        """Examples as the network sees them and their labels."""
        views = None if self.views is None else self.views[positions]
        return self.feed.batch(self.rows[positions], views)


@dataclass(frozen=True, eq=False)
class PrefixedSource:
    """Features, computed whenever they are asked for.

    Attributes:
        images: What they are computed from.
        prefix: The layers that stay as they are, as a function of images.
    """

    images: ImageSource
    prefix: Callable[[Floats], Floats]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, positions: Rows) -> tuple[Floats, Floats]:
        """Features and labels; a few images at a time, which are far larger than their features."""
        features, labels = [], []
        for at in range(0, len(positions), _IMAGES_AT_A_TIME):
            images, told = self.images.take(positions[at : at + _IMAGES_AT_A_TIME])
            features.append(self.prefix(images))
            labels.append(told)
        return np.concatenate(features), np.concatenate(labels)


@dataclass(frozen=True, eq=False)
class ReadySource:
    """Features that were computed before.

    Attributes:
        features: Shape (n, ...); may be memory-mapped.
        labels: int64, shape (n,).
    """

    features: Floats
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Rows) -> tuple[Floats, Floats]:
        """Features and labels."""
        return np.asarray(self.features[positions]), self.labels[positions].astype(np.float32)[:, None]


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras is untyped
    """One pass over a source in a given order, in batches, for Keras' own loops.

    Args:
        source: The examples.
        order: Their positions in the order of presentation; shape (n,).
        batch_size: Examples a batch; the last batch holds what is left.
    """

    def __init__(self, source: Source, order: Rows, batch_size: int) -> None:
        super().__init__()
        self._source, self._order, self._batch_size = source, order, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self._order) / self._batch_size)

    def __getitem__(self, index: int) -> tuple[Floats, Floats]:
        start = index * self._batch_size
        return self._source.take(self._order[start : start + self._batch_size])
