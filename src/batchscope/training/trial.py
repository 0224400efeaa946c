"""A trial: the study's stages at one batch size and replicate, a record an epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from batchscope.data import TrainingData
from batchscope.records import BatchProgress, EpochRecord, Trial
from batchscope.schedule import StageSchedule, schedule
from batchscope.spec import Stage, Study
from batchscope.training.augment import draw_views
from batchscope.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from batchscope.training.inputs import Batches, ImageFeed
from batchscope.training.network import Network, build_backbone, build_network
from batchscope.training.probes import ProbePlan, probe_rows, recalibrate, run_probes
from batchscope.training.recalibration import averages_kept, use_moments
from batchscope.training.stage_program import StageProgram, assign, compile_stage, values
from batchscope.training.streams import Purpose, generator, seed_for

__all__ = ["OnBatch", "Trainer"]

OnBatch = Callable[[BatchProgress], None]


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
        self._pretrained = values(self._network.backbone.variables)
        self._probed = probe_rows(data.split.training, data.labels, study.probe_images, study.data.split_seed)
        self._programs: dict[tuple[str, int], StageProgram] = {}
        for batch_size in study.batch_sizes:
            for planned in self._schedule(batch_size):
                self._program(planned)

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
        from there when the state belongs to what is stored; otherwise it starts anew and gives
        its records again, with the same figures.

        Args:
            trial: Batch size and replicate.
            checkpoint: File to keep the state in; None to keep none.
            stored_epochs: How many epochs of this trial are safely stored.
            on_batch: Told after every update.

        Yields:
            Records, in order of epochs. After one whose loss is not finite no more follow.
        """
        saved = None if checkpoint is None else load_checkpoint(checkpoint)
        if saved is not None and not _follows(saved, trial, stored_epochs):
            saved = None
        if saved is None:
            assign(self._variables, self._initial_weights(trial.replicate))
            last = _START
        else:
            assign(self._variables, saved.weights)
            last = saved.record
            if last.epoch > stored_epochs:
                yield last
        for planned in self._schedule(trial.batch_size):
            if last.epoch >= planned.last_epoch:
                continue
            if not _finite(last):
                return
            program = self._program(planned)
            program.enter(
                self._network, saved.optimizer if saved and last.epoch >= planned.first_epoch else None
            )
            for epoch in range(last.epoch + 1, planned.last_epoch + 1):
                last = self._train_epoch(planned, trial, epoch, last, on_batch)
                if checkpoint is not None:
                    state = Checkpoint(
                        trial.name, last, values(self._variables), values(program.optimizer.variables)
                    )
                    save_checkpoint(state, checkpoint)
                yield last
                if not _finite(last):
                    return

    def _schedule(self, batch_size: int) -> tuple[StageSchedule, ...]:
        return schedule(self._study, batch_size, len(self._data.split.training))

    def _program(self, planned: StageSchedule) -> StageProgram:
        """The stage's graphs, built when they are first asked for, before any trial's weights are set."""
        parts = planned.batch_size // planned.forward_batch
        key = planned.stage.name, parts
        if key not in self._programs:
            self._programs[key] = compile_stage(
                planned.stage,
                parts,
                self._network,
                self._feed,
                self._data.split.training[:2],
                probes=self._study.probes != "none",
            )
        return self._programs[key]

    def _initial_weights(self, replicate: int) -> list[NDArray[np.generic]]:
        """The backbone's pretrained or seeded random weights, and the replicate's head."""
        seed = seed_for(Purpose.WEIGHTS, self._study.seed, replicate)
        backbone = self._pretrained
        if self._study.model.weights == "none":
            keras.utils.set_random_seed(seed)
            backbone = values(build_backbone(self._study.model).variables)
        head = self._network.head
        kernel = keras.initializers.GlorotUniform(seed=seed)(head.kernel.shape)
        return [
            *self._seeded(backbone, seed),
            keras.ops.convert_to_numpy(kernel),
            np.zeros(head.bias.shape, dtype=np.float32),
        ]

    def _seeded(self, backbone: Sequence[NDArray[np.generic]], seed: int) -> Iterator[NDArray[np.generic]]:
        """Values with the states of random layers, such as dropout, set from the replicate."""
        weights = {id(variable) for variable in self._network.backbone.weights}
        stream = np.random.default_rng(seed)
        for variable, value in zip(self._network.backbone.variables, backbone, strict=True):
            if id(variable) in weights:
                yield value
            else:
                yield stream.integers(2**31, size=value.shape).astype(value.dtype)

    def _train_epoch(
        self, planned: StageSchedule, trial: Trial, epoch: int, last: EpochRecord, on_batch: OnBatch | None
    ) -> EpochRecord:
        program, stage = self._program(planned), planned.stage
        views = self._views(stage, trial, epoch)
        batches = self._training_batches(planned, views, trial, epoch)
        callbacks = [] if on_batch is None else [_Reporter(stage.name, epoch, batches, on_batch)]
        start = time.perf_counter()
        fitted = program.model.fit(batches, epochs=1, shuffle=False, verbose=0, callbacks=callbacks)
        seconds = time.perf_counter() - start
        reported = {name: figures[0] for name, figures in fitted.history.items()}
        validation = self._validate(program, trial)
        probed = math.isfinite(reported["loss"]) and self._is_probed(planned, epoch)
        return EpochRecord(
            stage=stage.name,
            epoch=epoch,
            updates=last.updates + planned.updates_in(epoch),
            examples=last.examples + batches.examples,
            seconds=last.seconds + seconds,
            learning_rate=stage.learning_rate,
            train_loss=float(reported["loss"]),
            train_accuracy=float(reported["accuracy"]),
            val_loss=validation["loss"],
            val_accuracy=validation["accuracy"],
            probes=self._probe(planned, trial, epoch, views) if probed else {},
        )

    def _views(self, stage: Stage, trial: Trial, epoch: int) -> NDArray[np.float32] | None:
        """The transform of each training image in this epoch, the same at every batch size."""
        if stage.augmentation is None:
            return None
        stream = generator(Purpose.VIEWS, self._study.seed, trial.replicate, epoch)
        count = len(self._data.split.training)
        return draw_views(stage.augmentation, count, self._study.model.image_size, stream)

    def _training_batches(
        self, planned: StageSchedule, views: NDArray[np.float32] | None, trial: Trial, epoch: int
    ) -> Batches:
        rows = self._data.split.training
        order = generator(Purpose.ORDER, self._study.seed, trial.replicate, epoch).permutation(len(rows))
        shown = order[: planned.examples_in(epoch)]
        return Batches(
            self._feed, rows[shown], None if views is None else views[shown], planned.forward_batch
        )

    def _validate(self, program: StageProgram, trial: Trial) -> Mapping[str, float]:
        rows = self._validation_rows(trial)
        if program.stage.evaluation == "moving":
            return program.evaluator.stored(rows)
        backbone = self._network.backbone
        moments = recalibrate(self._feed, backbone, self._data.split.training[self._probed])
        with averages_kept(backbone):
            use_moments(backbone, moments)
            return program.evaluator.stored(rows)

    def _validation_rows(self, trial: Trial) -> NDArray[np.int64]:
        rows = self._data.split.validation
        keep = self._study.last_batch == "keep"
        return rows if keep else rows[: len(rows) - len(rows) % trial.batch_size]

    def _is_probed(self, planned: StageSchedule, epoch: int) -> bool:
        wanted = self._study.probes
        return wanted == "every" or (wanted == "last" and epoch == planned.last_epoch)

    def _probe(
        self, planned: StageSchedule, trial: Trial, epoch: int, views: NDArray[np.float32] | None
    ) -> dict[str, float]:
        plan = ProbePlan(
            training=self._data.split.training[self._probed],
            views=None if views is None else views[self._probed],
            validation=self._validation_rows(trial),
            batch_size=planned.forward_batch,
            stale_weight=self._stale_weight(trial, epoch),
        )
        return run_probes(self._program(planned).evaluator, self._network.backbone, plan)

    def _stale_weight(self, trial: Trial, epoch: int) -> float:
        """Product over the batches so far that moved the averages, of the momentum then in force."""
        own = next(iter(self._network.momenta.values()), math.nan)
        weight = 1.0
        for planned in self._schedule(trial.batch_size):
            if planned.stage.batchnorm == "inference" or epoch < planned.first_epoch:
                continue
            given = planned.stage.batchnorm_momentum
            until = min(epoch, planned.last_epoch)
            updates = sum(planned.updates_in(done) for done in range(planned.first_epoch, until + 1))
            moves = updates * (planned.batch_size // planned.forward_batch)
            weight *= (own if given is None else given) ** moves
        return weight


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


def _follows(saved: Checkpoint, trial: Trial, stored_epochs: int) -> bool:
    """Whether a checkpoint is of the last stored epoch or of the one behind it, whose record it holds.

    Older ones miss epochs; newer ones would leave a hole in the history.
    """
    return saved.trial == trial.name and saved.record.epoch - stored_epochs in (0, 1)


def _finite(record: EpochRecord) -> bool:
    return math.isfinite(record.train_loss)
