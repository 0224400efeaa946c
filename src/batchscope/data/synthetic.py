"""Synthetic aerial views of a desert, with or without a columnar cactus.

They stand in for the Aerial Cactus Identification images where those cannot be had: 32x32 colour
pictures, three in four positive. What tells a cactus is its build: an upright column seen
obliquely from above, pale green, ribbed, straight-edged, often with an arm, whose long shadow
starts at its foot. Each of these cues alone also occurs without a cactus: tufts and elongated
bushes of the same green, logs and tracks as straight, boulders with as long a shadow.

Simplifications: one light, no perspective within a picture, no shadow of one thing on another,
shadows of a single darkness, at most one cactus.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from batchscope.data.dataset import Dataset
from batchscope.data.desert import COLUMNS, SIZE, draw_desert
from batchscope.data.shapes import Draws
from batchscope.errors import DataError

__all__ = ["SYNTHETIC", "draw_cacti", "generate_cacti", "synthetic_labels"]

SYNTHETIC = "synthetic-cactus"
"""The `DataSpec.source` that stands for these images."""

_MOST = 10_000_000
_CHUNK = 32
_LABELS, _PICTURES = 0, 1


def generate_cacti(count: int, seed: int = 2019) -> Dataset:
    """Draws a labelled set of desert views.

    Image i of a seed is the same whatever the count.

    Args:
        count: How many images, 1 to 10,000,000.
        seed: Seed of everything random, 0 or greater.

    Returns:
        `count` images of 32x32, classes ``("0", "1")``, one negative in every four images.

    Raises:
        DataError: The count or the seed is out of range.
    """
    _check(count, seed)
    return draw_cacti(np.arange(count), seed)


def draw_cacti(numbers: NDArray[np.intp], seed: int = 2019) -> Dataset:
    """Draws chosen images of the endless series that belongs to a seed.

    Args:
        numbers: Which images, from 0 on, ascending; at least one.
        seed: As for `generate_cacti`.

    Returns:
        One image per number, otherwise as from `generate_cacti`.

    Raises:
        DataError: They do not fit into memory.
    """
    shape = (len(numbers), SIZE, SIZE, 3)
    try:
        images = np.empty(shape, np.uint8)
    except MemoryError as error:
        raise DataError(
            f"{shape[0]:,} images take {np.prod(shape):,} bytes of memory, which are not there; take fewer"
        ) from error
    for chunk in np.unique(numbers // _CHUNK):
        chosen = numbers // _CHUNK == chunk
        images[chosen] = _draw_chunk(seed, int(chunk))[numbers[chosen] % _CHUNK]
    return Dataset(
        inputs=images,
        labels=synthetic_labels(int(numbers[-1]) + 1, seed)[numbers],
        ids=tuple(f"cactus-{seed}-{number:06d}.jpg" for number in numbers),
        classes=("0", "1"),
        source=SYNTHETIC,
        skipped=(),
    )


def synthetic_labels(count: int, seed: int = 2019) -> NDArray[np.int64]:
    """Labels of the first images of a seed: one 0, at a drawn place, in every four.

    Args:
        count: As for `generate_cacti`.
        seed: As for `generate_cacti`.

    Returns:
        0 or 1, int64 of shape (count,).

    Raises:
        DataError: The count or the seed is out of range.
    """
    _check(count, seed)
    chunks = range(-(-count // _CHUNK))
    return np.concatenate([_chunk_labels(chunk, seed) for chunk in chunks])[:count]


def _check(count: int, seed: int) -> None:
    if not 1 <= count <= _MOST or seed < 0:
        raise DataError(
            f"count >= 1, count <= {_MOST:,} and seed >= 0 must hold, but got count={count}, seed={seed}"
        )


def _chunk_labels(chunk: int, seed: int) -> NDArray[np.int64]:
    labels = np.ones((_CHUNK // 4, 4), np.int64)
    places = _stream(seed, _LABELS, chunk).integers(0, 4, _CHUNK // 4)
    labels[np.arange(_CHUNK // 4), places] = 0
    return labels.ravel()


def _draw_chunk(seed: int, chunk: int) -> NDArray[np.uint8]:
    """Draws a whole run of 32 images, so that not even rounding depends on the count."""
    numbers = range(chunk * _CHUNK, (chunk + 1) * _CHUNK)
    table = np.stack([_stream(seed, _PICTURES, number).random(COLUMNS, np.float32) for number in numbers])
    return draw_desert(Draws(table), _chunk_labels(chunk, seed) == 1)


def _stream(seed: int, kind: int, number: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, kind, number]))
