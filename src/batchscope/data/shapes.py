"""Plain shapes and noise for drawn images, many images at a time.

Everything per pixel is made of operations that IEEE 754 rounds exactly (no exponentials, no
matrix products), so that a picture hardly depends on the processor that draws it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["ABSENT", "Canvas", "Capsule", "Draws", "Floats", "per_image", "value_noise"]

Floats = NDArray[np.float32]

ABSENT = np.float32(0)
"""Radius of a capsule that its image does not have."""


class Draws:
    """Hands out the columns of a table of uniform random numbers, one after the other.

    Each image has its own row, so what is drawn for one image does not depend on the others.

    Args:
        table: Uniform numbers in [0, 1), float32 of shape (images, columns).
    """

    def __init__(self, table: Floats) -> None:
        self._table = table
        self._used = 0

    def uniform(self, low: float, high: float) -> Floats:
        """Draws one number per image from [low, high): float32 of shape (images,)."""
        return np.float32(low) + np.float32(high - low) * self.block(1)[:, 0]

    def choice(self, options: Floats) -> Floats:
        """Draws one row of `options` per image: float32 of shape (images, columns of options)."""
        return options[(self.block(1)[:, 0] * len(options)).astype(np.intp)]

    def chance(self, probability: Floats | float) -> NDArray[np.bool_]:
        """Draws one yes or no per image: bool of shape (images,)."""
        return self.block(1)[:, 0] < probability

    def block(self, count: int) -> Floats:
        """Takes the next `count` raw columns: float32 of shape (images, count)."""
        columns = self._table[:, self._used : self._used + count]
        self._used += count
        return columns


@dataclass(frozen=True)
class Capsule:
    """A segment with a radius at each end, one per image; all fields of shape (images,), in pixels.

    Attributes:
        x: Start, to the right.
        y: Start, downwards.
        angle: Direction from the start, in radians.
        length: From the start to the end.
        radius: Half the width at the start; `ABSENT` in images without this capsule.
        end_radius: Half the width at the end.
    """

    x: Floats
    y: Floats
    angle: Floats
    length: Floats
    radius: Floats
    end_radius: Floats

    def rows(self) -> NDArray[np.intp]:
        """Numbers of the images that have this capsule."""
        return np.flatnonzero(self.radius > ABSENT)

    def point(self, share: Floats | float) -> tuple[Floats, Floats]:
        """The point at a share of the way from start to end."""
        end = self.moved(self.angle, self.length * share)
        return end.x, end.y

    def moved(self, angle: Floats, distance: Floats | float) -> Capsule:
        """The same shape elsewhere."""
        x = self.x + (np.cos(angle) * distance).astype(np.float32)
        y = self.y + (np.sin(angle) * distance).astype(np.float32)
        return replace(self, x=x, y=y)


class Canvas:
    """The grid of sample points on which capsules are measured.

    Args:
        size: Height and width of the picture in pixels.
        samples: Sample points per pixel and axis.
    """

    def __init__(self, size: int, samples: int) -> None:
        centres = ((np.arange(size * samples) + 0.5) / samples).astype(np.float32)
        self._x = centres[None, None, :]
        self._y = centres[None, :, None]

    def measure(self, shape: Capsule, rows: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Distance to a capsule's edge, and place across its axis.

        Args:
            shape: One capsule per image.
            rows: The images to measure.

        Returns:
            Two arrays float32 of shape (rows, side, side), in pixels: the distance to the edge,
            negative inside; and the signed distance from the axis' line.
        """
        cosine, sine = per_image(np.cos(shape.angle[rows])), per_image(np.sin(shape.angle[rows]))
        right, down = self._x - per_image(shape.x[rows]), self._y - per_image(shape.y[rows])
        along = right * cosine + down * sine
        across = down * cosine - right * sine
        length = per_image(np.maximum(shape.length[rows], np.float32(1e-3)))
        nearest = np.clip(along, 0, length)
        along -= nearest
        nearest *= per_image(shape.end_radius[rows] - shape.radius[rows]) / length
        nearest += per_image(shape.radius[rows])
        return np.sqrt(along * along + across * across) - nearest, across


def value_noise(draws: Draws, cells: int, side: int) -> Floats:
    """Smooth noise: random values on a coarse grid, bilinearly enlarged.

    Args:
        draws: Takes (cells + 1) squared columns.
        cells: Cells of the grid along each axis.
        side: Height and width of the result.

    Returns:
        Noise in [-1, 1], float32 of shape (images, side, side).
    """
    grid = draws.block((cells + 1) ** 2).reshape(-1, cells + 1, cells + 1) * 2 - 1
    place = ((np.arange(side) + 0.5) * cells / side).astype(np.float32)
    cell = place.astype(np.intp)
    share = place - cell.astype(np.float32)
    rows = grid[:, cell] + (grid[:, cell + 1] - grid[:, cell]) * share[None, :, None]
    return rows[:, :, cell] + (rows[:, :, cell + 1] - rows[:, :, cell]) * share


def per_image(values: Floats) -> Floats:
    """Makes one number per image broadcast over its pixels: (images,) to (images, 1, 1)."""
    return values[:, None, None]
