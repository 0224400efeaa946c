"""Bringing images to the size that the network sees, exactly as Pillow does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from batchscope.errors import DataError

__all__ = ["FILTERS", "check_interpolation", "resize"]

FILTERS = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}
"""Pillow's filter for each `ModelSpec.interpolation`."""


def resize(images: NDArray[np.uint8], size: int, interpolation: str) -> NDArray[np.uint8]:
    """Enlarges or reduces images to a square; the aspect ratio is not kept.

    Gives the bytes that Pillow's ``Image.resize`` gives. Reducing with ``bilinear`` therefore
    averages over all the pixels that fall together (the filter grows with the factor).

    Args:
        images: Bytes, uint8 of shape (n, height, width, 3), or (n, height, width, 1) for grey.
        size: Height and width of the result in pixels.
        interpolation: ``nearest`` or ``bilinear``.

    Returns:
        Bytes, uint8 of shape (n, size, size, 3 or 1); `images` itself if it has that size already.

    Raises:
        DataError: The interpolation is another one.
    """
    check_interpolation(interpolation)
    height, width = images.shape[1:3]
    if height == width == size:
        return images
    if interpolation == "nearest":
        rows, columns = _nearest(height, size), _nearest(width, size)
        return images[:, rows[:, None], columns[None, :]]
    channels = images.shape[3]
    resized = np.empty((len(images), size, size, channels), np.uint8)
    for place, image in enumerate(images):
        # Pillow has no third axis for grey.
        picture = Image.fromarray(image[:, :, 0] if channels == 1 else image)
        scaled = np.asarray(picture.resize((size, size), FILTERS[interpolation]))
        resized[place] = scaled.reshape(size, size, channels)
    return resized


def check_interpolation(interpolation: str) -> None:
    """Refuses an unknown way of resizing.

    Raises:
        DataError: It is not a key of `FILTERS`.
    """
    if interpolation not in FILTERS:
        raise DataError(f"interpolation must be one of {', '.join(FILTERS)}, but got {interpolation!r}")


def _nearest(length: int, size: int) -> NDArray[np.intp]:
    """Which of `length` pixels Pillow takes for each of `size`: its own answer for a line of numbers."""
    line = Image.fromarray(np.arange(length, dtype=np.int32)[None, :])
    taken: NDArray[np.intp] = np.asarray(line.resize((size, 1), FILTERS["nearest"]))[0].astype(np.intp)
    return taken
