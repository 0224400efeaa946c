"""Resizing gives Pillow's bytes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from batchscope.data import resize
from batchscope.errors import DataError
from image_samples import coloured

FILTERS = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}
SIDES = (4, 7, 13, 32, 33, 50, 96, 101, 224)


@pytest.mark.parametrize("interpolation", sorted(FILTERS))
@pytest.mark.parametrize("size", SIDES)
def test_same_bytes_as_pillow(interpolation: str, size: int) -> None:
    for height in SIDES:
        for width in SIDES:
            images = np.stack([coloured(seed, height, width) for seed in range(2)])
            expected = [
                np.asarray(Image.fromarray(image).resize((size, size), FILTERS[interpolation]))
                for image in images
            ]
            np.testing.assert_array_equal(resize(images, size, interpolation), np.stack(expected))


def test_nearest_is_exact_for_every_pair_of_lengths() -> None:
    for length in range(1, 130):
        line = np.broadcast_to(np.arange(length, dtype=np.uint8)[None, :, None], (1, length, 3))
        for size in (1, 2, 3, 31, 32, 33, 96, 97, 127, 224):
            expected = np.asarray(Image.fromarray(line).resize((size, size), Image.Resampling.NEAREST))
            np.testing.assert_array_equal(resize(line[None], size, "nearest")[0], expected)


def test_enlarging_thrice_with_nearest_repeats_each_pixel() -> None:
    images = coloured(1, 32, 32)[None]
    np.testing.assert_array_equal(resize(images, 96, "nearest"), images.repeat(3, axis=1).repeat(3, axis=2))


def test_the_right_size_is_left_alone() -> None:
    images = coloured(1, 32, 32)[None]
    assert resize(images, 32, "bilinear") is images


def test_no_images_are_none() -> None:
    for interpolation in FILTERS:
        assert resize(np.empty((0, 8, 9, 3), np.uint8), 16, interpolation).shape == (0, 16, 16, 3)


def test_unknown_interpolation_is_refused() -> None:
    with pytest.raises(DataError, match="one of nearest, bilinear, but got 'cubic'"):
        resize(coloured(1)[None], 16, "cubic")
