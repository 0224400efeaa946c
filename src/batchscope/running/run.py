"""A study, carried out: examples prepared, trials run, every record stored as it comes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from batchscope.data import (
    Dataset,
    Split,
    TrainingData,
    encoded_png,
    load_dataset,
    sample_rows,
    selection_of,
    split_of,
)
from batchscope.errors import RunFolderError
from batchscope.own.function import PackedFunction
from batchscope.own_study import AnyOwnStudy, AnyStudy
from batchscope.records import Trial
from batchscope.running.cluster.connection import refuse_without_ray
from batchscope.running.extending import extend, is_finished
from batchscope.running.features import FeatureCleaner, delete_features, room_for_features
from batchscope.running.folder import RunFolder
from batchscope.running.growth import Growth
from batchscope.running.layout import Choice, WorkLeft, choose
from batchscope.running.local import Job, execute
from batchscope.running.machine import look_around
from batchscope.running.messages import AnyOwnSetUp, AnySetUp, SetUp
from batchscope.running.options import RunOptions
from batchscope.running.own_runs import (
    change_of_source,
    end_leftovers,
    epochs_left,
    own_set_up,
    refuse_another_source,
    source_facts,
    warning_of_secrets,
)
from batchscope.running.plan import check_sizes, examples_per_trial, plan_trials
from batchscope.running.progress import Unit, Watcher
from batchscope.running.provenance import now, surroundings
from batchscope.running.recorder import Recorder, threads_before
from batchscope.running.store import DataSummary, SampleImage, Store, TrialStatus
from batchscope.spec import Study

__all__ = ["run_study"]


def run_study(
    study: AnyStudy,
    folder: Path,
    watcher: Watcher,
    options: RunOptions | None = None,
    function: PackedFunction | None = None,
) -> list[TrialStatus]:
    """Carries out what is left to do of a study, in a folder of its own.

    Args:
        study: The study; one of Keras must have its data source.
        folder: The run's folder, new or holding the same study.
        watcher: Told of everything.
        options: How the machine is used; by default the run chooses.
        function: Of a study of a function, the function.

    Returns:
        How each trial ended. A failed one has kept its traceback and is tried again next time.

    Raises:
        BatchscopeError: Nothing can be run at all.
    """
    options = options or RunOptions()
    if options.cluster is not None:
        refuse_without_ray()
    place = RunFolder(folder)
    own = None if isinstance(study, Study) else own_set_up(study, place, function)
    with place.claim(study) as store, watcher:
        for told in [] if own is None else end_leftovers(place.mark(store)):
            watcher.note(told)
        changes = extend(study, place, store, watcher.note)
        growth = Growth(study, store, watcher.note)
        if is_finished(study, store) and not growth.trials():
            refuse_another_source(study, place, store)
            trials = [status.trial for status in store.trials()]
            watcher.plan(trials, len(trials), {})
        else:
            with _session(store, changes) as session:
                training = _Training(study, place, store, watcher, session, own, growth)
                training.carry_out(training.begin(), options)
        statuses = store.trials()
        _delete_what_is_done(place, statuses)
        return statuses


@contextmanager
def _session(store: Store, facts: Mapping[str, str]) -> Iterator[int]:
    """Notes when a session ended and, where something put an end to it, what that was."""
    session = store.start_session(now(), {**surroundings(), **facts})
    try:
        yield session
    except BaseException as error:
        with suppress(RunFolderError):  # where nothing can be written any more, the error itself says so
            store.update_session(session, {"stopped by": _cause(error)}, ended=now())
        raise
    store.update_session(session, {}, ended=now())


def _cause(error: BaseException) -> str:
    """First and last line of an error; between them may be the end of a log."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1]}"


def _delete_what_is_done(place: RunFolder, statuses: Sequence[TrialStatus]) -> None:
    """Also what a session that was killed did not come to delete."""
    for status in statuses:
        if status.state.is_finished():
            place.forget(status.trial)
    if all(status.state.is_finished() for status in statuses):
        delete_features(place.features)


@dataclass(frozen=True)
class _Training:
    """What the trials of one session have in common.

    `own` is what workers are told first where the training is somebody's own.
    """

    study: AnyStudy
    place: RunFolder
    store: Store
    watcher: Watcher
    session: int
    own: AnyOwnSetUp | None
    growth: Growth

    def begin(self) -> Mapping[Trial, float]:
        """Plans the trials, and what is to be ready before they start.

        Returns:
            What each unfinished trial has still to do: examples, or of somebody's own code epochs.
        """
        if isinstance(self.study, Study):
            self.watcher.note(f"reading the data of {self.study.data.source}")
            _prepare_data(self.study, self.place, self.store, self.watcher)
        else:
            self._tell_of_code(self.study)
        self.store.plan(plan_trials(self.study))
        self._grow()
        left = self._left()
        trials = [status.trial for status in self.store.trials()]
        self.watcher.plan(trials, len(trials) - len(left), left, self._unit)
        return left

    def _tell_of_code(self, study: AnyOwnStudy) -> None:
        """What is to be known of somebody's own code ahead of its trials."""
        if warning := warning_of_secrets(study):
            self.watcher.note(warning)
        if changed := change_of_source(study, self.place, self.store):
            self.watcher.note(f"{changed}; what is stored was trained by the one before")
        self.store.update_session(self.session, source_facts(study))

    @property
    def _unit(self) -> Unit:
        return "examples" if isinstance(self.study, Study) else "epochs"

    def carry_out(self, left: Mapping[Trial, float], options: RunOptions) -> None:
        """Trains the trials that are left, given what each has still to do."""
        choice = self._choice(left, options)
        if len(choice.layouts) > 1:
            self.watcher.note(f"measuring what is fastest: {', '.join(map(str, choice.layouts))}")
        # What an earlier session left may be of another program version, or not whole after a power cut.
        delete_features(self.place.features)
        room = room_for_features(self.place.path, options.cache_limit)
        if room < options.cache_limit and options.cluster is None:
            self.watcher.note(
                f"ready features may take {room / 1e9:.1f} GB, half of what is free on the disk"
            )
        cleaner = FeatureCleaner(self.place.features, left)
        recorder = Recorder(
            self.study, self.store, self.place, self.watcher, self.session, cleaner, choice.reason
        )

        def more() -> list[Job]:
            trials = self._grow()
            if not trials:
                return []
            cleaner.added(trials)
            left = self._left()
            self.watcher.added({trial: left[trial] for trial in trials})
            return [self._job(trial) for trial in trials]

        mark = self.place.mark(self.store)
        set_up, jobs = self._set_up(room), self._jobs()
        if options.cluster is None:
            own = "" if isinstance(self.study, Study) else mark
            execute(set_up, jobs, recorder, self.place.logs, choice.layouts, more, own)
        else:
            # Not before: they bring what only Ray's extra installs.
            from batchscope.running.cluster.executor import Work
            from batchscope.running.cluster.session import ClusterRun

            run = ClusterRun(self.place, mark, options, options.cluster)
            run.execute(set_up, Work(jobs, more, self._job), recorder)

    def _choice(self, left: Mapping[Trial, float], options: RunOptions) -> Choice:
        """How the trials share this machine; of a cluster, why it is its nodes that decide."""
        before = threads_before(self.store)
        if options.cluster is not None:
            threads = options.cluster.threads
            if before not in (None, threads):
                self.watcher.note(
                    f"trials compute with {threads} threads each, those that are stored with {before}: the "
                    "last bits of figures may differ"
                )
            return Choice((), "as the nodes of the Ray cluster have room")
        # Somebody's own code is not measured, for it cannot be asked to keep nothing of what it does.
        own_code = not isinstance(self.study, Study)
        work = WorkLeft(len(left), 0 if own_code else sum(left.values()), own_code)
        return choose(look_around(), work, options.workers, before)

    def _left(self) -> Mapping[Trial, float]:
        """What each unfinished trial has still to do: examples, or of somebody's own code epochs."""
        if isinstance(self.study, Study):
            return _examples_left(self.study, self.store)
        return epochs_left(self.study, self.store)

    def _grow(self) -> list[Trial]:
        """Plans the replicates that are still asked for by those that have ended."""
        trials = self.growth.trials()
        self.store.plan(trials)
        return trials

    def _set_up(self, room: int) -> AnySetUp:
        if isinstance(self.study, Study):
            return SetUp(self.study, self.place.cache, self.place.features, room)
        if self.own is None:
            raise TypeError("a study of somebody's own code must have its set-up")
        return self.own

    def _jobs(self) -> list[Job]:
        return [self._job(status.trial) for status in self.store.trials() if not status.state.is_finished()]

    def _job(self, trial: Trial) -> Job:
        keep = self.place.checkpoint if isinstance(self.study, Study) else self.place.trial_folder
        return Job(trial, keep(trial), self.store.records(trial))


def _prepare_data(study: Study, place: RunFolder, store: Store, watcher: Watcher) -> None:
    """Reads the examples, makes sure that they are those the run began with, and caches them."""
    dataset = load_dataset(study.data, study.model.image_size, study.model.interpolation)
    split = split_of(dataset, study.data.validation_share, study.data.split_seed)
    choosing = selection_of(study, dataset.labels, split.validation)
    check_sizes(study, len(split.training), len(split.validation) - len(choosing))
    fingerprint, known = dataset.fingerprint(), store.data()
    if known is not None and known[0].fingerprint != fingerprint:
        raise RunFolderError(
            f"{place.path}: the data of {dataset.source} must be those that the run began with, but they "
            "have changed since; give --out another folder, or restore the data"
        )
    if known is None:
        store.keep_data(_summary(dataset, split, fingerprint), _samples(dataset, split))
    for note in dataset.notes:
        watcher.note(note)
    if dataset.skipped:
        watcher.note(f"bad images left out: {len(dataset.skipped)}; the page lists them")
    try:
        TrainingData(dataset.inputs, dataset.labels, split, dataset.classes).save(place.cache)
    except OSError as error:
        raise RunFolderError(f"{place.cache}: the data must find room here, but: {error}") from error


def _summary(dataset: Dataset, split: Split, fingerprint: str) -> DataSummary:
    return DataSummary(
        source=dataset.source,
        fingerprint=fingerprint,
        classes=dataset.classes,
        training=dataset.class_counts(split.training),
        validation=dataset.class_counts(split.validation),
        skipped=tuple((bad.id, bad.reason) for bad in dataset.skipped),
        shape=dataset.inputs.shape[1:],
        notes=dataset.notes,
    )


def _samples(dataset: Dataset, split: Split) -> list[SampleImage]:
    """A few images for the page; a table has none."""
    if dataset.inputs.dtype != np.uint8:
        return []
    return [
        SampleImage(dataset.ids[row], dataset.classes[dataset.labels[row]], encoded_png(dataset.inputs[row]))
        for row in sample_rows(dataset, split)
    ]


def _examples_left(study: Study, store: Store) -> dict[Trial, float]:
    """Examples that each trial has still to present, of those that have not finished, as far as known."""
    kept = store.data()
    per_trial = examples_per_trial(study, 0 if kept is None else sum(kept[0].training))
    left = {}
    for status in store.trials():
        if not status.state.is_finished():
            last = store.last_epoch(status.trial)
            left[status.trial] = per_trial[status.trial.batch_size] - (last.examples if last else 0)
    return left
