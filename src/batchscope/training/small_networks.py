"""Small networks that are built in, for experiments from scratch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras

from batchscope.errors import TrainingError

__all__ = ["SMALL_NETWORKS", "cnn", "mlp"]

_DROPOUT = 0.4


def cnn(input_shape: tuple[int, ...], classes: int) -> keras.Model:
    """A small convolutional network, of the kind of the "Simple CNN" of Shallue et al. 2018.

    Two convolutions with 32 and 64 filters of 5x5, stride 1, padding "same" and ReLU, each followed by
    max pooling of 2x2 with stride 2; a dense layer of 1,024 ReLU units with dropout 0.4; a dense layer to
    the classes.

    Source of layers, sizes and dropout: TensorFlow's tutorial for MNIST
    (tensorflow/examples/tutorials/layers/cnn_mnist.py at tensorflow/tensorflow, commit 92e6c3e). The figures
    that Shallue et al. published (google-research, batch_science/README.md) call theirs
    ``simple_cnn_base``, on MNIST and Fashion-MNIST, but do not tell its layers, and its sizes here were not
    held against the paper (arXiv 1811.03600). Two classes have one sigmoid unit in place of a softmax;
    weights start by Keras' defaults, Glorot's uniform distribution and zeros.

    Args:
        input_shape: Height, width and channels, at least 4 pixels each way.
        classes: At least 2.

    Raises:
        TrainingError: The inputs are no images.
    """
    if len(input_shape) != 3:
        raise TrainingError(
            f'model.network = "cnn" needs images, but the data are a table of {input_shape[0]} features; '
            'take "mlp", or a function of your own as MODULE:FUNCTION'
        )
    inputs = x = keras.Input(input_shape)
    for place, filters in enumerate((32, 64), 1):
        x = keras.layers.Conv2D(filters, 5, padding="same", activation="relu", name=f"conv_{place}")(x)
        x = keras.layers.MaxPooling2D(name=f"pool_{place}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, _classified(_hidden(x, 1), classes), name="cnn")


def mlp(input_shape: tuple[int, ...], classes: int) -> keras.Model:
    """A fully connected network, of the kind of those of Shallue et al. 2018.

    Three dense layers of 1,024 ReLU units, each with dropout 0.4, and a dense layer to the classes.
    Images are flattened. Output and initial weights are as in `cnn`.

    Source of its form: the published figures of Shallue et al. (google-research, batch_science/README.md)
    name networks of three equal layers for MNIST, such as ``fc_512_512_512`` and ``fc_2048_2048_2048``.
    The dropout is that of `cnn`; whether theirs had any was not held against the paper.

    Args:
        input_shape: Of an image, or (features,).
        classes: At least 2.
    """
    inputs = x = keras.Input(input_shape)
    if len(input_shape) > 1:
        x = keras.layers.Flatten(name="flatten")(x)
    for place in (1, 2, 3):
        x = _hidden(x, place)
    return keras.Model(inputs, _classified(x, classes), name="mlp")


def _hidden(x: keras.KerasTensor, place: int) -> keras.KerasTensor:
    x = keras.layers.Dense(1024, activation="relu", name=f"dense_{place}")(x)
    return keras.layers.Dropout(_DROPOUT, name=f"dropout_{place}")(x)


def _classified(x: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    if classes == 2:
        return keras.layers.Dense(1, activation="sigmoid", name="head")(x)
    return keras.layers.Dense(classes, activation="softmax", name="head")(x)


SMALL_NETWORKS: Mapping[str, Callable[[tuple[int, ...], int], keras.Model]] = {"cnn": cnn, "mlp": mlp}
"""By the names of `batchscope.model_spec.BUILT_IN`."""
