"""A stage made ready to train: its compiled model, its optimizer, its evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from batchscope.spec import Stage
from batchscope.training.inputs import Batches, ImageFeed
from batchscope.training.network import Network, set_trainable
from batchscope.training.probes import Evaluator

__all__ = ["StageProgram", "assign", "compile_stage", "values"]


@dataclass(frozen=True, eq=False)
class StageProgram:
    """A stage's compiled model, kept from trial to trial so that its graph is traced once.

    Attributes:
        stage: The stage.
        model: Compiled for training.
        optimizer: The model's.
        fresh_optimizer: Values of the optimizer's variables before any update.
        evaluator: For validation and probes.
    """

    stage: Stage
    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    fresh_optimizer: Sequence[NDArray[np.generic]]
    evaluator: Evaluator

    def enter(self, network: Network, state: Sequence[NDArray[np.generic]] | None) -> None:
        """Freezes and frees layers for this stage and sets the optimizer's state; None: afresh."""
        set_trainable(network, self.stage)
        assign(self.optimizer.variables, self.fresh_optimizer if state is None else state)


def compile_stage(
    stage: Stage,
    parts: int,
    network: Network,
    feed: ImageFeed,
    warm_up: NDArray[np.int64],
    *,
    probes: bool,
) -> StageProgram:
    """Builds and traces a stage's graphs, off the clock of any trial.

    Args:
        stage: The stage.
        parts: In how many parts a batch passes the network; their gradients make one update.
        network: The layers that all stages share; their values are moved.
        feed: Source of the images.
        warm_up: Rows of a few training images.
        probes: Whether the graph that probes need is traced too.
    """
    set_trainable(network, stage)
    model = network.assemble(stage)
    config = {"learning_rate": stage.learning_rate}
    if parts > 1:
        config["gradient_accumulation_steps"] = parts
    optimizer = keras.optimizers.get({"class_name": stage.optimizer, "config": config})
    optimizer.build(model.trainable_variables)
    _compile(model, network, optimizer)
    fresh = values(optimizer.variables)
    batches = Batches(feed, warm_up, None, len(warm_up))
    model.fit(batches, epochs=1, shuffle=False, verbose=0)
    own_mode = model
    if probes and stage.batchnorm == "batch":
        own_mode = network.assemble_in_training_mode()
        _compile(own_mode, network, None)
    for evaluated in {id(model): model, id(own_mode): own_mode}.values():
        evaluated.evaluate(batches, verbose=0)
    return StageProgram(stage, model, optimizer, fresh, Evaluator(feed, model, own_mode))


def _compile(model: keras.Model, network: Network, optimizer: keras.optimizers.Optimizer | None) -> None:
    binary = network.head.units == 1
    accuracy = keras.metrics.BinaryAccuracy if binary else keras.metrics.SparseCategoricalAccuracy
    model.compile(
        optimizer=optimizer,
        loss="binary_crossentropy" if binary else "sparse_categorical_crossentropy",
        metrics=[accuracy(name="accuracy")],
    )


def values(variables: Sequence[keras.Variable]) -> list[NDArray[np.generic]]:
    """Copies of variables' values."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assign(variables: Sequence[keras.Variable], new: Sequence[NDArray[np.generic]]) -> None:
    """Sets variables to values of the same shapes, in the same order."""
    for variable, value in zip(variables, new, strict=True):
        variable.assign(value)
