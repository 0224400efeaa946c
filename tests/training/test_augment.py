"""Augmentation against SciPy, one image and one step at a time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from batchscope.spec import Augmentation
from batchscope.training.augment import apply_views, draw_views

SIZE = 24


def images(count: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 255, (count, SIZE, SIZE, 3)).astype(np.float32)


def reference(image: np.ndarray, augmentation: Augmentation, uniform: np.ndarray) -> np.ndarray:
    """ImageDataGenerator's view: one affine resampling by SciPy, then the mirror image."""
    draw = [-1 + 2 * u for u in uniform]
    theta = np.deg2rad(augmentation.rotation * draw[0])
    shear = np.deg2rad(augmentation.shear * draw[3])
    low, high = augmentation.zoom
    zoom_rows, zoom_columns = (low + (high - low) * u for u in uniform[4:6])
    rotation = np.array([[np.cos(theta), -np.sin(theta), 0], [np.sin(theta), np.cos(theta), 0], [0, 0, 1]])
    shift = np.eye(3)
    shift[:2, 2] = augmentation.height_shift * draw[1] * SIZE, augmentation.width_shift * draw[2] * SIZE
    shears = np.array([[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]])
    centre = np.eye(3)
    centre[:2, 2] = SIZE / 2 - 0.5
    matrix = (
        centre @ rotation @ shift @ shears @ np.diag([zoom_rows, zoom_columns, 1]) @ np.linalg.inv(centre)
    )
    channels = [
        ndimage.affine_transform(image[..., c], matrix[:2, :2], matrix[:2, 2], order=1, mode="nearest")
        for c in range(3)
    ]
    view = np.stack(channels, axis=-1)
    return view[:, ::-1] if augmentation.horizontal_flip and uniform[6] < 0.5 else view


@pytest.mark.keras
@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(),
        Augmentation(rotation=40),
        Augmentation(width_shift=0.3),
        Augmentation(height_shift=0.3),
        Augmentation(shear=20),
        Augmentation(zoom=[0.5, 2.0]),
        Augmentation(horizontal_flip=True),
        Augmentation(
            rotation=15, width_shift=0.1, height_shift=0.1, shear=8, zoom=[0.9, 1.25], horizontal_flip=True
        ),
    ],
)
def test_views_are_those_of_one_affine_resampling(augmentation: Augmentation):
    count = 12
    views = draw_views(augmentation, count, (SIZE, SIZE), np.random.default_rng(5))
    uniform = np.random.default_rng(5).random((count, 7))
    expected = [
        reference(image, augmentation, row) for image, row in zip(images(count), uniform, strict=True)
    ]
    # float32 coordinates of up to 24 pixels over steps of up to 255 a pixel
    np.testing.assert_allclose(apply_views(images(count), views), np.stack(expected), atol=0.02)


@pytest.mark.keras
def test_a_view_that_changes_nothing_gives_the_image_itself():
    still = draw_views(Augmentation(), 3, (SIZE, SIZE), np.random.default_rng(0))
    np.testing.assert_array_equal(apply_views(images(3), still), images(3))


@pytest.mark.keras
def test_mirroring_moves_whole_pixels():
    views = draw_views(Augmentation(horizontal_flip=True), 200, (SIZE, SIZE), np.random.default_rng(0))
    mirrored = np.random.default_rng(0).random((200, 7))[:, 6] < 0.5
    assert 70 < mirrored.sum() < 130
    shown = apply_views(images(200), views)
    np.testing.assert_array_equal(shown[mirrored], images(200)[mirrored][:, :, ::-1])
    np.testing.assert_array_equal(shown[~mirrored], images(200)[~mirrored])


def test_an_images_view_does_not_depend_on_how_many_there_are():
    augmentation = Augmentation(rotation=10, zoom=[0.9, 1.1])
    few = draw_views(augmentation, 5, (SIZE, SIZE), np.random.default_rng(3))
    many = draw_views(augmentation, 50, (SIZE, SIZE), np.random.default_rng(3))
    np.testing.assert_array_equal(few, many[:5])
