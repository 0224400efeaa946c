"""First and second derivatives of a stage's loss, as flat vectors over the weights that it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras
import numpy as np
from numpy.typing import NDArray

from batchscope.training.loops import Rows, blocks
from batchscope.training.sources import Source

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Derivatives", "GradientPass"]

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GradientPass:
    """The loss and its gradients over K batches; P weights are trained.

    Attributes:
        loss: Mean over the examples.
        gradient: Of that mean; shape (P,).
        norms2: Squared norm of each batch's own gradient; shape (K,).
        along: Product of each batch's gradient with the direction asked for; shape (K,).
    """

    loss: float
    gradient: Vector
    norms2: Vector
    along: Vector


class Derivatives:
    """Of a model's loss with respect to its weights that are trained now; TensorFlow alone.

    The loss is the one that training minimises, with what layers add to it. A product with the Hessian
    takes one gradient of the gradient's component along the vector, some four to six forward passes.

    Args:
        model: Compiled. Its layers are in the mode that is wanted, whatever Keras' mode. What they move
            in that mode, such as BatchNorm's averages, is moved here too.
    """

    def __init__(self, model: keras.Model) -> None:
        import tensorflow as tf

        self._model = model
        self._variables = list(model.trainable_variables)
        inputs = tf.TensorSpec((None, None, *model.inputs[0].shape[1:]), tf.float32)
        labels = tf.TensorSpec((None, None, 1), tf.float32)
        vector = tf.TensorSpec((self.size,), tf.float32)
        signature = [inputs, labels, vector]
        self._gradients = tf.function(self._gradients_block, input_signature=signature)
        self._products = tf.function(self._products_block, input_signature=signature)

    @property
    def size(self) -> int:
        """Number of weights that are trained, P."""
        return sum(int(np.prod(variable.shape)) for variable in self._variables)

    def weights(self) -> Vector:
        """Their values, shape (P,)."""
        values = [keras.ops.convert_to_numpy(variable).ravel() for variable in self._variables]
        return np.concatenate(values).astype(np.float64)

    @contextmanager
    def weights_kept(self) -> Iterator[None]:
        """Puts the weights back at the end, to the last bit."""
        before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in self._variables]
        try:
            yield
        finally:
            for variable, value in zip(self._variables, before, strict=True):
                variable.assign(value)

    def move_to(self, weights: Vector) -> None:
        """Sets the weights, shape (P,)."""
        start = 0
        for variable in self._variables:
            stop = start + int(np.prod(variable.shape))
            variable.assign(weights[start:stop].reshape(variable.shape))
            start = stop

    def gradients(
        self, source: Source, order: Rows, batch_size: int, direction: Vector | None = None
    ) -> GradientPass:
        """One pass over the batches of `order`; each counts by its examples.

        Args:
            source: The examples.
            order: Their positions.
            batch_size: Examples a batch; the last batch holds what is left.
            direction: Shape (P,); None for zeros.
        """
        against = np.zeros(self.size, np.float32) if direction is None else direction.astype(np.float32)
        total, told, weights = self._over(self._gradients, source, order, batch_size, against)
        loss = float(told[:, 0] @ weights / weights.sum())
        return GradientPass(loss, total / weights.sum(), told[:, 1], told[:, 2])

    def product(self, source: Source, order: Rows, batch_size: int, vector: Vector) -> Vector:
        """The Hessian of the mean loss over the examples, times a vector of shape (P,).

        Args:
            source: The examples.
            order: Their positions.
            batch_size: Examples a batch; the last batch holds what is left.
            vector: Shape (P,).
        """
        total, _, weights = self._over(self._products, source, order, batch_size, vector.astype(np.float32))
        product: Vector = total / weights.sum()
        return product

    def _over(
        self, run: Callable[..., tf.Tensor], source: Source, order: Rows, batch_size: int, vector: np.ndarray
    ) -> tuple[Vector, Vector, Vector]:
        """Sum over examples (P,), what each batch told (K, 3), and each batch's examples (K,)."""
        total, told, weights = np.zeros(self.size), [], []
        for inputs, labels in blocks(source, order, batch_size):
            summed, each = run(inputs, labels, vector)
            total += summed.numpy() * labels.shape[1]
            told.append(each.numpy())
            weights += [labels.shape[1]] * len(labels)
        return total, np.concatenate(told).astype(np.float64), np.array(weights, np.float64)

    def _gradients_block(
        self, inputs: tf.Tensor, labels: tf.Tensor, vector: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        import tensorflow as tf

        def step(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with self._tape() as tape:
                loss = self._loss(inputs[index], labels[index])
            gradient = self._gradient(tape, loss)
            told = tf.stack([loss, tf.reduce_sum(gradient**2), tf.reduce_sum(gradient * vector)])
            return gradient, told

        return self._loop(step, inputs)

    def _products_block(
        self, inputs: tf.Tensor, labels: tf.Tensor, vector: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        import tensorflow as tf

        def step(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with self._tape() as outer:
                with self._tape() as inner:
                    loss = self._loss(inputs[index], labels[index])
                along = tf.reduce_sum(self._gradient(inner, loss) * vector)
            return self._gradient(outer, along), tf.zeros(3)

        return self._loop(step, inputs)

    def _loop(
        self, step: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]], inputs: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The sum of the steps' vectors, (P,), and what each step told, (steps, 3)."""
        import tensorflow as tf

        def body(
            index: tf.Tensor, total: tf.Tensor, told: tf.TensorArray
        ) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray]:
            vector, each = step(index)
            return index + 1, total + vector, told.write(index, each)

        steps = tf.shape(inputs)[0]
        start = (tf.constant(0), tf.zeros(self.size), tf.TensorArray(tf.float32, steps, element_shape=(3,)))
        _, total, told = tf.while_loop(
            lambda index, *_: index < steps, body, start, parallel_iterations=1
        )  # one step at a time, for activations of several would not fit
        return total, told.stack()

    @contextmanager
    def _tape(self) -> Iterator[tf.GradientTape]:
        """Watches what the stage trains; by itself a tape would watch frozen variables too."""
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([variable.value for variable in self._variables])
            yield tape

    def _loss(self, inputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        predicted = self._model(inputs, training=False)
        return self._model.compute_loss(x=inputs, y=labels, y_pred=predicted, training=False)

    def _gradient(self, tape: tf.GradientTape, value: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        watched = [variable.value for variable in self._variables]
        found = tape.gradient(value, watched, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return tf.concat([tf.reshape(each, [-1]) for each in found], axis=0)
