"""A stage made ready to train: its models, its optimizer, its loops, what it is fed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from batchscope.spec import Stage
from batchscope.training.cut import Cut
from batchscope.training.loops import Loop, make_loop
from batchscope.training.network import Network, set_trainable
from batchscope.training.probes import Evaluator
from batchscope.training.rewriting import rewrite
from batchscope.training.sources import ReadySource

__all__ = ["StageProgram", "assign", "compile_stage", "values"]

_WARM_UP = 2


@dataclass(frozen=True, eq=False)
class StageProgram:
    """A stage's compiled models, kept from trial to trial so that their graphs are traced once.

    Attributes:
        stage: The stage.
        inputs: Shape of one example as the models take it.
        loop: Trains.
        optimizer: The training model's.
        fresh_optimizer: Values of the optimizer's variables before any update.
        evaluator: For validation and probes.
    """

    stage: Stage
    inputs: tuple[int, ...]
    loop: Loop
    optimizer: keras.optimizers.Optimizer
    fresh_optimizer: Sequence[NDArray[np.generic]]
    evaluator: Evaluator

    def enter(self, network: Network, state: Sequence[NDArray[np.generic]] | None) -> None:
        """Freezes and frees layers for this stage and sets the optimizer's state; None: afresh."""
        set_trainable(network, self.stage)
        assign(self.optimizer.variables, self.fresh_optimizer if state is None else state)

    def blank(self, count: int) -> ReadySource:
        """Examples of zeros."""
        return ReadySource(np.zeros((count, *self.inputs), np.float32), np.zeros(count, np.int64))


def compile_stage(stage: Stage, parts: int, network: Network, cut: Cut) -> StageProgram:
    """Builds and traces a stage's graphs, off the clock of any trial.

    Args:
        stage: The stage.
        parts: In how many parts a batch passes the network; their gradients make one update.
        network: The layers that all stages share; their values are moved.
        cut: What of the backbone stays as it is, and is left out here.
    """
    set_trainable(network, stage)
    trained, evaluated = _models(stage, network, cut)
    config = {"learning_rate": stage.learning_rate}
    if parts > 1:
        config["gradient_accumulation_steps"] = parts
    optimizer = keras.optimizers.get({"class_name": stage.optimizer, "config": config})
    optimizer.build(trained.trainable_variables)
    _compile(trained, network, optimizer)
    fresh = values(optimizer.variables)
    loop = make_loop(trained)
    if evaluated is trained:
        stored = loop
    else:
        _compile(evaluated, network, None)
        stored = make_loop(evaluated)
    program = StageProgram(
        stage, trained.input_shape[1:], loop, optimizer, fresh, Evaluator(stored=stored, own_mode=loop)
    )
    _trace(program)
    return program


def _models(stage: Stage, network: Network, cut: Cut) -> tuple[keras.Model, keras.Model]:
    """The network in the mode of training, and with stored averages; the same in inference mode."""
    backbone = network.backbone
    if stage.batchnorm == "batch":
        trained = network.assemble(rewrite(backbone, "batch"), training=True)
        return trained, network.assemble(rewrite(backbone, "inference"), training=False)
    if cut.whole:
        model = network.head_alone()
    else:
        behind = backbone if cut.tensor is None else keras.Model(cut.tensor, backbone.output)
        model = network.assemble(rewrite(behind, "inference"), training=False)
    return model, model


def _compile(model: keras.Model, network: Network, optimizer: keras.optimizers.Optimizer | None) -> None:
    binary = network.head.units == 1
    accuracy = keras.metrics.BinaryAccuracy if binary else keras.metrics.SparseCategoricalAccuracy
    model.compile(
        optimizer=optimizer,
        loss="binary_crossentropy" if binary else "sparse_categorical_crossentropy",
        metrics=[accuracy(name="accuracy")],
    )


def _trace(program: StageProgram) -> None:
    """Runs every graph once."""
    order = np.arange(_WARM_UP)
    source = program.blank(_WARM_UP)
    program.loop.train(source, order, _WARM_UP)
    for loop in {id(loop): loop for loop in (program.evaluator.stored, program.evaluator.own_mode)}.values():
        loop.evaluate(source, order, _WARM_UP)


def values(variables: Sequence[keras.Variable]) -> list[NDArray[np.generic]]:
    """Copies of variables' values."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assign(variables: Sequence[keras.Variable], new: Sequence[NDArray[np.generic]]) -> None:
    """Sets variables to values of the same shapes, in the same order."""
    for variable, value in zip(variables, new, strict=True):
        variable.assign(value)
