"""A trial: the study's stages at one batch size and replicate, a record an epoch."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from batchscope.data import TrainingData, selection_of
from batchscope.loading import EXTENDED
from batchscope.records import EpochRecord, Trial
from batchscope.schedule import StageSchedule, StageStart, schedule
from batchscope.spec import Stage, Study
from batchscope.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from batchscope.training.cut import find_cut
from batchscope.training.extra_probes import ExtraProbes, check_extra_probes
from batchscope.training.features import NOTHING_KEPT, FeatureStore
from batchscope.training.feeding import Examples, Feeding, ImageFeeding, make_feeding
from batchscope.training.initial import initial_values
from batchscope.training.inputs import make_feed
from batchscope.training.loops import Figures
from batchscope.training.memory import shortage_told
from batchscope.training.network import Network, build_network, penalised_weights
from batchscope.training.parts import TrainedEpoch, part_ends, together, within_columns
from batchscope.training.probes import Evaluator, ProbePlan, probe_rows, run_probes
from batchscope.training.recipe import check_recipe
from batchscope.training.reporting import OnBatch, counting_on, reporter
from batchscope.training.sources import Source
from batchscope.training.stage_program import StageProgram, assign, compile_stage, values
from batchscope.training.staleness import stale_weight
from batchscope.training.streams import Purpose, generator, seed_for
from batchscope.training.validation import Validator

__all__ = ["Trainer"]


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
        # A study that is given more of these goes on from its checkpoints.
        described = study.model_dump_json(exclude=set(EXTENDED))
        self._digest = hashlib.sha256(described.encode()).hexdigest()
        feed = make_feed(study.model, data)
        self._network = build_network(study.model, feed.shape, len(data.classes))
        check_recipe(study, self._network, feed.shape)
        self._variables = self._network.variables
        self._start = values(self._variables)
        probed = probe_rows(data.split.training, data.labels, study.probe_images, study.data.split_seed)
        check_extra_probes(study, self._network, len(probed))
        self._extra_probes = ExtraProbes(study, self._network)
        selection = selection_of(study, data.labels, data.split.validation)
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

    @property
    def batch_sizes(self) -> list[int]:
        """Those of the study."""
        return self._study.batch_sizes

    def stages(self, trial: Trial) -> tuple[StageSchedule, ...]:
        """The stages of a trial as they are laid out."""
        return self._schedule(trial.batch_size, trial.learning_rate)

    def begin(self, trial: Trial) -> None:
        """Sets the weights that a trial begins with."""
        assign(self._variables, self._initial_weights(trial.replicate))

    def enter(self, planned: StageSchedule) -> StageProgram:
        """Makes a stage ready to train from its first update on."""
        program = self._program(planned)
        program.enter(self._network, planned, None)
        return program

    def shown(self, planned: StageSchedule) -> Source:
        """What a stage is fed in a first epoch; where these are ready features, zeros of their shape."""
        feeding = self._feeding_of(planned)
        if isinstance(feeding, ImageFeeding):
            return feeding.training(replicate=1, epoch=1)
        return self._program(planned).blank(len(self._examples.training))

    def end_stage(self, planned: StageSchedule, trial: Trial, shown: Source) -> None:
        """Validates, and probes where the study does, as at the end of a stage; keeps nothing of it."""
        self._validator(planned).measure(trial, choosing=True)
        if self._study.probes != "none":
            self._probe(planned, trial, shown, stale_weight=1.0)

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
            self.begin(trial)
            last: EpochRecord = _START
            starts: tuple[StageStart, ...] = ()
        else:
            assign(self._variables, saved.weights)
            last, starts = saved.record, saved.starts
            if last.epoch > stored_epochs:
                yield last
        order = _Order(trial, checkpoint, on_batch)
        optimizer = None if saved is None else saved.optimizer
        for planned in self.stages(trial)[max(len(starts) - 1, 0) :]:
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
        stage, start_of_stage = planned.stage, starts[-1]
        trial, epoch = ordered.trial, last.epoch + 1
        of_stage = epoch - start_of_stage.epoch
        source = self._feeding_of(planned).training(trial.replicate, epoch)
        order = generator(Purpose.ORDER, self._study.seed, trial.replicate, epoch).permutation(len(source))
        shown = order[: planned.examples_in(of_stage)]
        trained = self._train_parts(planned, ordered, source, shown, last)
        updates = last.updates + math.ceil(trained.examples / planned.batch_size)
        record = EpochRecord(
            stage=stage.name,
            epoch=epoch,
            updates=updates,
            examples=last.examples + trained.examples,
            seconds=last.seconds + trained.seconds,
            learning_rate=planned.learning_rate_at(updates - start_of_stage.updates),
            train_loss=trained.reported.loss,
            train_accuracy=trained.reported.accuracy,
            val_loss=trained.validated.loss,
            val_accuracy=trained.validated.accuracy,
            probes=trained.columns,
        )
        if math.isfinite(trained.reported.loss) and self._is_probed(planned, start_of_stage, record):
            momentum = next(iter(self._network.momenta.values()), math.nan)
            ends = [*(begun.updates for begun in starts[1:]), record.updates]
            stale = stale_weight(momentum, self._schedule(trial.batch_size), starts, ends)
            columns = self._probe(planned, trial, source, stale)
            return replace(record, probes={**trained.columns, **columns})
        return record

    def _train_parts(
        self,
        planned: StageSchedule,
        ordered: _Order,
        source: Source,
        shown: NDArray[np.int64],
        last: EpochRecord,
    ) -> TrainedEpoch:
        """An epoch, or as much of it as it takes to get to the target at which its stage ends."""
        told, loop, validator = ordered.on_batch, self._program(planned).loop, self._validator(planned)
        done: list[tuple[int, Figures]] = []
        seconds, first = 0.0, 0
        columns: dict[str, float] = {}
        ends = part_ends(math.ceil(len(shown) / planned.batch_size), self._study.validations_per_epoch)
        for part, end in enumerate(ends, 1):
            positions = shown[first * planned.batch_size : end * planned.batch_size]
            step = None
            if told is not None:
                name, epoch = planned.stage.name, last.epoch + 1
                step = counting_on(reporter(name, epoch, len(shown), told, seconds), done)
            start = time.perf_counter()
            done.append((len(positions), loop.train(source, positions, planned.forward_batch, step)))
            seconds += time.perf_counter() - start
            may_be_over = end == ends[-1] or planned.stage.until is not None
            validated, selected = validator.measure(ordered.trial, choosing=may_be_over)
            if end == ends[-1] or planned.reaches_target(validated.accuracy, validated.loss):
                break
            columns |= within_columns(part, last.updates + end, validated)
            first = end
        presented = sum(count for count, _ in done)
        return TrainedEpoch(together(done), presented, seconds, validated, columns | selected)

    def _validator(self, planned: StageSchedule) -> Validator:
        return Validator(
            self._study,
            planned.stage,
            self._network.backbone,
            self._examples,
            self._program(planned).evaluator,
            self._feeding_of(planned),
        )

    def _feeding_of(self, planned: StageSchedule) -> Feeding:
        return self._feedings[planned.stage.name]

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
            validated=self._validator(planned).count(trial),
            batch_size=planned.forward_batch,
            images=self._examples.probed_images() if recalibrates else None,
            stale_weight=stale_weight,
        )
        program = self._program(planned)
        columns = run_probes(program.evaluator, self._network.backbone, plan)
        columns |= self._extra_probes.measure(program, plan.clean, plan.batch_size)
        # With what was made ready for them alone.
        return columns | {"probe_seconds": time.perf_counter() - start}


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


def _finite(record: EpochRecord) -> bool:
    """Whether training may go on; averages that BatchNorm once moved to infinity show in validation only."""
    return math.isfinite(record.train_loss) and math.isfinite(record.val_loss)
