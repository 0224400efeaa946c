"""A network for real workers, each of which builds and traces it: small, with BatchNorm."""

from __future__ import annotations

import keras

LAYERS = keras.layers


def build(input_shape: tuple[int, ...], classes: int) -> keras.Model:
    """Two convolutions with BatchNorm; its second half begins with ``tail``."""
    inputs = x = keras.Input(input_shape)
    for name, filters in (("first", 6), ("tail", 8)):
        x = LAYERS.Conv2D(filters, 3, strides=2, use_bias=False, name=name)(x)
        x = LAYERS.ReLU(name=f"{name}_relu")(LAYERS.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x))
    x = LAYERS.GlobalAveragePooling2D(name="pool")(x)
    head = LAYERS.Dense(1, "sigmoid") if classes == 2 else LAYERS.Dense(classes, "softmax")
    return keras.Model(inputs, head(x), name="small")
