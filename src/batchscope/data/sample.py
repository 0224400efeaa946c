"""A few examples that stand for a dataset where people look at it."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from batchscope.data.dataset import Dataset
from batchscope.data.split import Split

__all__ = ["encoded_png", "sample_rows"]

_SAMPLES = 24


def sample_rows(dataset: Dataset, split: Split) -> list[int]:
    """The first training examples of each class in turn, 24 in all; of many classes the first 24."""
    labels = dataset.labels[split.training]
    per_class = max(_SAMPLES // len(dataset.classes), 1)
    return [
        int(row)
        for label in range(min(len(dataset.classes), _SAMPLES))
        for row in split.training[labels == label][:per_class]
    ]


def encoded_png(image: NDArray[np.uint8]) -> bytes:
    """An image of shape (height, width, 3 or 1) as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()
