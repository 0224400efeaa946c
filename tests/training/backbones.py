"""Backbones, with weights and averages that matter, and one that is small enough for whole trials."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import keras
import numpy as np

from batchscope.spec import Study
from tiny import tiny_study

SMALL_TAIL = {"from_layer": "tail_dw"}
SIZES = {
    "MobileNet": 32,
    "MobileNetV2": 96,
    "ResNet50": 64,
    "EfficientNetB0": 64,
    "DenseNet121": 64,
    "Xception": 71,
    "InceptionV3": 75,
    "MobileNetV3Small": 64,
}


@cache
def backbone(name: str) -> keras.Model:
    """One of `SIZES`, built once; its variables may be moved by whoever asked before."""
    keras.utils.set_random_seed(11)
    size = SIZES[name]
    return getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(size, size, 3))


def unsettle(model: keras.Model) -> None:
    """Moves biases, gammas, betas and averages away from 0 and 1, where mistakes with them do not show."""
    rng = np.random.default_rng(12)
    ranges = {
        "bias": (-0.3, 0.3),
        "gamma": (0.6, 1.4),
        "beta": (-0.3, 0.3),
        "moving_mean": (-0.3, 0.3),
        "moving_variance": (0.6, 1.6),
    }
    for variable in model.weights:
        if variable.name in ranges:
            variable.assign(rng.uniform(*ranges[variable.name], variable.shape))


def SmallNet(*, include_top: bool, weights: None, input_shape: tuple[int, int, int]) -> keras.Model:  # noqa: N802
    """A backbone as ``keras.applications`` has them, with a residual connection and dropout.

    Ahead of ``tail_dw`` it can be cut behind ``mid_add``, and ahead of ``late_silu`` behind
    ``late_bn``, which gives as many features as ``late_silu`` does, by the same variables.
    """
    assert not include_top
    assert weights is None
    inputs = x = keras.Input(input_shape)
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", name="first")(x)
    x = skipped = keras.layers.ReLU(name="first_relu")(_norm("first_bn")(x))
    x = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="mid_dw")(x)
    x = keras.layers.ReLU(6, name="mid_relu")(_norm("mid_dw_bn")(x))
    x = keras.layers.Conv2D(8, 1, use_bias=False, name="mid_project")(x)
    x = keras.layers.Add(name="mid_add")([_norm("mid_bn")(x), skipped])
    x = keras.layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False, name="tail_dw")(x)
    x = keras.layers.ReLU(name="tail_relu")(_norm("tail_dw_bn")(x))
    x = keras.layers.Conv2D(16, 1, use_bias=False, name="late_conv")(x)
    x = keras.layers.Activation("silu", name="late_silu")(_norm("late_bn")(x))
    x = keras.layers.Dropout(0.2, name="late_drop")(x)
    x = keras.layers.Conv2D(16, 1, name="last_conv")(x)
    return keras.Model(inputs, x, name="smallnet")


def small_study(weights: str = "none", **changes: object) -> Study:
    """The tiny study with `SmallNet`."""
    model = {
        "backbone": "SmallNet",
        "weights": weights,
        "image_size": 32,
        "input_scaling": "symmetric",
        "interpolation": "nearest",
    }
    return tiny_study(model=model, **changes)


def small_weights(path: Path) -> str:
    """A file of weights for `SmallNet`, in every variable other ones than random starts have."""
    keras.utils.set_random_seed(13)
    model = SmallNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    unsettle(model)
    model.save_weights(path)
    return str(path)


def _norm(name: str) -> keras.layers.BatchNormalization:
    """BatchNorm whose averages and scales depend on the seed, as its kernels do."""
    return keras.layers.BatchNormalization(
        name=name,
        momentum=0.9,
        gamma_initializer=keras.initializers.RandomUniform(0.6, 1.4),
        beta_initializer=keras.initializers.RandomUniform(-0.3, 0.3),
        moving_mean_initializer=keras.initializers.RandomUniform(-0.3, 0.3),
        moving_variance_initializer=keras.initializers.RandomUniform(0.6, 1.6),
    )
