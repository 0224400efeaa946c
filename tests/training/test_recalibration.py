"""Population statistics of BatchNorm against one huge batch, NumPy and planted averages."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from batchscope.errors import TrainingError
from batchscope.training import recalibration
from batchscope.training.recalibration import (
    Moments,
    averages_kept,
    batchnorm_layers,
    images_that_fit,
    lag,
    population_moments,
    use_moments,
)

pytestmark = pytest.mark.keras
COUNT = 45


def branching() -> keras.Model:
    """BatchNorm before, within and behind a residual connection."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(6, 3, padding="same", name="first")(inputs)
    x = keras.layers.BatchNormalization(name="early")(x)
    x = skipped = keras.layers.ReLU()(x)
    x = keras.layers.Conv2D(6, 3, padding="same", name="second")(x)
    x = keras.layers.BatchNormalization(name="inside")(x)
    x = keras.layers.Add()([x, skipped])
    x = keras.layers.DepthwiseConv2D(3, strides=2, name="third")(x)
    x = keras.layers.BatchNormalization(name="late")(x)
    return keras.Model(inputs, x, name="branching")


@pytest.fixture
def images() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(COUNT, 12, 12, 3)) * rng.uniform(0.2, 3, (COUNT, 1, 1, 1))).astype(np.float32)


def spoil(model: keras.Model, images: np.ndarray) -> None:
    """Moves the averages, then fails."""
    model(images, training=True)
    model(images[..., :1], training=True)


def averages(model: keras.Model) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {
        layer.name: (np.asarray(layer.moving_mean.numpy()), np.asarray(layer.moving_variance.numpy()))
        for layer in batchnorm_layers(model)
    }


@pytest.mark.parametrize("chunk", [7, 45, 100])
def test_statistics_are_those_of_one_huge_batch(
    images: np.ndarray, monkeypatch: pytest.MonkeyPatch, chunk: int
):
    monkeypatch.setattr(recalibration, "_CHUNK", chunk)
    model = branching()
    found = population_moments(model, images)
    for layer in batchnorm_layers(model):
        layer.momentum = 0.0  # the averages become the batch's own statistics
    model(images, training=True)
    assert [moments.layer for moments in found] == ["early", "inside", "late"]
    for moments in found:
        mean, variance = averages(model)[moments.layer]
        np.testing.assert_allclose(moments.mean, mean, atol=1e-5)
        np.testing.assert_allclose(moments.variance, variance, rtol=1e-5, atol=1e-5)


def test_a_network_with_its_statistics_gives_the_output_of_one_huge_batch(images: np.ndarray):
    model = branching()
    huge = model(images, training=True).numpy()
    use_moments(model, population_moments(model, images))
    np.testing.assert_allclose(model(images, training=False).numpy(), huge, atol=1e-5)


def test_moments_of_a_first_layer_are_numpys(images: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recalibration, "_CHUNK", 8)  # the last chunk is a short one
    inputs = keras.Input((12, 12, 3))
    model = keras.Model(inputs, keras.layers.BatchNormalization(name="only")(inputs))
    (found,) = population_moments(model, images)
    np.testing.assert_allclose(found.mean, images.astype(np.float64).mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(found.variance, images.astype(np.float64).var((0, 1, 2)), rtol=1e-6)
    # fvcore's precise_bn: E[x^2] = mean^2 + variance, aggregated over batches
    squares = (images.astype(np.float64) ** 2).mean((0, 1, 2))
    np.testing.assert_allclose(found.mean**2 + found.variance, squares, rtol=1e-6)


def test_averages_are_put_back_also_after_an_error(images: np.ndarray):
    model = branching()
    before = averages(model)
    population_moments(model, images)
    with averages_kept(model):
        model(images, training=True)
    with pytest.raises(ValueError, match="expected axis -1"), averages_kept(model):
        spoil(model, images)
    for name, (mean, variance) in averages(model).items():
        np.testing.assert_array_equal(mean, before[name][0])
        np.testing.assert_array_equal(variance, before[name][1])


def test_a_model_without_batchnorm_has_no_statistics(images: np.ndarray):
    inputs = keras.Input((12, 12, 3))
    assert population_moments(keras.Model(inputs, keras.layers.ReLU()(inputs)), images) == []


def test_a_batchnorm_inside_another_layer_is_refused(images: np.ndarray):
    inputs = keras.Input((12, 12, 3))
    inner = keras.Sequential([keras.layers.Conv2D(2, 3), keras.layers.BatchNormalization()])
    with pytest.raises(TrainingError, match=r'1 BatchNorm layers of .* probes = "none"'):
        population_moments(keras.Model(inputs, inner(inputs)), images)


def test_the_lag_is_the_distance_in_standard_deviations(images: np.ndarray):
    model = branching()
    found = population_moments(model, images)
    use_moments(model, found)
    assert lag(model, found) == pytest.approx({"early": 0, "inside": 0, "late": 0}, abs=1e-6)
    layer = model.get_layer("inside")
    inside = found[1]
    shift = np.sqrt(inside.variance + layer.epsilon) * np.array([1, -2, 3, 0, 0, 0])
    layer.moving_mean.assign(inside.mean + shift)
    assert lag(model, found) == pytest.approx({"early": 0, "inside": 1.0, "late": 0}, abs=1e-6)


def test_a_channel_that_never_varies_lags_in_units_of_epsilon():
    inputs = keras.Input((2, 2, 1))
    model = keras.Model(inputs, keras.layers.BatchNormalization(name="only", epsilon=0.01)(inputs))
    still = [Moments("only", np.array([0.5]), np.array([0.0]))]
    assert lag(model, still)["only"] == pytest.approx(0.5 / 0.1)


def test_as_many_images_as_fit_into_a_gibibyte():
    model = branching()  # its largest activation has 12 x 12 x 6 floats
    assert images_that_fit(model) == 2**30 // (4 * 12 * 12 * 6)
