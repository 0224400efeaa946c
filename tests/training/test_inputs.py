"""What networks are fed: sizes, colours, scaling; of images and of tables."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from sklearn.preprocessing import StandardScaler

from batchscope.data import TrainingData
from batchscope.spec import Augmentation, ModelSpec, Stage
from batchscope.training.feeding import Examples
from batchscope.training.inputs import make_feed
from tiny import stage, tiny_data, tiny_table

ROWS = np.array([5, 2, 40])
CNN = {"network": "cnn"}


def fed(spec: ModelSpec, data: TrainingData) -> np.ndarray:
    feed = make_feed(spec, data)
    inputs, labels = feed.batch(ROWS, None)
    assert (inputs.dtype, inputs.shape) == (np.float32, (3, *feed.shape))
    np.testing.assert_array_equal(labels, data.labels[ROWS].astype(np.float32)[:, None])
    return inputs


@pytest.mark.parametrize("channels", [1, 3])
def test_images_for_a_network_are_left_as_they_are(channels: int):
    data = tiny_data(size=(10, 14), channels=channels)
    expected = data.inputs[ROWS].astype(np.float64) / 255
    np.testing.assert_allclose(fed(ModelSpec(**CNN), data), expected, atol=1e-6)
    symmetric = fed(ModelSpec(**CNN, input_scaling="symmetric"), data)
    np.testing.assert_allclose(symmetric, 2 * expected - 1, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_size_makes_squares_as_pillow_does(channels: int):
    data = tiny_data(size=(10, 14), channels=channels)
    found = fed(ModelSpec(**CNN, image_size=20), data)
    for image, row in zip(found, ROWS, strict=True):
        for channel in range(channels):
            plane = Image.fromarray(data.inputs[row, :, :, channel])
            expected = np.asarray(plane.resize((20, 20), Image.Resampling.BILINEAR)) / 255
            np.testing.assert_allclose(image[:, :, channel], expected, atol=1e-6)


@pytest.mark.keras
def test_a_backbone_is_shown_grey_as_three_equal_colours():
    data = tiny_data(size=32, channels=1)
    found = fed(ModelSpec(backbone="ResNet50", image_size=32), data)
    grey = np.repeat(data.inputs[ROWS], 3, axis=-1).astype(np.float64)
    np.testing.assert_allclose(found, grey - [103.939, 116.779, 123.68], atol=1e-4)


@pytest.mark.parametrize("scaling", [None, "standard"])
def test_a_table_is_standardised_by_its_training_part(scaling: str | None):
    data = tiny_table()
    scaler = StandardScaler().fit(data.inputs[data.split.training].astype(np.float64))
    found = fed(ModelSpec(network="mlp", input_scaling=scaling), data)
    np.testing.assert_allclose(found, scaler.transform(data.inputs[ROWS].astype(np.float64)), atol=1e-5)
    assert (found[:, 1] == 0).all()  # the feature that never varies


def test_images_are_standardised_by_colour(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("batchscope.training.scaling._ROWS", 7)  # the last part is a short one
    data = tiny_data(channels=3)
    pixels = data.inputs[data.split.training].astype(np.float64)
    expected = (data.inputs[ROWS] - pixels.mean((0, 1, 2))) / pixels.std((0, 1, 2))
    np.testing.assert_allclose(fed(ModelSpec(**CNN, input_scaling="standard"), data), expected, atol=1e-5)


@pytest.mark.keras
def test_views_of_oblong_images_turn_about_their_centre():
    data = tiny_data(size=(6, 10), channels=1)
    feed = make_feed(ModelSpec(**CNN), data)
    nobody = np.arange(0)
    examples = Examples(feed, data.split.training, data.split.validation, nobody, np.arange(4), seed=1)
    turned = Stage.model_validate(
        stage("one", "all", epochs=1, augmentation=Augmentation(zoom=[1.0, 1.0], horizontal_flip=True))
    )
    shown, _ = examples.augmented(turned, 1, 1).take(np.arange(44))
    plain, _ = examples.clean(data.split.training).take(np.arange(44))
    mirrored = np.array([np.allclose(one, other[:, ::-1]) for one, other in zip(shown, plain, strict=True)])
    same = np.array([np.allclose(one, other) for one, other in zip(shown, plain, strict=True)])
    assert (mirrored ^ same).all()
    assert 10 < mirrored.sum() < 34


def test_scalings_that_differ_are_told_apart():
    data, other = tiny_table(), tiny_table()
    other.inputs[:, 3] *= 1.5
    told = {make_feed(ModelSpec(network="mlp"), each).told for each in (data, other, tiny_table(features=4))}
    assert len(told) == 3
