"""What Python programs call: run a study, open a run, write its report."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscope.errors import BatchscopeWarning, Problem, StudyError
from batchscope.loading import parse_targets
from batchscope.own.function import TrainFunction, pack
from batchscope.own_study import AnyStudy
from batchscope.records import TrialState
from batchscope.resolving import described, is_function, resolve
from batchscope.running.folder import RunFolder
from batchscope.running.options import RunOptions, cluster_options, parse_size
from batchscope.running.progress import Watcher
from batchscope.running.store import Store, TrialStatus
from batchscope.spec import Study

if TYPE_CHECKING:
    import pandas as pd

    from batchscope.analysis import Analysis, Settings, Sizing

__all__ = ["Run", "load", "probe", "run"]


@dataclass(frozen=True)
class Run:
    """A run's folder, opened for reading; reading is safe while the run goes on.

    Attributes:
        path: The folder.
    """

    path: Path

    @cached_property
    def study(self) -> AnyStudy:
        """The study as it was resolved when the run began."""
        return RunFolder(self.path).study()

    @property
    def history(self) -> pd.DataFrame:
        """The history as stored at this moment, a row for each (trial, epoch)."""
        with self._store() as store:
            return store.history(self.study.name)

    @property
    def trials(self) -> list[TrialStatus]:
        """How far each trial is, in the order of the plan."""
        with self._store() as store:
            return store.trials()

    def analyze(self, *, targets: Sequence[str] = ()) -> Analysis:
        """What the history says.

        Args:
            targets: To which updates are counted, such as ``["val_accuracy=0.85"]``; by default the study's.

        Raises:
            StudyError: A target cannot be accepted.
        """
        from batchscope.run_report import analyze_run

        with self._store() as store:
            return analyze_run(self.study, store, store.history(self.study.name), _with_targets(targets))

    def write_report(self, *, targets: Sequence[str] = ()) -> Path:
        """Writes history, pictures and page from the stored results.

        Args:
            targets: To which updates are counted, such as ``["val_accuracy=0.85"]``; by default the study's.

        Returns:
            The page's path.

        Raises:
            HistoryError: Nothing is stored yet.
            ReportError: The folder cannot be written.
            StudyError: A target cannot be accepted.
        """
        from batchscope.run_report import write_run_report

        with self._store() as store:
            settings = _with_targets(targets)
            return write_run_report(self.study, store, RunFolder(self.path).report, settings)

    def export(self, to: str, *, out: str | Path | None = None, tracking_uri: str | None = None) -> str:
        """Takes the run to another tool, or writes it as a file; see docs/export.md.

        Exporting again adds what is new and nothing twice.

        Args:
            to: ``mlflow``, ``tensorboard``, ``csv``, ``parquet`` or ``json``.
            out: The file, or TensorBoard's folder; by default one in the run's ``export/``.
            tracking_uri: Of MLflow; by default what MLflow itself is set to.

        Returns:
            Where it lies.

        Raises:
            HistoryError: Nothing is stored yet.
            ExportError: The tool is not known, not installed, or cannot be reached.
            ReportError: The file cannot be written.
        """
        from batchscope.export import export_run

        return export_run(RunFolder(self.path), to, None if out is None else Path(out), tracking_uri)

    def _repr_html_(self) -> str:
        """What a notebook shows: how far the trials are, verdict, main charts and summary, at this moment."""
        from batchscope.report.notebook import card_html
        from batchscope.run_report import run_card

        with self._store() as store:
            return card_html(run_card(self.study, store, RunFolder(self.path)))

    def _store(self) -> Store:
        return Store(RunFolder(self.path).database)


def run(
    study: str | Path | AnyStudy | TrainFunction | None = None,
    *,
    command: str | None = None,
    records: str | None = None,
    data: str | Path | None = None,
    weights: str | None = None,
    out: str | Path | None = None,
    batch_sizes: Sequence[int] | None = None,
    replicates: int | None = None,
    until_ci: float | None = None,
    max_replicates: int | None = None,
    learning_rates: Sequence[float] | None = None,
    epochs: int | None = None,
    name: str | None = None,
    description: str | None = None,
    seed: int | None = None,
    targets: Sequence[str] = (),
    limit: int | None = None,
    changes: Mapping[str, Any] | None = None,
    workers: int | None = None,
    cache_limit: int | str = "8GB",
    executor: str = "local",
    address: str | None = None,
    cpus_per_trial: float | None = None,
    gpus_per_trial: float | None = None,
    track: str | Sequence[str] = (),
    tracking_uri: str | None = None,
    watcher: Watcher | None = None,
    quiet: bool = False,
) -> Run:
    """Carries out a study, or what is left of it, and writes its report.

    A study is that of a file or a `Study`, or it is made here of training code of one's own, a
    function or a command, with `batch_sizes` and `replicates`; see docs/own-code.md.

    Args:
        study: A built-in study's name, a study file, a `Study`, or a function that is called with
            each trial, a `TrialHandle`, and reports every epoch to it.
        command: Program and arguments, instead of a study; see `CommandStudy`.
        records: File in which the command writes its records, instead of its standard output.
        data: As in `DataSpec.source`.
        weights: As in `ModelSpec.weights`.
        out: The run's folder; default ``runs/`` and the study's name.
        batch_sizes: Instead of the study's.
        replicates: Instead of the study's.
        until_ci: Add replicates to each batch size until its mean is known to so much either way; see
            `UntilCi`.
        max_replicates: With `until_ci`, at most so many a batch size.
        learning_rates: Given to a function or command as the trials' learning rates; each is tried at
            every batch size and replicate.
        epochs: How many epochs each trial of a function or command is going to report, so that the
            time left can be told.
        name: Instead of the study's; by default that of the function or program.
        description: Instead of the study's.
        seed: Instead of the study's.
        targets: Instead of the study's, such as ``["val_accuracy=0.85"]``: each batch size's updates to them
            are told.
        limit: Use a stratified subset of this many examples.
        changes: Further dotted keys and values, such as ``{"stages.fine_tuning.epochs": 2}``.
        workers: Trials at a time, each with its share of the cores; by default what the machine
            trains fastest, which is measured where much is left to do. Never more than trials are
            left, or memory has room for.
        cache_limit: What ready features may take up on disk, in bytes or as a text like ``8GB``.
        executor: ``local`` for worker processes on this machine, ``ray`` for a Ray cluster.
        address: With ``ray``: ``HOST:PORT`` of a cluster's head, ``auto`` for the cluster that this machine
            belongs to, or ``local`` for one of this machine alone; by default that of ``RAY_ADDRESS``, else
            ``auto`` or, where there is none, ``local``.
        cpus_per_trial: With ``ray``: CPUs that a trial is given, by default 1; shares are allowed.
        gpus_per_trial: With ``ray``: GPUs, by default none; shares are allowed.
        track: Tools that follow the run while it goes on: ``mlflow``, ``tensorboard``, or both. One that
            fails is told to the watcher and holds nothing up; `Run.export` adds later what it lacks.
        tracking_uri: Of MLflow; by default what MLflow itself is set to.
        watcher: Told of the course; by default a display that renews itself in a terminal or a
            notebook, and elsewhere lines on standard output.
        quiet: Show nothing by default. What is warned of is not silenced by it.

    Returns:
        The run. Trials that failed are among its `trials`, with their tracebacks, and warned of.

    Warns:
        BatchscopeWarning: Trials failed or diverged.

    Raises:
        BatchscopeError: Nothing could be run.
        KeyboardInterrupt: Passed on, with a note of what is stored and how to go on.
    """
    from batchscope.export import following, trackers_for
    from batchscope.running.run import run_study
    from batchscope.running.showing import usual_watcher
    from batchscope.running.stopping import resumable

    shortcuts = {
        "name": name,
        "description": description,
        "seed": seed,
        "targets": [target.model_dump() for target in parse_targets(targets)] or None,
        "learning_rates": None if learning_rates is None else list(learning_rates),
        "epochs": epochs,
        "data.source": None if data is None else str(data),
        "model.weights": weights,
        "batch_sizes": None if batch_sizes is None else list(batch_sizes),
        "replicates": replicates,
        "until_ci.half_width": until_ci,
        "until_ci.max_replicates": max_replicates,
        "data.limit": limit,
    }
    given = [(key, value) for key, value in shortcuts.items() if value is not None]
    resolved = resolve(described(study, command, records), [*given, *(changes or {}).items()])
    packed = pack(study) if is_function(study) else None
    folder = Path("runs") / resolved.name if out is None else Path(out)
    cluster = cluster_options(executor, address, cpus_per_trial, gpus_per_trial)
    options = RunOptions(workers, parse_size(cache_limit), cluster)
    result, place = Run(folder), RunFolder(folder)
    trackers = trackers_for(track, tracking_uri, place)
    shown = usual_watcher(quiet=quiet) if watcher is None else watcher
    with resumable(folder), following(shown, place, trackers) as told:
        statuses = run_study(resolved, folder, told, options, packed)
        if any(status.epochs for status in statuses):
            page = result.write_report()
            if watcher is None:
                shown.note(f"Page: {page}")
    if troubles := _troubles(statuses):
        warnings.warn(troubles, BatchscopeWarning, stacklevel=2)
    return result


def probe(
    study: str | Path | AnyStudy | Mapping[str, Any],
    *,
    batch_sizes: tuple[int, int] = (16, 1024),
    most: int | None = None,
    data: str | Path | None = None,
    weights: str | None = None,
    limit: int | None = None,
    changes: Mapping[str, Any] | None = None,
    seconds: float = 3.0,
    quiet: bool = False,
    watcher: Watcher | None = None,
) -> Sizing:
    """Finds which batch sizes fit in memory and how fast each trains, without running a study.

    From the smallest on each batch size is doubled until one does not fit, then the way between is halved.
    Each is tried in a process of its own: every stage is trained for a while and ended with validation and
    probes, as in a trial. Nothing is kept.

    Args:
        study: A built-in study's name, a study file, a `Study` that Keras trains, or what a file would
            hold; its own batch sizes do not matter.
        batch_sizes: The smallest and the largest.
        most: No larger one is tried either.
        data: As in `DataSpec.source`.
        weights: As in `ModelSpec.weights`.
        limit: Use a stratified subset of this many examples.
        changes: Further dotted keys and values, as for `run`.
        seconds: To train each stage at each batch size, about.
        quiet: Show nothing of the course.
        watcher: Told of the course instead of whoever looks on.

    Returns:
        What was measured, and which batch sizes are worth considering.

    Raises:
        BatchscopeError: The study cannot be trained, whatever the batch size.
    """
    from batchscope.analysis.sizing import size_up
    from batchscope.running.showing import usual_watcher
    from batchscope.running.sizing import SizingOptions, try_sizes

    low, high = batch_sizes
    options = SizingOptions(low, high, most, seconds)
    shortcuts = {
        "data.source": None if data is None else str(data),
        "model.weights": weights,
        "data.limit": limit,
    }
    given = [(key, value) for key, value in shortcuts.items() if value is not None]
    resolved = resolve(study, [*given, *(changes or {}).items()])
    if not isinstance(resolved, Study):
        rule = "must be one that Keras trains, for training code of one's own cannot be asked to keep nothing"
        raise StudyError(resolved.name, [Problem("study", rule)])
    with usual_watcher(quiet=quiet) if watcher is None else watcher as told:
        return size_up(try_sizes(resolved, options, told))


def load(folder: str | Path) -> Run:
    """Opens a run's folder.

    Raises:
        RunFolderError: It holds no run.
    """
    opened = Run(Path(folder))
    _ = opened.study, opened.trials
    return opened


def _troubles(statuses: Sequence[TrialStatus]) -> str:
    """Which trials failed or diverged, and how to see why; empty where none did."""
    told = []
    for state in (TrialState.FAILED, TrialState.DIVERGED):
        found = [status for status in statuses if status.state is state]
        if found:
            names = ", ".join(status.trial.name for status in found)
            told.append(f"{len(found)} of {len(statuses)} trials {state}: {names}")
        errors = [(status.error or "").strip() for status in found]
        if any(errors):
            told[-1] += f" (the first: {errors[0].splitlines()[-1]})"
    if not told:
        return ""
    how = "the run's `trials` tell the error of each, and the same call tries those that failed again"
    return f"{'; '.join(told)}; {how}"


def _with_targets(targets: Sequence[str]) -> Settings:
    from batchscope.analysis import Settings

    return Settings(targets=tuple(parse_targets(targets)))
