"""Stored images turned into what the network is fed: enlarged, augmented, scaled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchscope.data import resize
from batchscope.spec import ModelSpec
from batchscope.training.augment import apply_views
from batchscope.training.network import scaler

__all__ = ["ImageFeed"]


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
