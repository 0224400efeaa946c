"""Random views of training images: one composed affine resampling an image.

The draws and their composition follow Keras' ``ImageDataGenerator`` (keras-preprocessing 1.1,
``apply_affine_transform``): output pixel (row, column) is read at

    rotation @ shift @ shear @ zoom

applied about the image's centre, in (row, column) coordinates. The mirror image, which that
generator makes by a second step, is composed into the same matrix; it moves whole pixels, so the
result is the same.
"""

from __future__ import annotations

import keras
import numpy as np
from numpy.typing import NDArray

from batchscope.spec import Augmentation

__all__ = ["apply_views", "draw_views"]

Floats = NDArray[np.float64]


def draw_views(
    augmentation: Augmentation, count: int, shape: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draws the transform of each of `count` images.

    Image i's view depends on the generator and on i alone, not on batches or their order.

    Args:
        augmentation: The ranges.
        count: Number of images.
        shape: Their height and width in pixels.
        rng: Source of the draws.

    Returns:
        Shape (count, 8), float32: a0 a1 a2 b0 b1 b2 c0 c1 of the map from output to input pixels
        (x, y) -> (a0 x + a1 y + a2, b0 x + b1 y + b2), with c0 = c1 = 0.
    """
    uniform = rng.random((count, 7))
    theta = np.deg2rad(_between(uniform[:, 0], -augmentation.rotation, augmentation.rotation))
    rows = _between(uniform[:, 1], -augmentation.height_shift, augmentation.height_shift) * shape[0]
    columns = _between(uniform[:, 2], -augmentation.width_shift, augmentation.width_shift) * shape[1]
    shear = np.deg2rad(_between(uniform[:, 3], -augmentation.shear, augmentation.shear))
    low, high = augmentation.zoom
    matrix = (
        _matrices(np.cos(theta), -np.sin(theta), np.sin(theta), np.cos(theta))
        @ _matrices(1, 0, 0, 1, rows, columns)
        @ _matrices(np.ones(count), -np.sin(shear), 0, np.cos(shear))
        @ _matrices(_between(uniform[:, 4], low, high), 0, 0, _between(uniform[:, 5], low, high))
    )
    if augmentation.horizontal_flip:
        mirrored = uniform[:, 6] < 0.5
        matrix = matrix @ _matrices(1, 0, 0, np.where(mirrored, -1.0, 1.0))
    return _about_centre(matrix, shape)


def apply_views(images: NDArray[np.float32], views: NDArray[np.float32]) -> NDArray[np.float32]:
    """Resamples images bilinearly; outside the image its border repeats.

    Args:
        images: Shape (n, height, width, channels).
        views: Shape (n, 8), from `draw_views`.

    Returns:
        Shape and dtype of `images`.
    """
    resampled = keras.ops.image.affine_transform(
        images, views, interpolation="bilinear", fill_mode="nearest", data_format="channels_last"
    )
    return np.asarray(keras.ops.convert_to_numpy(resampled), dtype=np.float32)


def _between(uniform: Floats, low: float, high: float) -> Floats:
    return low + (high - low) * uniform


def _matrices(
    rr: Floats | float,
    rc: Floats | float,
    cr: Floats | float,
    cc: Floats | float,
    r0: Floats | float = 0.0,
    c0: Floats | float = 0.0,
) -> Floats:
    """Stacks homogeneous 3x3 matrices in (row, column, 1) coordinates; shape (n, 3, 3)."""
    count = max(np.size(entry) for entry in (rr, rc, cr, cc, r0, c0))
    matrix = np.zeros((count, 3, 3))
    matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 0, 2] = rr, rc, r0
    matrix[:, 1, 0], matrix[:, 1, 1], matrix[:, 1, 2] = cr, cc, c0
    matrix[:, 2, 2] = 1.0
    return matrix


def _about_centre(matrix: Floats, shape: tuple[int, int]) -> NDArray[np.float32]:
    centre = np.array(shape) / 2 - 0.5
    offset = matrix[:, :2, 2] + centre - matrix[:, :2, :2] @ centre
    views = np.zeros((len(matrix), 8), dtype=np.float32)
    # Keras' operation takes (x, y) = (column, row), the matrices are in (row, column).
    views[:, 0], views[:, 1], views[:, 2] = matrix[:, 1, 1], matrix[:, 1, 0], offset[:, 1]
    views[:, 3], views[:, 4], views[:, 5] = matrix[:, 0, 1], matrix[:, 0, 0], offset[:, 0]
    return views
