"""What a trial is fed: batches of scaled images in a seeded order, augmented or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from batchscope.data import resize
from batchscope.spec import ModelSpec
from batchscope.training.augment import apply_views
from batchscope.training.network import scaler

__all__ = ["Batches", "ImageFeed"]


@dataclass(frozen=True, eq=False)
class ImageFeed:
    """Turns stored images into what the network is fed.

    Attributes:
        images: All images of the study, uint8, shape (n, height, width, 3); may be memory-mapped.
        labels: int64, shape (n,).
        model: Gives size, interpolation and scaling.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    model: ModelSpec

    def batch(
        self, rows: NDArray[np.int64], views: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Images and labels of some rows.

        Args:
            rows: Which images, in this order; shape (b,).
            views: Their transforms, shape (b, 8), or None to show them as they are.

        Returns:
            Images, float32, shape (b, size, size, 3), scaled; labels, float32, shape (b, 1).
        """
        raw = np.asarray(self.images[rows])
        enlarged = resize(raw, self.model.image_size, self.model.interpolation).astype(np.float32)
        if views is not None:
            enlarged = apply_views(enlarged, views)
        return self._scale(enlarged), self.labels[rows].astype(np.float32)[:, None]

    @property
    def _scale(self) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        return scaler(self.model)


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras is untyped
    """One pass over rows in a given order, in batches.

    Args:
        feed: Source of the images.
        rows: Rows of `feed` in the order of presentation; shape (n,).
        views: One transform for each row in the same order, shape (n, 8), or None.
        batch_size: Examples a batch; the last batch holds what is left.
    """

    def __init__(
        self,
        feed: ImageFeed,
        rows: NDArray[np.int64],
        views: NDArray[np.float32] | None,
        batch_size: int,
    ) -> None:
        super().__init__()
        self._feed, self._rows, self._views = feed, rows, views
        self._bounds = [
            (start, min(start + batch_size, len(rows))) for start in range(0, len(rows), batch_size)
        ]

    def __len__(self) -> int:
        return len(self._bounds)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        start, end = self._bounds[index]
        views = None if self._views is None else self._views[start:end]
        return self._feed.batch(self._rows[start:end], views)

    @property
    def examples(self) -> int:
        """Images presented in one pass."""
        return self._bounds[-1][1] if self._bounds else 0

    def examples_after(self, index: int) -> int:
        """Images presented once the batch of this index is done."""
        return self._bounds[index][1]
