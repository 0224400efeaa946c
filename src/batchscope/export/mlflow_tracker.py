"""MLflow: an experiment named as the study, a parent run for each run's folder, in it a run for each trial.

Nested runs are how MLflow shows a sweep: the parent folds them away, carries what belongs to all of
them (study, verdict, page, history), and several runs of one study lie side by side.

Steps are epochs, at which every batch size has seen the same examples; `updates`, `examples` and
`seconds` are metrics, and MLflow's charts can take any of them as horizontal axis. A point's time is
the start of the run's first session and the trial's seconds of training, so it is the same each time
it is sent, and MLflow's relative time is training time.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batchscope.errors import BatchscopeError, ExportError
from batchscope.export.content import Parameter, RunContent, TrialSeries
from batchscope.export.files import run_material
from batchscope.masking import masked
from batchscope.records import TrialState
from batchscope.running.folder import RunFolder

__all__ = ["MlflowTracker", "metric_name"]

RUN_TAG = "batchscope.run"
TRIAL_TAG = "batchscope.trial"
STATE_TAG = "batchscope.state"
EPOCH_TAG = "batchscope.epoch"
"""The last epoch of which MLflow has every figure, and its `seconds`; set after them."""
_NOTE_TAG = "mlflow.note.content"
_PARENT_TAG = "mlflow.parentRunId"
_DELETED = "deleted"

# What MLflow says where a run or its experiment was deleted, among other things.
_REFUSED = "INVALID_PARAMETER_VALUE"
# What MLflow takes in one request.
_MOST_METRICS, _MOST_PARAMS = 1000, 100


@dataclass(frozen=True)
class _Kept:
    """What MLflow has of a trial, or of the parent.

    Attributes:
        id: MLflow's own.
        status: MLflow's own.
        ended: In milliseconds since 1970; None while it goes on.
        state: Of the trial; empty for the parent.
        epoch: The last of which it has every figure.
        seconds: Of that epoch.
        parameters: Names of those that it has.
        parent: MLflow's id of the run in which it is nested; empty for the parent.
        beyond: Whether it may have figures of later epochs too, sent by a process that was killed.
    """

    id: str
    status: str = "RUNNING"
    ended: int | None = None
    state: str = ""
    epoch: int = 0
    seconds: float | None = None
    parameters: frozenset[str] = frozenset()
    parent: str = ""
    beyond: bool = False


class MlflowTracker:
    """Sends a run to MLflow.

    Simplified: two processes that send one run at the same time may make its runs twice.

    Args:
        tracking_uri: A server's address, ``sqlite:///FILE`` or whatever MLflow knows; None takes what
            MLflow is set to by MLFLOW_TRACKING_URI, or else its own default.
    """

    tool = "mlflow"

    def __init__(self, tracking_uri: str | None) -> None:
        self._uri = tracking_uri
        self._experiment: _Experiment | None = None

    @property
    def place(self) -> str:
        """Experiment and address."""
        if self._experiment is None:
            return masked(self._uri or os.environ.get("MLFLOW_TRACKING_URI") or "MLflow's default store")
        return f"experiment {self._experiment.name} of {masked(self._experiment.address)}"

    def update(self, run: RunContent) -> None:
        """Adds the figures that MLflow does not have yet, and the states that changed."""
        with self._translated():
            self._connected(run).update(run)

    def conclude(self, run: RunContent, folder: RunFolder) -> None:
        """Adds study, history, analysis and page to the parent, and the verdict as its description."""
        with self._translated():
            self._connected(run).conclude(run, folder)

    def _connected(self, run: RunContent) -> _Experiment:
        if self._experiment is None:
            self._experiment = _Experiment(self._uri, run)
        return self._experiment

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except BatchscopeError:
            raise
        except Exception as error:  # MLflow's stores and their libraries raise many kinds of error
            if self._experiment is not None and getattr(error, "error_code", "") == _REFUSED:
                self._experiment.check_not_deleted()
            reason = masked(str(error).strip().partition("\n")[0] or type(error).__name__)
            raise ExportError(
                f"MLflow ({self.place}) must take what is exported, but: {reason}; "
                "check --tracking-uri and whether its server runs"
            ) from error


class _Experiment:
    """An experiment of MLflow's, and what it has of one run."""

    def __init__(self, tracking_uri: str | None, run: RunContent) -> None:
        # MLflow would print a line for each trial, and its store one for each table that it makes.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=tracking_uri)
        self.address, self.name = str(self._client.tracking_uri), run.study.name
        known = self._client.get_experiment_by_name(self.name)
        self._id = self._client.create_experiment(self.name) if known is None else known.experiment_id
        self._kept: dict[str, _Kept] = {}
        self.check_not_deleted()
        self._kept = self._found(run.identity)

    def update(self, run: RunContent) -> None:
        """Brings parent and trials up to date."""
        parent = self._parent(run)
        for series in run.trials:
            self._bring_up_to_date(run, series, parent)
        # Where a process was killed after its last trial, nobody noted when.
        last = max((_end(run, series) for series in run.trials), default=run.started)
        self._set_status("", _status_of_run(run), last if run.ended is None else run.ended)

    def conclude(self, run: RunContent, folder: RunFolder) -> None:
        """Adds files and verdict to the parent."""
        parent, material = self._parent(run), run_material(run, folder)
        with tempfile.TemporaryDirectory() as temporary:
            for name, content in material.files.items():
                (Path(temporary) / name).write_bytes(content)
            self._client.log_artifacts(parent, temporary)
        self._client.set_tag(parent, _NOTE_TAG, material.description)

    def check_not_deleted(self) -> None:
        """Refuses an experiment or a run that somebody deleted: MLflow keeps it, but takes nothing for it.

        Raises:
            ExportError: With what brings it back.
        """
        if self._client.get_experiment(self._id).lifecycle_stage == _DELETED:
            raise ExportError(
                f"the experiment {self.name} of {masked(self.address)} must be active, but it was deleted "
                f"there; restore it (mlflow experiments restore --experiment-id {self._id}), or remove it "
                f"for good (mlflow gc --experiment-ids {self._id}), and export again"
            )
        for kept in self._kept.values():
            shown = self._client.get_run(kept.id).info
            if shown.lifecycle_stage == _DELETED:
                raise ExportError(
                    f"the run {shown.run_name} of experiment {self.name} of {masked(self.address)} must be "
                    "active, but it was deleted there; export again, which makes it anew"
                )

    def _found(self, identity: str) -> dict[str, _Kept]:
        """What MLflow has of the run, by trial; the parent under the empty name."""
        found: dict[str, _Kept] = {}
        token = None
        while True:
            page = self._client.search_runs(
                [self._id], filter_string=f"tags.`{RUN_TAG}` = '{identity}'", page_token=token
            )
            for entry in page:
                tags = entry.data.tags
                epoch, _, seconds = tags.get(EPOCH_TAG, "0").partition(" ")
                found[tags.get(TRIAL_TAG, "")] = _Kept(
                    id=entry.info.run_id,
                    status=entry.info.status,
                    ended=None if entry.info.status == "RUNNING" else entry.info.end_time,
                    state=tags.get(STATE_TAG, ""),
                    epoch=int(epoch),
                    seconds=float(seconds) if seconds else None,
                    parameters=frozenset(entry.data.params),
                    parent=tags.get(_PARENT_TAG, ""),
                    beyond=True,
                )
            token = page.token
            if not token:
                return found

    def _parent(self, run: RunContent) -> str:
        if "" not in self._kept:
            self._kept[""] = self._made(run, run.study.name, {})
        self._add_parameters("", run.parameters)
        return self._kept[""].id

    def _made(self, run: RunContent, name: str, tags: Mapping[str, str]) -> _Kept:
        made = self._client.create_run(
            self._id,
            start_time=_milliseconds(run.started),
            tags={RUN_TAG: run.identity, "mlflow.source.name": "batchscope", **tags},
            run_name=name,
        )
        return _Kept(made.info.run_id, parent=tags.get(_PARENT_TAG, ""))

    def _bring_up_to_date(self, run: RunContent, series: TrialSeries, parent: str) -> None:
        trial, state = series.status.trial, series.status.state
        last = series.points[-1].epoch if series.points else 0
        kept = self._kept.get(trial.name)
        # Where the trial began anew: MLflow cannot forget figures.
        if kept is not None and kept.epoch and kept.seconds != series.seconds_at(kept.epoch):
            self._client.delete_run(kept.id)
            kept = None
        if kept is None:
            kept = self._made(run, series.name, {TRIAL_TAG: trial.name, _PARENT_TAG: parent})
            self._kept[trial.name] = kept
        if kept.parent != parent:  # the one before was deleted
            self._log(kept.id, tags={_PARENT_TAG: parent})
            kept = self._kept[trial.name] = replace(kept, parent=parent)
        self._add_parameters(trial.name, {**run.parameters, **series.parameters})
        if kept.epoch < last or kept.state != state:
            self._add_figures(run, series, kept)
            seconds = series.seconds_at(last)
            tags = {EPOCH_TAG: f"{last} {seconds!r}" if last else "0", STATE_TAG: str(state)}
            if state is TrialState.FAILED or kept.state == TrialState.FAILED:
                tags[_NOTE_TAG] = series.status.error or ""
            self._log(kept.id, tags=tags)
            parameters = self._kept[trial.name].parameters
            self._kept[trial.name] = replace(
                kept, epoch=last, seconds=seconds, state=str(state), parameters=parameters, beyond=False
            )
        self._set_status(trial.name, _status(state, run), _end(run, series))

    def _add_parameters(self, name: str, parameters: Mapping[str, Parameter]) -> None:
        """Adds those that are not there; MLflow refuses to change one."""
        kept = self._kept[name]
        new = [(key, str(value)) for key, value in parameters.items() if key not in kept.parameters]
        for chunk in _chunks(new, _MOST_PARAMS):
            self._log(kept.id, parameters=chunk)
        self._kept[name] = replace(kept, parameters=kept.parameters | {key for key, _ in new})

    def _add_figures(self, run: RunContent, series: TrialSeries, kept: _Kept) -> None:
        points = [point for point in series.points if point.epoch > kept.epoch]
        names = _metric_names(sorted({name for point in points for name in point.figures}))
        there = self._beyond(kept, names.values())
        figures = [
            (names[name], value, _milliseconds(run.started + point.seconds), point.epoch)
            for point in points
            for name, value in point.figures.items()
            if (names[name], point.epoch) not in there
        ]
        for chunk in _chunks(figures, _MOST_METRICS):
            self._log(kept.id, metrics=chunk)

    def _beyond(self, kept: _Kept, names: Iterable[str]) -> set[tuple[str, int]]:
        """(name, step) of figures that MLflow has beyond those that it is known to have."""
        if not kept.beyond:
            return set()
        return {
            (name, metric.step)
            for name in names
            for metric in self._client.get_metric_history(kept.id, name)
            if metric.step > kept.epoch
        }

    def _log(
        self,
        run_id: str,
        *,
        metrics: Sequence[tuple[str, float, int, int]] = (),
        parameters: Sequence[tuple[str, str]] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        self._client.log_batch(
            run_id,
            metrics=[Metric(*metric) for metric in metrics],
            params=[Param(*parameter) for parameter in parameters],
            tags=[RunTag(*tag) for tag in (tags or {}).items()],
        )

    def _set_status(self, name: str, status: str, moment: float) -> None:
        kept = self._kept[name]
        ended = None if status == "RUNNING" else _milliseconds(moment)
        if (kept.status, kept.ended) == (status, ended):
            return
        if ended is None:
            self._client.update_run(kept.id, status=status)
        else:
            self._client.set_terminated(kept.id, status=status, end_time=ended)
        self._kept[name] = replace(kept, status=status, ended=ended)


def metric_name(column: str) -> str:
    """A column's name as MLflow takes it: letters, digits, ``_-.: /``, and no path but a plain one."""
    name = re.sub(r"[^\w\-.: /]", "_", column)
    return name if posixpath.normpath(name) == name and name[0] not in "./" else re.sub(r"[/.]", "_", name)


def _metric_names(columns: Sequence[str]) -> dict[str, str]:
    names = {column: metric_name(column) for column in columns}
    if len(set(names.values())) < len(names):
        raise ExportError(
            f"each column needs a name of its own in MLflow, which knows letters, digits and _-.: / alone, "
            f"but there are {', '.join(columns)}; rename one"
        )
    return names


def _status(state: TrialState, run: RunContent) -> str:
    if state is TrialState.COMPLETE:
        return "FINISHED"
    if state in (TrialState.FAILED, TrialState.DIVERGED):
        return "FAILED"
    return "RUNNING" if run.ended is None else "KILLED"


def _status_of_run(run: RunContent) -> str:
    finished = [series.status.state.is_finished() for series in run.trials]
    if all(finished) and len(finished) == run.planned:
        return "FINISHED"
    failed = any(series.status.state is TrialState.FAILED for series in run.trials)
    return "RUNNING" if run.ended is None else "FAILED" if failed else "KILLED"


def _end(run: RunContent, series: TrialSeries) -> float:
    """The start of the run and the trial's seconds of training."""
    return run.started + (series.points[-1].seconds if series.points else 0.0)


def _milliseconds(moment: float) -> int:
    return round(moment * 1000)


def _chunks(items: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), most):
        yield items[start : start + most]
