"""A stage made ready to train: its models, its optimizer, its loops, what it is fed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from batchscope.schedule import StageSchedule
from batchscope.spec import Stage
from batchscope.training.cut import Cut
from batchscope.training.graphs import draws_random_numbers
from batchscope.training.loops import Loop, make_loop
from batchscope.training.network import Network, set_trainable
from batchscope.training.probes import Evaluator
from batchscope.training.recalibration import normalises_by_the_batch
from batchscope.training.rewriting import Mode, rewrite
from batchscope.training.sources import ReadySource
from batchscope.training.warmup import Pace, make_optimizer

__all__ = ["StageProgram", "assign", "compile_stage", "evaluation_model", "values"]

_WARM_UP = 2


@dataclass(frozen=True, eq=False)
class StageProgram:
    """A stage's compiled models, kept from trial to trial so that their graphs are traced once.

    Attributes:
        stage: The stage.
        inputs: Shape of one example as the models take it.
        loop: Trains.
        optimizer: The training model's.
        pace: What sets its learning rate where the stage warms up; else None.
        fresh_optimizer: Values of the optimizer's variables before any update.
        evaluator: For validation and probes.
    """

    stage: Stage
    inputs: tuple[int, ...]
    loop: Loop
    optimizer: keras.optimizers.Optimizer
    pace: Pace | None
    fresh_optimizer: Sequence[NDArray[np.generic]]
    evaluator: Evaluator

    def enter(
        self, network: Network, planned: StageSchedule, state: Sequence[NDArray[np.generic]] | None
    ) -> None:
        """Freezes and frees layers for this stage and sets the optimizer for a trial.

        Args:
            network: As for `compile_stage`.
            planned: Tells the trial's learning rate.
            state: The optimizer's, where the trial goes on within the stage; None: afresh.
        """
        set_trainable(network, self.stage)
        assign(self.optimizer.variables, self.fresh_optimizer if state is None else state)
        if self.pace is None:
            self.optimizer.learning_rate = planned.learning_rate
        else:
            self.pace.set(planned.learning_rate, planned.warmup)

    def blank(self, count: int) -> ReadySource:
        """Examples of zeros."""
        return ReadySource(np.zeros((count, *self.inputs), np.float32), np.zeros(count, np.int64))


def compile_stage(
    stage: Stage, parts: int, network: Network, cut: Cut, evaluator: Evaluator | None = None
) -> StageProgram:
    """Builds and traces a stage's graphs, off the clock of any trial.

    Args:
        stage: The stage.
        parts: In how many parts a batch passes the network; their gradients make one update.
        network: The layers that all stages share; their values are moved.
        cut: What of the backbone stays as it is, and is left out here.
        evaluator: That of a stage which evaluates the same layers in the same modes; None to make one.
    """
    set_trainable(network, stage)
    trained = _trained(stage, network, cut)
    optimizer, pace = make_optimizer(stage, parts)
    optimizer.build(trained.trainable_variables)
    _compile(trained, network, optimizer)
    fresh = values(optimizer.variables)
    loop = make_loop(trained)
    own = evaluator or _make_evaluator(stage, network, loop)
    program = StageProgram(stage, trained.input_shape[1:], loop, optimizer, pace, fresh, own)
    _trace(program, evaluates=evaluator is None)
    return program


def _trained(stage: Stage, network: Network, cut: Cut) -> keras.Model:
    """The network behind the cut, in the mode of training."""
    backbone = network.backbone
    if stage.batchnorm == "batch":
        return network.assemble(rewrite(backbone, "batch"), training=True)
    if cut.whole:
        return network.head_alone()
    behind = backbone if cut.tensor is None else keras.Model(cut.tensor, backbone.output)
    return network.assemble(rewrite(behind, "inference"), training=False)


def _make_evaluator(stage: Stage, network: Network, loop: Loop) -> Evaluator:
    """From the training loop where that will do, and else from models of their own.

    What a batch is normalised by is the mode's; random layers, such as dropout, rest in every evaluation.
    """
    backbone = network.backbone
    rests = not any(draws_random_numbers(layer) for layer in backbone.layers)
    normalises = normalises_by_the_batch(stage, backbone)
    if stage.batchnorm == "inference" or (rests and not normalises):
        return Evaluator(stored=loop, own_mode=loop)
    stored = make_loop(evaluation_model(network, "inference"))
    if not normalises:
        return Evaluator(stored=stored, own_mode=stored)
    return Evaluator(
        stored=stored, own_mode=loop if rests else make_loop(evaluation_model(network, "steady"))
    )


def evaluation_model(network: Network, mode: Mode) -> keras.Model:
    """The whole network in one mode, with the loss of training and without an optimizer."""
    model = network.assemble(rewrite(network.backbone, mode), training=mode != "inference")
    _compile(model, network, None)
    return model


def _compile(model: keras.Model, network: Network, optimizer: keras.optimizers.Optimizer | None) -> None:
    binary = network.outputs == 1
    accuracy = keras.metrics.BinaryAccuracy if binary else keras.metrics.SparseCategoricalAccuracy
    model.compile(
        optimizer=optimizer,
        loss="binary_crossentropy" if binary else "sparse_categorical_crossentropy",
        metrics=[accuracy(name="accuracy")],
    )


def _trace(program: StageProgram, *, evaluates: bool) -> None:
    """Runs every graph once; those of the evaluator unless they were."""
    order = np.arange(_WARM_UP)
    source = program.blank(_WARM_UP)
    program.loop.train(source, order, _WARM_UP)
    if not evaluates:
        return
    for loop in {id(loop): loop for loop in (program.evaluator.stored, program.evaluator.own_mode)}.values():
        loop.evaluate(source, order, _WARM_UP)


def values(variables: Sequence[keras.Variable]) -> list[NDArray[np.generic]]:
    """Copies of variables' values."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assign(variables: Sequence[keras.Variable], new: Sequence[NDArray[np.generic]]) -> None:
    """Sets variables to values of the same shapes, in the same order."""
    for variable, value in zip(variables, new, strict=True):
        variable.assign(value)
