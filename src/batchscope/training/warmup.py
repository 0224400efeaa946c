"""A stage's optimizer, whose learning rate is set for each trial and may be warmed up."""

from __future__ import annotations

from typing import Any

import keras

from batchscope.spec import LearningRate, Stage

__all__ = ["Pace", "make_optimizer"]

_OPTIMIZERS = {
    "rmsprop": keras.optimizers.RMSprop,
    "adam": keras.optimizers.Adam,
    "sgd": keras.optimizers.SGD,
}
# Until a trial sets its own.
_ANY = 1e-3


class Pace(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]  # Keras is untyped
    """A learning rate that rises to its value in equal steps: update u of W takes u / W of it.

    It is computed where the optimizer is, inside the compiled program, from variables of the optimizer, so
    that one graph serves all trials and a checkpoint holds where it stands.

    Args:
        parts: Steps of the optimizer that make one update.
    """

    def __init__(self, parts: int) -> None:
        self._parts = parts
        self._rate: Any = None
        self._warmup: Any = None

    def join(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Makes its variables the optimizer's, before that is built."""
        self._rate = optimizer.add_variable((), name="full_learning_rate")
        self._warmup = optimizer.add_variable((), name="warmup_updates")

    def set(self, learning_rate: float, warmup: int) -> None:
        """Sets the learning rate after the warm-up, and how many updates that takes."""
        self._rate.assign(learning_rate)
        self._warmup.assign(warmup)

    def __call__(self, step: Any) -> Any:
        """The learning rate of a step, counted from 0."""
        update = keras.ops.cast(keras.ops.floor_divide(step, self._parts) + 1, self._rate.dtype)
        return self._rate * keras.ops.minimum(update / self._warmup, 1.0)


def make_optimizer(stage: Stage, parts: int) -> tuple[keras.optimizers.Optimizer, Pace | None]:
    """A stage's optimizer, with Keras' defaults but for the learning rate.

    Args:
        stage: The stage.
        parts: In how many parts a batch passes the network.

    Returns:
        The optimizer, and what sets its learning rate where the stage warms up. Without a warm-up the
        learning rate is a variable that the optimizer itself sets.
    """
    given = stage.learning_rate
    warms_up = isinstance(given, LearningRate) and (given.warmup_epochs or given.warmup_updates) is not None
    pace = Pace(parts) if warms_up else None
    steps = parts if parts > 1 else None
    optimizer = _OPTIMIZERS[stage.optimizer](
        learning_rate=_ANY if pace is None else pace, gradient_accumulation_steps=steps
    )
    if pace is not None:
        pace.join(optimizer)
    return optimizer, pace
