"""A trial: the study's stages at one batch size and replicate, a record an epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from batchscope.data import TrainingData
from batchscope.records import BatchProgress, EpochRecord, Trial
from batchscope.spec import Stage, Study
from batchscope.training.augment import draw_views
from batchscope.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from batchscope.training.inputs import Batches, ImageFeed
from batchscope.training.network import Network, build_backbone, build_network, set_trainable
from batchscope.training.streams import Purpose, generator, seed_for

__all__ = ["OnBatch", "Trainer"]

# Evaluation has no say in the figures' mathematics, so its batches are as large as is quick.
_EVALUATION_BATCH = 256


OnBatch = Callable[[BatchProgress], None]


@dataclass(frozen=True, eq=False)
class _StageProgram:
    """A stage's compiled model, kept from trial to trial so that its graph is traced once."""

    stage: Stage
    first_epoch: int
    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    fresh_optimizer: Sequence[NDArray[np.generic]]


class Trainer:
    """Carries out the trials of one study in this process, one after the other.

    The network is built once; each trial starts from the same pretrained weights and from its
    replicate's random ones.

    Args:
        study: The recipe.
        data: The images.

    Raises:
        TrainingError: The recipe does not fit the backbone.
        WeightsError: The weights cannot be had or do not fit.
    """

    def __init__(self, study: Study, data: TrainingData) -> None:
        self._study, self._data = study, data
        self._feed = ImageFeed(data.images, data.labels, study.model)
        self._network = build_network(study.model, len(data.classes))
        self._variables = [*self._network.backbone.variables, *self._network.head.variables]
        self._pretrained = _values(self._network.backbone.variables)
        starts = np.cumsum([1, *(stage.epochs for stage in study.stages)])
        self._programs = [
            self._compile(stage, int(start)) for stage, start in zip(study.stages, starts, strict=False)
        ]

    @property
    def network(self) -> Network:
        """The layers, holding the weights of the trial that ran last."""
        return self._network

    def run(
        self,
        trial: Trial,
        checkpoint: Path | None = None,
        stored_epochs: int = 0,
        on_batch: OnBatch | None = None,
    ) -> Iterator[EpochRecord]:
        """Trains a trial and gives the record of each epoch as it ends.

        Before a record is given, the state behind it is saved to `checkpoint`. A trial goes on
        from there when the state is no older than what is stored; otherwise it starts anew and
        gives its records again, with the same figures.

        Args:
            trial: Batch size and replicate.
            checkpoint: File to keep the state in; None to keep none.
            stored_epochs: How many epochs of this trial are safely stored.
            on_batch: Told after every update.

        Yields:
            Records, in order of epochs. After one whose loss is not finite no more follow.
        """
        saved = None if checkpoint is None else load_checkpoint(checkpoint)
        if saved is not None and (saved.trial != trial.name or saved.record.epoch < stored_epochs):
            saved = None
        if saved is None:
            _assign(self._variables, self._initial_weights(trial.replicate))
            last = _START
        else:
            _assign(self._variables, saved.weights)
            last = saved.record
            if last.epoch > stored_epochs:
                yield last
        for program in self._programs:
            end = program.first_epoch + program.stage.epochs
            if last.epoch >= end - 1:
                continue
            if not _finite(last):
                return
            self._enter(program, saved if last.epoch >= program.first_epoch else None)
            for epoch in range(last.epoch + 1, end):
                last = self._train_epoch(program, trial, epoch, last, on_batch)
                if checkpoint is not None:
                    state = Checkpoint(
                        trial.name, last, _values(self._variables), _values(program.optimizer.variables)
                    )
                    save_checkpoint(state, checkpoint)
                yield last
                if not _finite(last):
                    return

    def _compile(self, stage: Stage, first_epoch: int) -> _StageProgram:
        set_trainable(self._network, stage)
        model = self._network.assemble(stage)
        optimizer = keras.optimizers.get(
            {"class_name": stage.optimizer, "config": {"learning_rate": stage.learning_rate}}
        )
        optimizer.build(model.trainable_variables)
        binary = len(self._data.classes) == 2
        model.compile(
            optimizer=optimizer,
            loss="binary_crossentropy" if binary else "sparse_categorical_crossentropy",
            metrics=[
                keras.metrics.BinaryAccuracy(name="accuracy")
                if binary
                else keras.metrics.SparseCategoricalAccuracy(name="accuracy")
            ],
        )
        program = _StageProgram(stage, first_epoch, model, optimizer, _values(optimizer.variables))
        self._warm_up(model)
        return program

    def _warm_up(self, model: keras.Model) -> None:
        """Traces the graphs off the clock; each trial assigns all state that this moves."""
        batches = Batches(self._feed, self._data.split.training[:2], None, 2, keep_last=True)
        model.fit(batches, epochs=1, shuffle=False, verbose=0)
        model.evaluate(batches, verbose=0)

    def _initial_weights(self, replicate: int) -> list[NDArray[np.generic]]:
        """The backbone's pretrained or seeded random weights, and the replicate's head."""
        seed = seed_for(Purpose.WEIGHTS, self._study.seed, replicate)
        backbone = self._pretrained
        if self._study.model.weights == "none":
            keras.utils.set_random_seed(seed)
            backbone = _values(build_backbone(self._study.model).variables)
        head = self._network.head
        kernel = keras.initializers.GlorotUniform(seed=seed)(head.kernel.shape)
        return [*backbone, keras.ops.convert_to_numpy(kernel), np.zeros(head.bias.shape, dtype=np.float32)]

    def _enter(self, program: _StageProgram, saved: Checkpoint | None) -> None:
        set_trainable(self._network, program.stage)
        state = program.fresh_optimizer if saved is None else saved.optimizer
        _assign(program.optimizer.variables, state)

    def _train_epoch(
        self, program: _StageProgram, trial: Trial, epoch: int, last: EpochRecord, on_batch: OnBatch | None
    ) -> EpochRecord:
        batches = self._training_batches(program.stage, trial, epoch)
        callbacks = [] if on_batch is None else [_Reporter(program.stage.name, epoch, batches, on_batch)]
        start = time.perf_counter()
        fitted = program.model.fit(batches, epochs=1, shuffle=False, verbose=0, callbacks=callbacks)
        seconds = time.perf_counter() - start
        reported = {name: values[0] for name, values in fitted.history.items()}
        validation = self._evaluate(program.model, trial.batch_size)
        return replace(
            last,
            stage=program.stage.name,
            epoch=epoch,
            updates=last.updates + len(batches),
            examples=last.examples + batches.examples,
            seconds=last.seconds + seconds,
            learning_rate=program.stage.learning_rate,
            train_loss=float(reported["loss"]),
            train_accuracy=float(reported["accuracy"]),
            val_loss=float(validation["loss"]),
            val_accuracy=float(validation["accuracy"]),
        )

    def _training_batches(self, stage: Stage, trial: Trial, epoch: int) -> Batches:
        seed, rows = self._study.seed, self._data.split.training
        order = generator(Purpose.ORDER, seed, trial.replicate, epoch).permutation(len(rows))
        views = None
        if stage.augmentation is not None:
            stream = generator(Purpose.VIEWS, seed, trial.replicate, epoch)
            views = draw_views(stage.augmentation, len(rows), self._study.model.image_size, stream)[order]
        keep_last = self._study.last_batch == "keep"
        return Batches(self._feed, rows[order], views, trial.batch_size, keep_last=keep_last)

    def _evaluate(self, model: keras.Model, batch_size: int) -> Mapping[str, float]:
        rows = self._data.split.validation
        if self._study.last_batch == "drop":
            rows = rows[: len(rows) - len(rows) % batch_size]
        batches = Batches(self._feed, rows, None, _EVALUATION_BATCH, keep_last=True)
        result: Mapping[str, float] = model.evaluate(batches, verbose=0, return_dict=True)
        return result


class _Reporter(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped
    """Tells where the epoch stands after every update."""

    def __init__(self, stage: str, epoch: int, batches: Batches, on_batch: OnBatch) -> None:
        super().__init__()
        self._stage, self._epoch, self._batches, self._on_batch = stage, epoch, batches, on_batch
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        accuracy = math.nan if logs is None else float(logs["accuracy"])
        seconds = time.perf_counter() - self._start
        examples = self._batches.examples_after(batch)
        self._on_batch(
            BatchProgress(self._stage, self._epoch, examples, self._batches.examples, accuracy, seconds)
        )


_START = EpochRecord(
    stage="",
    epoch=0,
    updates=0,
    examples=0,
    seconds=0.0,
    learning_rate=0.0,
    train_loss=0.0,
    train_accuracy=0.0,
    val_loss=0.0,
    val_accuracy=0.0,
)


def _finite(record: EpochRecord) -> bool:
    return math.isfinite(record.train_loss)


def _values(variables: Sequence[keras.Variable]) -> list[NDArray[np.generic]]:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _assign(variables: Sequence[keras.Variable], values: Sequence[NDArray[np.generic]]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
