"""Rewritten models against plain Keras: outputs, gradients, moving averages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache

import keras
import numpy as np
import pytest
import tensorflow as tf
from backbones import SIZES, backbone, unsettle

from batchscope.training.recalibration import averages_kept, population_moments, use_moments
from batchscope.training.rewriting import FusedBatchNorm, MatrixProduct, Mode, rewrite

pytestmark = pytest.mark.keras

# float32 keeps 6e-8 of a number, and sums over hundreds of products in another order differ by some 1e-7.
# Every layer passes on, mostly amplified, what those before it left: measured over whole backbones were
# 2e-6 to 3e-5 in outputs and 4e-6 to 4e-4 in gradients. Single layers are held to a few roundings below.
OUTPUTS, GRADIENTS, SINGLE = 1e-4, 1e-3, 2e-6


def distance(found: object, expected: object) -> float:
    """Of arrays, as a share of the expected one's length."""
    one, other = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert one.shape == other.shape
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


@cache
def smooth(name: str) -> keras.Model:
    """A backbone without kinks.

    Where an activation is within rounding of a kink the gradient jumps, so that of two models
    which differ in rounding alone, the gradients may differ in any digit.
    """

    def replacement(layer: keras.layers.Layer) -> keras.layers.Layer:
        kinked = (keras.activations.relu, keras.activations.get("hard_swish"))
        if isinstance(layer, keras.layers.ReLU) or getattr(layer, "activation", None) in kinked:
            return keras.layers.Activation("silu", name=layer.name)
        return keras.layers.AveragePooling2D.from_config(layer.get_config()) if pooled(layer) else layer

    def pooled(layer: keras.layers.Layer) -> bool:
        return isinstance(layer, keras.layers.MaxPooling2D)

    return keras.models.clone_model(backbone(name), clone_function=replacement)


def images(name: str, count: int) -> np.ndarray:
    size = SIZES[name]
    return np.random.default_rng(4).uniform(-1, 1, (count, size, size, 3)).astype(np.float32)


def differentiated(
    model: keras.Model, inputs: np.ndarray, variables: Sequence[keras.Variable], *, training: bool
) -> tuple[np.ndarray, list[np.ndarray]]:
    """A model's outputs, and gradients of their product with fixed random numbers."""
    with tf.GradientTape() as tape:
        outputs = model(inputs, training=training)
        weights = np.random.default_rng(5).normal(size=outputs.shape).astype(np.float32)
        loss = tf.reduce_mean(outputs * weights)
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    return outputs.numpy(), [np.asarray(gradient) for gradient in gradients]


def assert_same_gradients(
    found: Sequence[np.ndarray], expected: Sequence[np.ndarray], variables: Sequence[keras.Variable]
) -> None:
    length = np.sqrt(sum(float(np.sum(np.square(gradient, dtype=np.float64))) for gradient in expected))
    assert length > 0
    for one, other, variable in zip(found, expected, variables, strict=True):
        # The gradient of what BatchNorm takes away again is nothing but rounding: 1e-7 of all and less.
        allowed = GRADIENTS * np.linalg.norm(other) + 1e-6 * length
        assert np.linalg.norm(one - other) <= allowed, variable.path


def kinds(model: keras.Model) -> Counter[str]:
    return Counter(type(layer).__name__ for layer in model.layers)


# BatchNorm layers, and how many of them stand alone behind a convolution without activation.
@pytest.mark.parametrize(
    ("name", "norms", "folded"),
    [
        ("MobileNet", 27, 27),
        ("MobileNetV2", 52, 52),
        ("ResNet50", 53, 53),
        ("EfficientNetB0", 49, 49),
        ("DenseNet121", 121, 59),
        ("Xception", 40, 6),
        ("MobileNetV3Small", 34, 34),
    ],
)
def test_inference_gives_the_outputs_and_gradients_of_plain_keras(name: str, norms: int, folded: int):
    model, inputs = smooth(name), images(name, 4)
    unsettle(model)
    calibrate(model, inputs)
    rewritten = rewrite(model, "inference")
    found = kinds(rewritten)
    assert (found["FoldedConvolution"], found["BatchNormalization"]) == (folded, norms - folded)
    variables = model.trainable_variables
    assert {id(variable) for variable in rewritten.trainable_variables} == {id(each) for each in variables}
    before = [np.array(variable) for variable in model.variables]
    outputs, gradients = differentiated(rewritten, inputs, variables, training=False)
    expected_outputs, expected = differentiated(model, inputs, variables, training=False)
    assert np.std(expected_outputs) > 0.01
    assert distance(outputs, expected_outputs) < OUTPUTS
    assert_same_gradients(gradients, expected, variables)
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(value, np.array(variable))


def calibrate(model: keras.Model, inputs: np.ndarray) -> None:
    """Averages near those that keep activations in range through many layers, yet not just these."""
    use_moments(model, population_moments(model, inputs))
    rng = np.random.default_rng(6)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            scale = rng.uniform(0.8, 1.25, layer.moving_variance.shape)
            layer.moving_mean.assign(
                layer.moving_mean + 0.1 * np.sqrt(layer.moving_variance) * rng.normal(size=scale.shape)
            )
            layer.moving_variance.assign(layer.moving_variance * scale)


@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV2", "ResNet50", "EfficientNetB0"])
def test_batch_gives_the_outputs_gradients_and_moved_averages_of_plain_keras(name: str):
    model, inputs = smooth(name), images(name, 6)
    unsettle(model)
    rewritten = rewrite(model, "batch")
    assert kinds(rewritten)["FusedBatchNorm"] == kinds(model)["BatchNormalization"]
    variables = model.trainable_variables
    assert {id(variable) for variable in rewritten.trainable_variables} == {id(each) for each in variables}
    with averages_kept(model):
        outputs, gradients = differentiated(rewritten, inputs, variables, training=True)
        moved = averages(model)
    still = averages(model)
    with averages_kept(model):
        expected_outputs, expected = differentiated(model, inputs, variables, training=True)
        expected_moved = averages(model)
    assert distance(outputs, expected_outputs) < OUTPUTS
    assert_same_gradients(gradients, expected, variables)
    for path, value in expected_moved.items():
        assert not np.array_equal(still[path], value)
        # How far they moved, not where they are, which the momentum keeps close to where they were.
        assert distance(moved[path] - still[path], value - still[path]) < 1e-3, path


def averages(model: keras.Model) -> dict[str, np.ndarray]:
    return {
        variable.path: np.array(variable)
        for variable in model.non_trainable_variables
        if variable.name.startswith("moving")
    }


def small(*layers: keras.layers.Layer, channels: int = 4) -> keras.Model:
    """Layers one behind the other on images of 7x7."""
    inputs = x = keras.Input((7, 7, channels))
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def norm(**keys: object) -> keras.layers.BatchNormalization:
    return keras.layers.BatchNormalization(momentum=0.8, **keys)


def noise(count: int = 5, channels: int = 4) -> np.ndarray:
    # A mean and a deviation of its own for each channel, as BatchNorm is there for.
    rng = np.random.default_rng(8)
    own = rng.uniform(0.5, 2, channels)
    return (rng.normal(size=(count, 7, 7, channels)) * own + own).astype(np.float32)


LAYERS = keras.layers
FOLDED = {
    "a bias": lambda: (LAYERS.Conv2D(3, 3), norm()),
    "a 1x1 kernel": lambda: (LAYERS.Conv2D(3, 1), norm()),
    "a 1x1 kernel with strides": lambda: (LAYERS.Conv2D(3, 1, strides=2, use_bias=False), norm()),
    "strides and padding": lambda: (LAYERS.Conv2D(3, 3, strides=2, padding="same"), norm()),
    "dilation": lambda: (LAYERS.Conv2D(3, 3, dilation_rate=2), norm()),
    "groups": lambda: (LAYERS.Conv2D(6, 3, groups=2), norm()),
    "groups of 1x1": lambda: (LAYERS.Conv2D(6, 1, groups=2), norm()),
    "a multiplier of channels": lambda: (LAYERS.DepthwiseConv2D(3, depth_multiplier=3), norm()),
    "no gamma": lambda: (LAYERS.Conv2D(3, 3), norm(scale=False)),
    "no beta": lambda: (LAYERS.Conv2D(3, 3), norm(center=False)),
    "a large epsilon": lambda: (LAYERS.Conv2D(3, 3), norm(epsilon=0.5)),
}


@pytest.mark.parametrize("kind", FOLDED)
def test_a_convolution_with_something_special_is_folded_rightly(kind: str):
    keras.utils.set_random_seed(9)
    model = small(*FOLDED[kind]())
    unsettle(model)
    rewritten = rewrite(model, "inference")
    assert kinds(rewritten)["FoldedConvolution"] == 1
    compare(rewritten, model, noise())


UNTOUCHED = {
    "an activation": lambda: (LAYERS.Conv2D(3, 3, activation="tanh"), norm()),
    "separable": lambda: (LAYERS.SeparableConv2D(3, 3), norm()),
    "transposed": lambda: (LAYERS.Conv2DTranspose(3, 3), norm()),
    "rows instead of channels": lambda: (LAYERS.Conv2D(3, 3), norm(axis=1)),
    "nothing before": lambda: (norm(), LAYERS.Conv2D(3, 3)),
    "something between": lambda: (LAYERS.Conv2D(3, 3), LAYERS.Activation("tanh"), norm()),
}


@pytest.mark.parametrize("kind", UNTOUCHED)
def test_what_cannot_be_folded_stays(kind: str):
    keras.utils.set_random_seed(9)
    model = small(*UNTOUCHED[kind]())
    unsettle(model)
    rewritten = rewrite(model, "inference")
    assert kinds(rewritten) == kinds(model)
    compare(rewritten, model, noise())


PENALISED = {
    "a 1x1 convolution": lambda penalty: (LAYERS.Conv2D(4, 1, activity_regularizer=penalty),),
    "a convolution": lambda penalty: (LAYERS.Conv2D(4, 3, activity_regularizer=penalty), norm()),
    "BatchNorm": lambda penalty: (LAYERS.Conv2D(4, 3), norm(activity_regularizer=penalty)),
    "BatchNorm alone": lambda penalty: (norm(activity_regularizer=penalty),),
}


@pytest.mark.parametrize("mode", ["inference", "batch", "steady"])
@pytest.mark.parametrize("kind", PENALISED)
def test_a_layer_whose_outputs_are_penalised_still_adds_its_loss(kind: str, mode: Mode):
    keras.utils.set_random_seed(9)
    model, trains = small(*PENALISED[kind](keras.regularizers.L2(0.3))), mode != "inference"
    unsettle(model)
    rewritten, inputs = rewrite(model, mode), noise()
    with averages_kept(model):
        expected = model(inputs, training=trains)
        [wanted] = model.losses
    with averages_kept(model):
        assert distance(rewritten(inputs, training=trains), expected) < 1e-5
    [found] = rewritten.losses
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)
    assert float(found) > 0.1


def compare(rewritten: keras.Model, model: keras.Model, inputs: np.ndarray) -> None:
    variables = model.trainable_variables
    outputs, gradients = differentiated(rewritten, inputs, variables, training=False)
    expected_outputs, expected = differentiated(model, inputs, variables, training=False)
    assert distance(outputs, expected_outputs) < SINGLE
    for gradient, wanted in zip(gradients, expected, strict=True):
        assert distance(gradient, wanted) < SINGLE


@pytest.mark.parametrize("ahead", ["batchnorm", "the other"])
def test_a_convolution_that_is_used_twice_is_not_folded(ahead: str):
    inputs = keras.Input((7, 7, 4))
    raw = keras.layers.Conv2D(4, 3)(inputs)
    bent = keras.layers.Activation("tanh")
    both = [norm()(raw), bent(bent(raw))] if ahead == "the other" else [bent(bent(norm()(raw))), raw]
    model = keras.Model(inputs, keras.layers.Add()(both))
    unsettle(model)
    rewritten = rewrite(model, "inference")
    assert kinds(rewritten)["FoldedConvolution"] == 0
    compare(rewritten, model, noise())


def test_a_convolution_that_is_an_output_is_not_folded():
    inputs = keras.Input((7, 7, 4))
    raw = keras.layers.Conv2D(4, 3)(inputs)
    model = keras.Model(inputs, [raw, norm()(raw)])
    unsettle(model)
    for found, expected in zip(rewrite(model, "inference")(noise()), model(noise()), strict=True):
        assert distance(found, expected) < SINGLE
    alone = keras.Model(inputs, raw)
    assert distance(rewrite(alone, "inference")(noise()), alone(noise())) < SINGLE


def test_a_batchnorm_that_is_used_twice_is_not_folded():
    inputs = keras.Input((7, 7, 4))
    shared = norm()
    model = keras.Model(inputs, shared(keras.layers.Conv2D(4, 1)(shared(inputs))))
    unsettle(model)
    rewritten = rewrite(model, "inference")
    assert kinds(rewritten)["FoldedConvolution"] == 0
    compare(rewritten, model, noise())


def test_a_model_is_folded_alike_whatever_other_models_share_its_layers():
    keras.utils.set_random_seed(9)
    model = small(keras.layers.Conv2D(3, 3, name="conv"), norm(name="norm"), keras.layers.Activation("silu"))
    unsettle(model)
    behind = keras.Model(model.get_layer("conv").output, model.output)
    for _ in range(2):
        batch, inference = rewrite(model, "batch"), rewrite(model, "inference")
        assert (kinds(batch)["FusedBatchNorm"], kinds(inference)["FoldedConvolution"]) == (1, 1)
        compare(inference, model, noise())
    raw = np.asarray(model.get_layer("conv")(noise()))
    rest = rewrite(behind, "inference")
    assert kinds(rest)["FoldedConvolution"] == 0
    assert distance(rest(raw, training=False), behind(raw, training=False)) < SINGLE


def test_a_1x1_convolution_is_a_product_with_bias_and_activation():
    keras.utils.set_random_seed(9)
    model = small(keras.layers.Conv2D(3, 1, activation="tanh"), keras.layers.Conv2D(3, 1, strides=2))
    unsettle(model)
    rewritten = rewrite(model, "batch")
    assert [isinstance(layer, MatrixProduct) for layer in rewritten.layers] == [False, True, False]
    compare(rewritten, model, noise())


@pytest.mark.parametrize("keys", [{"epsilon": 0.3}, {"scale": False}, {"center": False}, {"epsilon": 1e-5}])
@pytest.mark.parametrize("count", [1, 5])
def test_batch_statistics_gradients_and_biased_averages_are_those_of_plain_keras(
    keys: dict[str, object], count: int
):
    layer = norm(**keys)
    model = small(layer)
    unsettle(model)
    fused = rewrite(model, "batch")
    assert isinstance(fused.layers[1], FusedBatchNorm)
    layer.moving_variance.assign(np.zeros(4))  # beside 1 a small variance would be lost
    # Of small numbers, epsilon is a large part of the variance.
    inputs = noise(count) * np.float32(0.003)
    results = []
    for each in (fused, model):
        source = tf.constant(inputs)
        with averages_kept(model), tf.GradientTape() as tape:
            tape.watch(source)
            outputs = each(source, training=True)
            loss = tf.reduce_sum(
                outputs * np.random.default_rng(5).normal(size=inputs.shape).astype(np.float32)
            )
            watched = [source, *(variable.value for variable in model.trainable_variables)]
            gradients = tape.gradient(loss, watched)
            results.append([outputs, *gradients, *(np.array(value) for value in averages(model).values())])
    for found, expected in zip(*results, strict=True):
        assert distance(found, expected) < 2e-5
    # Divided by n, not by n - 1.
    flat = inputs.reshape(-1, 4).astype(np.float64)
    np.testing.assert_allclose(results[0][-1], 0.2 * flat.var(0), rtol=1e-4)


def test_steady_normalises_by_the_batch_while_random_layers_rest():
    keras.utils.set_random_seed(9)
    drop = keras.layers.Dropout(0.5, seed=1)
    model = small(keras.layers.Conv2D(3, 3), norm(), drop, keras.layers.SpatialDropout2D(0.5))
    unsettle(model)
    plain = keras.Model(model.input, drop.input)
    before = [np.array(variable) for variable in drop.variables]
    with averages_kept(model):
        found = rewrite(model, "steady")(noise(), training=True)
        moved = averages(model)
    with averages_kept(model):
        expected = plain(noise(), training=True)
        for path, value in averages(model).items():
            assert distance(moved[path], value) < 10 * SINGLE
    assert distance(found, expected) < 10 * SINGLE
    for variable, value in zip(drop.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert distance(model(noise(), training=True), expected) > 0.1  # else it drops
