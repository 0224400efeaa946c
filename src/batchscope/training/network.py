"""The network of a study: what comes ahead of the head, and the head, which gives probabilities.

Either a pretrained backbone, global average pooling and one dense layer, or a whole network that is
split ahead of its last dense layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras

from batchscope.errors import TrainingError
from batchscope.spec import FromLayer, ModelSpec, Stage
from batchscope.training.backbones import build_backbone, complete_normalization
from batchscope.training.own_network import build_own_network
from batchscope.training.weights import load_into, locate, split_pin

__all__ = [
    "FixedMode",
    "Network",
    "build_network",
    "first_trained_layer",
    "penalised_weights",
    "set_trainable",
]


@dataclass(frozen=True, eq=False)
class Network:
    """The layers that all stages of a study share.

    Attributes:
        backbone: What comes ahead of the head: a ``keras.applications`` model without its top, or a
            network of the study's own without its last layers; functional, with one input and one output.
        head: Gives probabilities: one sigmoid unit for two classes, else a softmax over them. It has no
            weights where a network's last layers are no dense layer: they are in `backbone` then.
        pooled: Whether global average pooling stands between the two.
        outputs: Probabilities an example: 1, or as many as there are classes.
        momenta: Each backbone layer's own BatchNorm momentum by its name.
    """

    backbone: keras.Model
    head: keras.layers.Layer
    pooled: bool
    outputs: int
    momenta: Mapping[str, float]

    @property
    def variables(self) -> Sequence[keras.Variable]:
        """All weights, and the states of random layers."""
        return [*self.backbone.variables, *self.head.variables]

    def assemble(self, body: keras.Model, *, training: bool) -> keras.Model:
        """Puts pooling and the head behind a body, in one mode whatever Keras' mode.

        Args:
            body: The backbone, or as much of it as is to run; gives what the backbone gives.
            training: Whether the body runs in training mode.

        Returns:
            A model over the shared layers; it takes what `body` takes and gives probabilities of shape
            (n, 1) or (n, classes).
        """
        inputs = keras.Input(body.input_shape[1:])
        features = FixedMode(body, training=training)(inputs)
        if self.pooled:
            features = keras.layers.GlobalAveragePooling2D()(features)
        return keras.Model(inputs, self.head(features))

    def head_alone(self) -> keras.Model:
        """The head as a model over what it is given."""
        shape = self.backbone.output_shape[1:]
        inputs = keras.Input(shape[-1:] if self.pooled else shape)
        return keras.Model(inputs, self.head(inputs))


class FixedMode(keras.layers.Layer):  # type: ignore[misc]  # Keras is untyped
    """Runs a model or a layer in training or in inference mode, whatever the mode around it.

    Its weights stay trainable as they are. Keras' guide on transfer learning calls the backbone
    with ``training=False`` for this. In Keras 3 that call is part of a functional graph, and
    ``fit`` overrides its argument (keras-team/keras, issue 20285): unfrozen BatchNorm layers would
    normalise by the batch after all. A call made inside a layer keeps its argument.

    Args:
        model: The model or layer to run.
        training: The mode.
    """

    def __init__(self, model: keras.layers.Layer, *, training: bool) -> None:
        super().__init__()
        self._model, self._training = model, training

    def call(self, inputs: object) -> object:
        """Output of the model in that mode."""
        return self._model(inputs, training=self._training)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of that output."""
        shape: tuple[int | None, ...] = self._model.compute_output_shape(input_shape)
        return shape


def build_network(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> Network:
    """Builds the network with its weights.

    What is random in it comes from Keras' global seed (``keras.utils.set_random_seed``).

    Args:
        spec: The study's model.
        shape: Of one example as the network sees it.
        classes: Number of classes, at least 2.

    Raises:
        TrainingError: The network cannot be built, or is none for such examples and classes.
        WeightsError: The weights cannot be had or do not fit.
    """
    if spec.network is not None:
        return _split(build_own_network(spec, shape, classes))
    backbone = build_backbone(spec)
    source, _ = split_pin(spec.weights)
    if source not in ("imagenet", "none"):
        load_into(backbone, locate(spec.weights)[0])
        complete_normalization(backbone)
    units = 1 if classes == 2 else classes
    head = keras.layers.Dense(units, activation="sigmoid" if units == 1 else "softmax", name="head")
    head.build((None, backbone.output_shape[-1]))
    return Network(backbone, head, pooled=True, outputs=units, momenta=_momenta(backbone))


def _split(model: keras.Model) -> Network:
    """A network whose head is its last dense layer, with the activation behind it if that is a layer."""
    [outputs] = model.outputs
    last, before = _made_by(outputs)
    dense, features = last, before
    if isinstance(last, keras.layers.Activation | keras.layers.Softmax):
        dense, features = _made_by(before)
    backbone, head = model, keras.layers.Identity(name="no_head")
    if isinstance(dense, keras.layers.Dense) and features is not model.inputs[0]:
        ahead = keras.Model(model.inputs[0], features, name=model.name)
        if dense not in ahead.layers:
            backbone, head = ahead, dense if dense is last else keras.Model(features, outputs, name="head")
    return Network(backbone, head, pooled=False, outputs=outputs.shape[-1], momenta=_momenta(backbone))


def _made_by(tensor: keras.KerasTensor) -> tuple[keras.Operation, keras.KerasTensor | None]:
    """What gives a tensor, and the tensor that it takes; None if it takes none or several."""
    history = tensor._keras_history  # noqa: SLF001  # Keras has no public way from a tensor to its layer
    taken = history.operation._inbound_nodes[history.node_index].input_tensors  # noqa: SLF001
    return history.operation, taken[0] if len(taken) == 1 else None


def _momenta(backbone: keras.Model) -> Mapping[str, float]:
    return {
        layer.name: layer.momentum
        for layer in backbone.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }


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

    The head is always trained. With ``batchnorm = "batch"`` a frozen BatchNorm layer normalises by the
    batch and moves its averages while gamma and beta stay, as frozen layers did in TensorFlow 2.0's
    Keras; Keras 3 does so where the layer is trainable and its gamma and beta are not.
    """
    first = first_trained_layer(stage, network.backbone)
    network.backbone.trainable = network.head.trainable = True
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


def penalised_weights(network: Network, stage: Stage) -> tuple[str, ...]:
    """Paths of the weights that count in the stage's loss, by a regularizer: Keras leaves frozen ones out.

    Freezes and frees the layers for the stage as `set_trainable` does.
    """
    set_trainable(network, stage)
    weights = (*network.backbone.trainable_weights, *network.head.trainable_weights)
    return tuple(variable.path for variable in weights if variable.regularizer is not None)
