"""Functions that build networks, as a study names them: good ones and bad ones."""

from __future__ import annotations

import keras

from batchscope.loading import parse_study
from batchscope.spec import Study
from tiny import stage

Shape = tuple[int, ...]
LAYERS = keras.layers


def noisy(input_shape: Shape, classes: int) -> keras.Model:
    """With BatchNorm over images and over features, and dropout ahead of and behind both."""
    inputs = keras.Input(input_shape)
    x = LAYERS.Conv2D(6, 3, strides=2, use_bias=False, name="conv")(inputs)
    x = LAYERS.ReLU(name="relu")(LAYERS.BatchNormalization(momentum=0.8, name="conv_bn")(x))
    x = LAYERS.Flatten(name="flat")(LAYERS.SpatialDropout2D(0.2, name="drop_maps")(x))
    x = LAYERS.BatchNormalization(momentum=0.8, name="dense_bn")(LAYERS.Dense(12, name="dense")(x))
    x = LAYERS.Dropout(0.3, name="drop")(LAYERS.Activation("tanh", name="tanh")(x))
    return keras.Model(inputs, LAYERS.Dense(classes, activation="softmax", name="out")(x), name="noisy")


def normed(input_shape: Shape, classes: int) -> keras.Model:
    """The same without dropout."""
    inputs = keras.Input(input_shape)
    x = LAYERS.Dense(10, name="dense")(inputs)
    x = LAYERS.Activation("tanh", name="tanh")(LAYERS.BatchNormalization(momentum=0.8, name="bn")(x))
    return keras.Model(inputs, LAYERS.Dense(classes, activation="softmax", name="out")(x), name="normed")


class Halved(keras.layers.BatchNormalization):
    """BatchNorm with something of its own."""

    def call(self, inputs: object, training: bool | None = None, mask: object = None) -> object:
        return super().call(inputs, training=training, mask=mask) / 2


def halved(input_shape: Shape, classes: int) -> keras.Model:
    """With a layer that derives from BatchNorm."""
    inputs = keras.Input(input_shape)
    x = Halved(name="halved")(LAYERS.Dense(6, name="dense")(inputs))
    return keras.Model(inputs, LAYERS.Dense(classes, activation="softmax", name="out")(x), name="halving")


def penalised_norm(input_shape: Shape, classes: int) -> keras.Model:
    """With BatchNorm that penalises what it gives."""
    inputs = keras.Input(input_shape)
    norm = LAYERS.BatchNormalization(activity_regularizer=keras.regularizers.L2(0.01), name="norm")
    x = norm(LAYERS.Dense(6, name="dense")(inputs))
    return keras.Model(inputs, LAYERS.Dense(classes, activation="softmax", name="out")(x), name="penalised")


def layered(input_shape: Shape, classes: int) -> keras.Model:
    """With another normalisation than BatchNorm."""
    inputs = keras.Input(input_shape)
    x = LAYERS.LayerNormalization(name="layer_norm")(LAYERS.Dense(6, name="dense")(inputs))
    return keras.Model(inputs, LAYERS.Dense(classes, activation="softmax", name="out")(x), name="layered")


def penalised(input_shape: Shape, classes: int) -> keras.Model:
    """With penalties on weights of the head and of layers ahead of it."""
    inputs = keras.Input(input_shape)
    x = LAYERS.Conv2D(6, 1, kernel_regularizer=keras.regularizers.L2(0.02), name="conv")(inputs)
    x = LAYERS.Flatten(name="flat")(LAYERS.ReLU(name="relu")(x))
    x = LAYERS.Dense(8, activation="tanh", bias_regularizer="l1", kernel_regularizer="l2", name="dense")(x)
    out = LAYERS.Dense(classes, activation="softmax", kernel_regularizer="l2", name="out")
    return keras.Model(inputs, out(x), name="penalised")


class Costly(keras.layers.Layer):
    """Adds a loss by its own code."""

    def call(self, inputs: object) -> object:
        self.add_loss(0.5 * keras.ops.mean(keras.ops.abs(inputs)))
        return inputs


def costly(input_shape: Shape, classes: int) -> keras.Model:
    """With a layer that adds a loss ahead of the head."""
    inputs = keras.Input(input_shape)
    x = Costly(name="costly")(LAYERS.Flatten(name="flat")(inputs))
    x = LAYERS.Dense(8, activation="tanh", kernel_regularizer="l2", name="dense")(x)
    return keras.Model(inputs, LAYERS.Dense(classes, activation="softmax", name="out")(x), name="costly")


def penalised_outputs(input_shape: Shape, classes: int) -> keras.Model:
    """With penalties on what layers give: one that would be rewritten, and one that does nothing else."""
    inputs = keras.Input(input_shape)
    x = LAYERS.Conv2D(6, 1, activity_regularizer=keras.regularizers.L2(0.0002), name="conv")(inputs)
    x = LAYERS.ActivityRegularization(l1=0.0002, name="penalty")(LAYERS.Flatten(name="flat")(x))
    x = LAYERS.Dense(8, activation="tanh", name="dense")(x)
    return keras.Model(inputs, LAYERS.Dense(classes, activation="softmax", name="out")(x), name="penalised")


def nested(input_shape: Shape, classes: int) -> keras.Model:
    """Models within models, one of them called in a mode of its own, and an operation that is no layer."""
    inside = keras.Sequential(
        [keras.Input(input_shape), LAYERS.Conv2D(4, 3, name="conv"), LAYERS.BatchNormalization(name="bn")],
        name="inside",
    )
    body = keras.Input(input_shape)
    base = keras.Model(body, LAYERS.Dropout(0.4, name="drop")(inside(body)), name="base")
    inputs = keras.Input(input_shape)
    x = LAYERS.GlobalAveragePooling2D(name="pool")(base(inputs, training=False) * 2.0)
    return keras.Model(inputs, LAYERS.Dense(classes, activation="softmax", name="out")(x), name="nested")


def nested_flat(input_shape: Shape, classes: int) -> keras.Model:
    """`nested` without nesting."""
    inputs = keras.Input(input_shape)
    x = LAYERS.BatchNormalization(name="bn")(LAYERS.Conv2D(4, 3, name="conv")(inputs))
    x = LAYERS.GlobalAveragePooling2D(name="pool")(LAYERS.Dropout(0.4, name="drop")(x) * 2.0)
    return keras.Model(inputs, LAYERS.Dense(classes, activation="softmax", name="out")(x), name="flat")


def unbuilt(input_shape: Shape, classes: int) -> keras.Model:
    """As it is often written, without the shape."""
    return keras.Sequential([LAYERS.Flatten(), LAYERS.Dense(5, activation="relu"), *_ending(classes)])


def _ending(classes: int) -> list[keras.layers.Layer]:
    return [LAYERS.Dense(classes, name="out"), LAYERS.Softmax()]


def sigmoid(input_shape: Shape, classes: int) -> keras.Model:
    """One unit for two classes."""
    inputs = keras.Input(input_shape)
    x = LAYERS.Dense(3, activation="relu")(LAYERS.Flatten()(inputs))
    return keras.Model(inputs, LAYERS.Dense(1, activation="sigmoid")(x))


def regression(input_shape: Shape, classes: int) -> keras.Model:
    """Logistic regression: one layer."""
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, LAYERS.Dense(classes, activation="softmax", name="out")(inputs))


class _Hiding(keras.Model):
    def __init__(self, classes: int) -> None:
        super().__init__(name="hiding")
        self.flat, self.dense = LAYERS.Flatten(), LAYERS.Dense(4)
        self.norm, self.out = LAYERS.BatchNormalization(), LAYERS.Dense(classes, activation="softmax")

    def call(self, inputs: object, training: bool | None = None) -> object:
        return self.out(self.norm(self.dense(self.flat(inputs)), training=training))


def hiding(input_shape: Shape, classes: int) -> keras.Model:
    """A subclass, which computes in its own way."""
    return _Hiding(classes)


def logits(input_shape: Shape, classes: int) -> keras.Model:
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, LAYERS.Dense(classes, name="last")(LAYERS.Flatten()(inputs)))


def one_softmax(input_shape: Shape, classes: int) -> keras.Model:
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, LAYERS.Dense(1, activation="softmax", name="last")(LAYERS.Flatten()(inputs)))


def scores(input_shape: Shape, classes: int) -> keras.Model:
    """Each between 0 and 1, but together more than 1."""
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, LAYERS.Dense(classes, activation="sigmoid")(LAYERS.Flatten()(inputs)))


def hidden_logits(input_shape: Shape, classes: int) -> keras.Model:
    """Behind a layer that does not tell what it computes."""
    inputs = keras.Input(input_shape)
    x = LAYERS.Dense(classes)(LAYERS.Flatten()(inputs))
    return keras.Model(inputs, LAYERS.Rescaling(3.0)(x))


def too_many(input_shape: Shape, classes: int) -> keras.Model:
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, LAYERS.Dense(classes + 1, activation="softmax")(LAYERS.Flatten()(inputs)))


def two_outputs(input_shape: Shape, classes: int) -> keras.Model:
    inputs = keras.Input(input_shape)
    x = LAYERS.Dense(classes, activation="softmax")(LAYERS.Flatten()(inputs))
    return keras.Model(inputs, [x, x])


def for_other_inputs(input_shape: Shape, classes: int) -> keras.Model:
    return logits((5, 5, 3), classes)


def untrainable(input_shape: Shape, classes: int) -> keras.Model:
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, LAYERS.Softmax()(LAYERS.Flatten()(inputs)[:, :classes]))


def twins(input_shape: Shape, classes: int) -> keras.Model:
    """Two layers of one name, in two models."""
    one, other = (
        keras.Sequential([keras.Input(input_shape), LAYERS.Flatten(), LAYERS.Dense(3, name="twin")])
        for _ in range(2)
    )
    inputs = keras.Input(input_shape)
    x = LAYERS.Concatenate()([one(inputs), other(inputs)])
    return keras.Model(inputs, LAYERS.Dense(classes, activation="softmax")(x))


def raising(input_shape: Shape, classes: int) -> keras.Model:
    return _deeper(classes)


def _deeper(classes: int) -> keras.Model:
    raise LookupError(f"no network for {classes} classes")


def nothing(input_shape: Shape, classes: int) -> None:
    return None


def without_arguments() -> None:
    return None


class Kept:
    """Gives the same model at every call."""

    model: keras.Model | None = None


def kept(input_shape: Shape, classes: int) -> keras.Model:
    Kept.model = Kept.model or noisy(input_shape, classes)
    return Kept.model


class Growing:
    """Gives a wider model at every call."""

    width = 3


def growing(input_shape: Shape, classes: int) -> keras.Model:
    Growing.width += 1
    inputs = keras.Input(input_shape)
    x = LAYERS.Dense(Growing.width, activation="relu")(LAYERS.Flatten()(inputs))
    return keras.Model(inputs, LAYERS.Dense(classes, activation="softmax")(x))


not_a_function = 3


def own_study(network: str | None, stages: list[dict[str, object]] | None = None, **changes: object) -> Study:
    """One stage of two epochs of a network as a whole, as a study file has it."""
    model = ({"network": network} if network else {}) | dict(changes.pop("model", {}))  # type: ignore[call-overload]
    raw: dict[str, object] = {
        "name": "own",
        "batch_sizes": [8, 16],
        "replicates": 2,
        "seed": 7,
        "probes": "none",
        "data": {"source": "nowhere"},
        "stages": stages or [stage("one", "all", epochs=2, optimizer="sgd") | {"learning_rate": 0.05}],
    }
    return parse_study(raw | changes | {"model": model}, "own")
