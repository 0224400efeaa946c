"""Loops over batches: an epoch of training, or an evaluation.

On TensorFlow a loop runs inside the compiled program over many batches at a time, which spares
the time that Python takes between two updates. Other backends use Keras' `fit` and `evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from batchscope.training.sources import Batches, Source

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["CompiledLoop", "Figures", "FitLoop", "Loop", "OnStep", "Rows", "blocks", "make_loop"]

# What is handed to the compiled program at a time: large enough that Python's share vanishes, small
# enough for a sign of life every few seconds.
_BLOCK_BYTES = 2**24

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Figures:
    """Means over the examples of a pass.

    Attributes:
        loss: The model's loss, of which each batch counts by its examples.
        accuracy: Share of examples that were told right.
    """

    loss: float
    accuracy: float


OnStep = Callable[[int, float], None]
"""Told the number of examples presented so far and their accuracy."""


class Loop(Protocol):
    """Runs one model over batches."""

    @property
    def model(self) -> keras.Model:
        """The model."""

    def train(self, source: Source, order: Rows, batch_size: int, on_step: OnStep | None = None) -> Figures:
        """One pass with updates; figures are running means, each batch measured before its update."""

    def evaluate(self, source: Source, order: Rows, batch_size: int) -> Figures:
        """One pass without updates."""


def make_loop(model: keras.Model) -> Loop:
    """The fastest loop that the backend has.

    Args:
        model: Compiled, with a metric named ``accuracy``. Its layers are in the mode that is wanted,
            whatever Keras' mode (`batchscope.training.network.FixedMode`).
    """
    return CompiledLoop(model) if keras.backend.backend() == "tensorflow" else FitLoop(model)


class FitLoop:
    """Keras' own loops.

    Args:
        model: As for `make_loop`.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model

    @property
    def model(self) -> keras.Model:
        """The model."""
        return self._model

    def train(self, source: Source, order: Rows, batch_size: int, on_step: OnStep | None = None) -> Figures:
        """One pass of `fit`."""
        callbacks = [] if on_step is None else [_Reporter(len(order), batch_size, on_step)]
        batches = Batches(source, order, batch_size)
        fitted = self._model.fit(batches, epochs=1, shuffle=False, verbose=0, callbacks=callbacks)
        return Figures(float(fitted.history["loss"][0]), float(fitted.history["accuracy"][0]))

    def evaluate(self, source: Source, order: Rows, batch_size: int) -> Figures:
        """One pass of `evaluate`."""
        found = self._model.evaluate(Batches(source, order, batch_size), verbose=0, return_dict=True)
        return Figures(float(found["loss"]), float(found["accuracy"]))


class _Reporter(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    def __init__(self, examples: int, batch_size: int, on_step: OnStep) -> None:
        super().__init__()
        self._examples, self._batch_size, self._on_step = examples, batch_size, on_step

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        accuracy = float("nan") if logs is None else float(logs["accuracy"])
        self._on_step(min((batch + 1) * self._batch_size, self._examples), accuracy)


class CompiledLoop:
    """Loops inside TensorFlow's compiled program, traced once for all batch sizes.

    Args:
        model: As for `make_loop`.
    """

    def __init__(self, model: keras.Model) -> None:
        import tensorflow as tf

        self._model = model
        inputs = tf.TensorSpec((None, None, *model.inputs[0].shape[1:]), tf.float32)
        labels = tf.TensorSpec((None, None, 1), tf.float32)
        self._train = tf.function(self._train_block, input_signature=[inputs, labels])
        self._evaluate = tf.function(self._evaluate_block, input_signature=[inputs, labels])

    @property
    def model(self) -> keras.Model:
        """The model."""
        return self._model

    def train(self, source: Source, order: Rows, batch_size: int, on_step: OnStep | None = None) -> Figures:
        """One pass, a block of batches at a time."""
        return _pass(self._train, source, order, batch_size, on_step)

    def evaluate(self, source: Source, order: Rows, batch_size: int) -> Figures:
        """One pass, a block of batches at a time."""
        return _pass(self._evaluate, source, order, batch_size)

    def _train_block(self, inputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return _over_batches(self._update, inputs, labels)

    def _evaluate_block(self, inputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return _over_batches(self._measure, inputs, labels)

    def _update(self, inputs: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        import tensorflow as tf

        model = self._model
        trained = [variable.value for variable in model.trainable_variables]
        # Otherwise the tape would watch frozen variables too, which TensorFlow knows as trainable.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trained)
            predicted = model(inputs, training=True)
            loss = model.compute_loss(x=inputs, y=labels, y_pred=predicted, training=True)
            scaled = model.optimizer.scale_loss(loss)
        model.optimizer.apply(tape.gradient(scaled, trained), model.trainable_variables)
        return loss, predicted

    def _measure(self, inputs: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        predicted = self._model(inputs, training=False)
        return self._model.compute_loss(x=inputs, y=labels, y_pred=predicted, training=False), predicted


def _over_batches(
    step: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]], inputs: tf.Tensor, labels: tf.Tensor
) -> tf.Tensor:
    """Sums over a block of batches, (2,) float64: loss times examples, and examples told right."""
    import tensorflow as tf

    def body(index: tf.Tensor, sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        loss, predicted = step(inputs[index], labels[index])
        right = tf.reduce_sum(tf.cast(_right(labels[index], predicted), tf.float64))
        examples = tf.cast(tf.shape(labels)[1], tf.float64)
        return index + 1, sums + tf.stack([tf.cast(loss, tf.float64) * examples, right])

    def condition(index: tf.Tensor, sums: tf.Tensor) -> tf.Tensor:  # noqa: ARG001  # TensorFlow gives both
        return index < tf.shape(inputs)[0]

    start = (tf.constant(0), tf.zeros(2, tf.float64))
    return tf.while_loop(condition, body, start, parallel_iterations=1)[1]


def _right(labels: Any, predicted: Any) -> Any:  # tensors of Keras' backend
    """Whether each example is told right, shape (b,), by Keras' own metrics."""
    if predicted.shape[-1] == 1:
        return keras.metrics.binary_accuracy(labels, predicted)
    return keras.metrics.sparse_categorical_accuracy(labels, predicted)


def _pass(
    run: Callable[..., tf.Tensor], source: Source, order: Rows, batch_size: int, on_step: OnStep | None = None
) -> Figures:
    sums, done = np.zeros(2), 0
    for inputs, labels in blocks(source, order, batch_size):
        sums += run(inputs, labels).numpy()
        done += labels.shape[0] * labels.shape[1]
        if on_step is not None:
            on_step(done, sums[1] / done)
    return Figures(float(sums[0] / done), float(sums[1] / done))


def blocks(source: Source, order: Rows, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Whole batches, many at a time, (steps, batch, ...); a short last batch is a block of its own."""
    whole = len(order) - len(order) % batch_size
    start = 0
    steps = 1  # the first batch tells how large an example is
    while start < whole:
        stop = min(start + steps * batch_size, whole)
        inputs, labels = source.take(order[start:stop])
        yield _batched(inputs, batch_size), _batched(labels, batch_size)
        steps = max(int(_BLOCK_BYTES // (inputs.nbytes // len(inputs) * batch_size)), 1)
        start = stop
    if whole < len(order):
        inputs, labels = source.take(order[whole:])
        yield inputs[None], labels[None]


def _batched(array: np.ndarray, batch_size: int) -> np.ndarray:
    return array.reshape(-1, batch_size, *array.shape[1:])
