"""The weights that all contenders start from: `python random_weights.py IMAGES FOLDER FIRST_TRAINED`.

A process of its own, so that the bench holds neither TensorFlow nor its memory while it measures. Prints the
multiplications of one image's forward pass through the trained layers.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

from prepare import keras_study

__all__ = ["model_macs", "prepare_weights"]

_SEED = 2019
_CALIBRATION_IMAGES = 64


def prepare_weights(folder: Path, images: Path) -> None:
    """Writes, for Keras and as arrays, random weights whose BatchNorm averages are those of real activations.

    Speed does not depend on what weights know, but activations and gradients that shrink from layer to
    layer, as those of raw random weights do, end in denormal numbers, which some libraries compute slowly.

    Args:
        folder: Where to.
        images: The arrays that `prepare_images` wrote.
    """
    arrays = np.load(images)["training_images"][:_CALIBRATION_IMAGES]
    keras.utils.set_random_seed(_SEED)
    backbone = _backbone()
    factor = backbone.input_shape[1] // arrays.shape[1]
    enlarged = arrays.repeat(factor, axis=1).repeat(factor, axis=2)
    layers = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    backbone(enlarged.astype(np.float32) / np.float32(127.5) - np.float32(1), training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    backbone.save_weights(folder / "backbone.weights.h5")
    weights = [array for layer in backbone.layers for array in layer.get_weights()]
    np.savez(folder / "weights.npz", **{f"w{index}": array for index, array in enumerate(weights)})


def model_macs(first: str) -> tuple[int, int]:
    """Multiplications of one image's forward pass: of the whole backbone, and from a layer on.

    Counted are convolutions and the head; BatchNorm, activations and additions are left out, as usual.
    """
    backbone = _backbone()
    names = [layer.name for layer in backbone.layers]
    counts = [_layer_macs(layer) for layer in backbone.layers]
    head = int(backbone.output_shape[-1])
    return sum(counts) + head, sum(counts[names.index(first) :]) + head


def _layer_macs(layer: Any) -> int:
    # A kernel is (height, width, in, out), a depthwise one (height, width, channels, 1).
    if not isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
        return 0
    height, width = layer.output.shape[1:3]
    return int(height * width * np.prod(layer.kernel.shape))


def _backbone() -> Any:
    size = keras_study("aerial-cactus").model.image_size
    return keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(size, size, 3))


if __name__ == "__main__":
    prepare_weights(Path(sys.argv[2]), Path(sys.argv[1]))
    print(model_macs(sys.argv[3])[1])
