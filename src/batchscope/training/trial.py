"""A trial: the study's stages at one batch size and replicate, a record an epoch."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from batchscope.data import TrainingData
from batchscope.records import BatchProgress, EpochRecord, Trial
from batchscope.schedule import StageSchedule, schedule
from batchscope.spec import Stage, Study
from batchscope.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from batchscope.training.cut import find_cut
from batchscope.training.features import NOTHING_KEPT, FeatureStore
from batchscope.training.feeding import Examples, Feeding, make_feeding
from batchscope.training.initial import initial_values
from batchscope.training.inputs import make_feed
from batchscope.training.loops import Figures, OnStep
from batchscope.training.memory import shortage_told
from batchscope.training.network import Network, build_network
from batchscope.training.probes import Evaluator, ProbePlan, probe_rows, recalibrate, run_probes
from batchscope.training.recalibration import averages_kept, batchnorm_layers, use_moments
from batchscope.training.recipe import check_recipe
from batchscope.training.sources import ImageSource, Source
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
        data: The examples.
        store: Keeps ready features, shared by all workers of a run.

    Raises:
        TrainingError: The recipe does not fit the network or the data.
        WeightsError: The weights cannot be had or do not fit.
    """

    def __init__(
        self,
        study: Study,
        data: TrainingData,
        store: FeatureStore = NOTHING_KEPT,
    ) -> None:
        self._study, self._data = study, data
        self._digest = hashlib.sha256(study.model_dump_json().encode()).hexdigest()
        feed = make_feed(study.model, data)
        self._network = build_network(study.model, feed.shape, len(data.classes))
        check_recipe(study, self._network, feed.shape)
        self._variables = self._network.variables
        self._start = values(self._variables)
        probed = probe_rows(data.split.training, data.labels, study.probe_images, study.data.split_seed)
        self._examples = Examples(feed, data.split.training, data.split.validation, probed, study.seed)
        network = self._network
        self._cuts = {
            stage.name: find_cut(study.stages, index, network.backbone)
            for index, stage in enumerate(study.stages)
        }
        self._feedings = {
            stage.name: make_feeding(study, stage, self._cuts[stage.name], self._examples, network, store)
            for stage in study.stages
        }
        self._programs: dict[tuple[str, int], StageProgram] = {}
        for batch_size in study.batch_sizes:
            for planned in self._schedule(batch_size):
                self._program(planned)

    @property
    def paths(self) -> Mapping[str, str]:
        """What of the network each stage trains and computes, and why, by the stage's name."""
        return {name: cut.reason for name, cut in self._cuts.items()}

    @property
    def network(self) -> Network:
        """The layers, holding the weights of the trial that ran last."""
        return self._network

    def measure(self, seconds: float) -> float:
        """Trains on nothing for a while, to see how fast that goes here and now.

        Args:
            seconds: How long, about; evenly spent on the stages.

        Returns:
            Examples per second over a whole trial of the smallest batch size, without what is done
            once for all trials.
        """
        stages = self._schedule(min(self._study.batch_sizes))
        times = [self._seconds_per_example(planned, seconds / len(stages)) for planned in stages]
        spent = sum(planned.examples * each for planned, each in zip(stages, times, strict=True))
        return sum(planned.examples for planned in stages) / spent

    def _seconds_per_example(self, planned: StageSchedule, seconds: float) -> float:
        program = self._program(planned)
        program.enter(self._network, None)
        source, batch_size = program.blank(_MEASURED_BATCHES * planned.forward_batch), planned.forward_batch
        order, done, start = np.arange(len(source)), 0, time.perf_counter()
        while done == 0 or time.perf_counter() - start < seconds:
            program.loop.train(source, order, batch_size)
            done += len(source)
        return (time.perf_counter() - start) / done

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

        Raises:
            TrainingError: The checkpoint cannot be read or written, or memory ran out.
        """
        with shortage_told(f"training at batch size {trial.batch_size}"):
            yield from self._records(trial, checkpoint, stored_epochs, on_batch)

    def _records(
        self, trial: Trial, checkpoint: Path | None, stored_epochs: int, on_batch: OnBatch | None
    ) -> Iterator[EpochRecord]:
        saved = None if checkpoint is None else load_checkpoint(checkpoint)
        if saved is not None and not (saved.study == self._digest and _follows(saved, trial, stored_epochs)):
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
                    weights, optimizer = values(self._variables), values(program.optimizer.variables)
                    save_checkpoint(
                        Checkpoint(self._digest, trial.name, last, weights, optimizer), checkpoint
                    )
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
            cut, evaluator = self._cuts[planned.stage.name], self._evaluator_for(planned.stage)
            self._programs[key] = compile_stage(planned.stage, parts, self._network, cut, evaluator)
        return self._programs[key]

    def _evaluator_for(self, stage: Stage) -> Evaluator | None:
        """That of a stage which evaluates alike, if there is one: to trace the network takes seconds."""

        def evaluated(each: Stage) -> tuple[object, ...]:
            cut = self._cuts[each.name]
            return each.batchnorm, each.batchnorm_momentum, cut.layer, cut.whole

        alike = (
            program for program in self._programs.values() if evaluated(program.stage) == evaluated(stage)
        )
        return next((program.evaluator for program in alike), None)

    def _initial_weights(self, replicate: int) -> list[NDArray[np.generic]]:
        """Pretrained weights or the replicate's own random ones, and its states of random layers."""
        seed = seed_for(Purpose.WEIGHTS, self._study.seed, replicate)
        return initial_values(self._study.model, self._network, self._start, seed)

    def _train_epoch(
        self, planned: StageSchedule, trial: Trial, epoch: int, last: EpochRecord, on_batch: OnBatch | None
    ) -> EpochRecord:
        program, stage = self._program(planned), planned.stage
        source = self._feeding_of(planned).training(trial.replicate, epoch)
        order = generator(Purpose.ORDER, self._study.seed, trial.replicate, epoch).permutation(len(source))
        shown = order[: planned.examples_in(epoch)]
        on_step = None if on_batch is None else _reporter(stage.name, epoch, len(shown), on_batch)
        start = time.perf_counter()
        reported = program.loop.train(source, shown, planned.forward_batch, on_step)
        seconds = time.perf_counter() - start
        validated = self._validate(planned, trial)
        probed = math.isfinite(reported.loss) and self._is_probed(planned, epoch)
        return EpochRecord(
            stage=stage.name,
            epoch=epoch,
            updates=last.updates + planned.updates_in(epoch),
            examples=last.examples + len(shown),
            seconds=last.seconds + seconds,
            learning_rate=stage.learning_rate,
            train_loss=reported.loss,
            train_accuracy=reported.accuracy,
            val_loss=validated.loss,
            val_accuracy=validated.accuracy,
            probes=self._probe(planned, trial, epoch, source) if probed else {},
        )

    def _feeding_of(self, planned: StageSchedule) -> Feeding:
        return self._feedings[planned.stage.name]

    def _validate(self, planned: StageSchedule, trial: Trial) -> Figures:
        evaluator = self._program(planned).evaluator
        source, count = self._feeding_of(planned).validation(trial.replicate), self._validated(trial)
        backbone = self._network.backbone
        if planned.stage.evaluation == "moving" or not batchnorm_layers(backbone):
            return evaluator.by_averages(source, count)
        moments = recalibrate(self._probed_images(), backbone)
        with averages_kept(backbone):
            use_moments(backbone, moments)
            return evaluator.by_averages(source, count)

    def _validated(self, trial: Trial) -> int:
        """How many validation images, from the first, a trial's figures rest on."""
        count = len(self._data.split.validation)
        return count if self._study.last_batch == "keep" else count - count % trial.batch_size

    def _probed_images(self) -> ImageSource:
        return self._examples.clean(self._examples.training[self._examples.probed])

    def _is_probed(self, planned: StageSchedule, epoch: int) -> bool:
        wanted = self._study.probes
        return wanted == "every" or (wanted == "last" and epoch == planned.last_epoch)

    def _probe(self, planned: StageSchedule, trial: Trial, epoch: int, shown: Source) -> dict[str, float]:
        start = time.perf_counter()
        stage, feeding = planned.stage, self._feeding_of(planned)
        recalibrates = stage.batchnorm == "batch" or stage.evaluation == "recalibrated"
        plan = ProbePlan(
            clean=feeding.probed(trial.replicate),
            augmented=None if stage.augmentation is None else shown,
            positions=self._examples.probed,
            validation=feeding.validation(trial.replicate),
            validated=self._validated(trial),
            batch_size=planned.forward_batch,
            images=self._probed_images() if recalibrates else None,
            stale_weight=self._stale_weight(trial, epoch),
        )
        columns = run_probes(self._program(planned).evaluator, self._network.backbone, plan)
        # With what was made ready for them alone.
        return columns | {"probe_seconds": time.perf_counter() - start}

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


def _reporter(stage: str, epoch: int, total: int, on_batch: OnBatch) -> OnStep:
    """Tells where the epoch stands."""
    start = time.perf_counter()

    def on_step(examples: int, accuracy: float) -> None:
        on_batch(BatchProgress(stage, epoch, examples, total, accuracy, time.perf_counter() - start))

    return on_step


_MEASURED_BATCHES = 4
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
    """Whether training may go on; averages that BatchNorm once moved to infinity show in validation only."""
    return math.isfinite(record.train_loss) and math.isfinite(record.val_loss)
