"""A trial: the study's stages at one batch size and replicate, a record an epoch."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from batchscope.data import TrainingData, selection_rows
from batchscope.history import SELECTION
from batchscope.records import BatchProgress, EpochRecord, Trial
from batchscope.schedule import StageSchedule, StageStart, schedule
from batchscope.spec import Stage, Study
from batchscope.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from batchscope.training.cut import find_cut
from batchscope.training.features import NOTHING_KEPT, FeatureStore
from batchscope.training.feeding import Examples, Feeding, make_feeding
from batchscope.training.initial import initial_values
from batchscope.training.inputs import make_feed
from batchscope.training.loops import Figures, OnStep
from batchscope.training.memory import shortage_told
from batchscope.training.network import Network, build_network, penalised_weights
from batchscope.training.probes import Evaluator, ProbePlan, probe_rows, recalibrate, run_probes
from batchscope.training.recalibration import averages_kept, batchnorm_layers, use_moments
from batchscope.training.recipe import check_recipe
from batchscope.training.sources import ImageSource, Source
from batchscope.training.stage_program import StageProgram, assign, compile_stage, values
from batchscope.training.streams import Purpose, generator, seed_for

__all__ = ["OnBatch", "Trainer"]

OnBatch = Callable[[BatchProgress], None]


@dataclass(frozen=True)
class _Order:
    """A trial to carry out, where its state is kept, and who is told of its progress."""

    trial: Trial
    checkpoint: Path | None
    on_batch: OnBatch | None


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
        selection = _selection(study, data)
        validation = data.split.validation[~np.isin(data.split.validation, selection)]
        self._examples = Examples(feed, data.split.training, validation, selection, probed, study.seed)
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
        # Of a stage whose length is not known ahead, an epoch counts.
        examples = [planned.examples or planned.examples_per_epoch for planned in stages]
        return sum(examples) / sum(count * each for count, each in zip(examples, times, strict=True))

    def _seconds_per_example(self, planned: StageSchedule, seconds: float) -> float:
        program = self._program(planned)
        program.enter(self._network, planned, None)
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
            trial: Batch size, replicate and, where a stage has a grid, learning rate.
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
            last: EpochRecord = _START
            starts: tuple[StageStart, ...] = ()
        else:
            assign(self._variables, saved.weights)
            last, starts = saved.record, saved.starts
            if last.epoch > stored_epochs:
                yield last
        order = _Order(trial, checkpoint, on_batch)
        optimizer = None if saved is None else saved.optimizer
        stages = self._schedule(trial.batch_size, trial.learning_rate)
        for planned in stages[max(len(starts) - 1, 0) :]:
            if optimizer is None:
                starts = (*starts, StageStart(last.epoch, last.updates, last.seconds))
            for record in self._stage_records(planned, order, starts, last, optimizer):
                yield record
                last = record
            if not _finite(last):
                return
            optimizer = None

    def _stage_records(
        self,
        planned: StageSchedule,
        order: _Order,
        starts: tuple[StageStart, ...],
        last: EpochRecord,
        optimizer: Sequence[NDArray[np.generic]] | None,
    ) -> Iterator[EpochRecord]:
        """Those of a stage that are still to come; an optimizer's state is one to go on from."""
        if planned.is_over(starts[-1], last) or not _finite(last):
            return
        program = self._program(planned)
        program.enter(self._network, planned, optimizer)
        while not planned.is_over(starts[-1], last) and _finite(last):
            last = self._train_epoch(planned, order, starts, last)
            if order.checkpoint is not None:
                weights, state = values(self._variables), values(program.optimizer.variables)
                save_checkpoint(
                    Checkpoint(self._digest, order.trial.name, last, weights, state, starts), order.checkpoint
                )
            yield last

    def _schedule(self, batch_size: int, learning_rate: float | None = None) -> tuple[StageSchedule, ...]:
        return schedule(self._study, batch_size, len(self._data.split.training), learning_rate)

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
            cut, penalised = self._cuts[each.name], penalised_weights(self._network, each)
            return each.batchnorm, each.batchnorm_momentum, cut.layer, cut.whole, penalised

        alike = (
            program for program in self._programs.values() if evaluated(program.stage) == evaluated(stage)
        )
        return next((program.evaluator for program in alike), None)

    def _initial_weights(self, replicate: int) -> list[NDArray[np.generic]]:
        """Pretrained weights or the replicate's own random ones, and its states of random layers."""
        seed = seed_for(Purpose.WEIGHTS, self._study.seed, replicate)
        return initial_values(self._study.model, self._network, self._start, seed)

    def _train_epoch(
        self,
        planned: StageSchedule,
        ordered: _Order,
        starts: Sequence[StageStart],
        last: EpochRecord,
    ) -> EpochRecord:
        program, stage, start_of_stage = self._program(planned), planned.stage, starts[-1]
        trial, epoch = ordered.trial, last.epoch + 1
        of_stage = epoch - start_of_stage.epoch
        source = self._feeding_of(planned).training(trial.replicate, epoch)
        order = generator(Purpose.ORDER, self._study.seed, trial.replicate, epoch).permutation(len(source))
        shown = order[: planned.examples_in(of_stage)]
        told = ordered.on_batch
        on_step = None if told is None else _reporter(stage.name, epoch, len(shown), told)
        start = time.perf_counter()
        reported = program.loop.train(source, shown, planned.forward_batch, on_step)
        seconds = time.perf_counter() - start
        validated, selected = self._validate(planned, trial)
        updates = last.updates + planned.updates_in(of_stage)
        record = EpochRecord(
            stage=stage.name,
            epoch=epoch,
            updates=updates,
            examples=last.examples + len(shown),
            seconds=last.seconds + seconds,
            learning_rate=planned.learning_rate_at(updates - start_of_stage.updates),
            train_loss=reported.loss,
            train_accuracy=reported.accuracy,
            val_loss=validated.loss,
            val_accuracy=validated.accuracy,
            probes=selected,
        )
        if math.isfinite(reported.loss) and self._is_probed(planned, start_of_stage, record):
            columns = self._probe(planned, trial, source, self._stale_weight(trial, starts, record))
            return replace(record, probes={**selected, **columns})
        return record

    def _feeding_of(self, planned: StageSchedule) -> Feeding:
        return self._feedings[planned.stage.name]

    def _validate(self, planned: StageSchedule, trial: Trial) -> tuple[Figures, dict[str, float]]:
        """Of the validation examples; and, as columns, of those by which a learning rate is chosen."""
        backbone = self._network.backbone
        if planned.stage.evaluation == "moving" or not batchnorm_layers(backbone):
            return self._validate_by_averages(planned, trial)
        moments = recalibrate(self._probed_images(), backbone)
        with averages_kept(backbone):
            use_moments(backbone, moments)
            return self._validate_by_averages(planned, trial)

    def _validate_by_averages(self, planned: StageSchedule, trial: Trial) -> tuple[Figures, dict[str, float]]:
        evaluator, feeding = self._program(planned).evaluator, self._feeding_of(planned)
        found = evaluator.by_averages(feeding.validation(trial.replicate), self._validated(trial))
        if not len(self._examples.selection):
            return found, {}
        chosen_by = evaluator.by_averages(feeding.selection(trial.replicate))
        return found, {
            f"{SELECTION}loss": chosen_by.loss,
            f"{SELECTION}accuracy": chosen_by.accuracy,
        }

    def _validated(self, trial: Trial) -> int:
        """How many validation images, from the first, a trial's figures rest on."""
        count = len(self._examples.validation)
        return count if self._study.last_batch == "keep" else count - count % trial.batch_size

    def _probed_images(self) -> ImageSource:
        return self._examples.clean(self._examples.training[self._examples.probed])

    def _is_probed(self, planned: StageSchedule, start: StageStart, record: EpochRecord) -> bool:
        wanted = self._study.probes
        return wanted == "every" or (wanted == "last" and planned.is_over(start, record))

    def _probe(
        self, planned: StageSchedule, trial: Trial, shown: Source, stale_weight: float
    ) -> dict[str, float]:
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
            stale_weight=stale_weight,
        )
        columns = run_probes(self._program(planned).evaluator, self._network.backbone, plan)
        # With what was made ready for them alone.
        return columns | {"probe_seconds": time.perf_counter() - start}

    def _stale_weight(self, trial: Trial, starts: Sequence[StageStart], record: EpochRecord) -> float:
        """Product over the batches so far that moved the averages, of the momentum then in force."""
        own = next(iter(self._network.momenta.values()), math.nan)
        weight = 1.0
        ends = [*(start.updates for start in starts[1:]), record.updates]
        for planned, start, end in zip(self._schedule(trial.batch_size), starts, ends, strict=False):
            if planned.stage.batchnorm == "inference":
                continue
            given = planned.stage.batchnorm_momentum
            moves = (end - start.updates) * (planned.batch_size // planned.forward_batch)
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
    return bool(saved.starts) and saved.trial == trial.name and saved.record.epoch - stored_epochs in (0, 1)


def _selection(study: Study, data: TrainingData) -> NDArray[np.int64]:
    """Rows of the images by which a learning rate is chosen; none without a grid."""
    if study.grid is None:
        return np.array([], dtype=np.int64)
    share, seed = study.data.selection_share, study.data.split_seed
    return selection_rows(data.labels, data.split.validation, share, seed)


def _finite(record: EpochRecord) -> bool:
    """Whether training may go on; averages that BatchNorm once moved to infinity show in validation only."""
    return math.isfinite(record.train_loss) and math.isfinite(record.val_loss)
