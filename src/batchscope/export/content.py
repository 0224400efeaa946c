"""What is exported of a run: its trials with their figures, as they are stored at one moment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from batchscope.errors import HistoryError, RunFolderError
from batchscope.history import GRID, METRICS
from batchscope.loading import study_values
from batchscope.own_study import AnyStudy, without_secrets
from batchscope.records import Trial, TrialState
from batchscope.running.folder import RunFolder
from batchscope.running.store import Store, TrialStatus

__all__ = ["Parameter", "Point", "RunContent", "TrialSeries", "read_run"]

_KEYS = ("batch_size", "replicate", "epoch", GRID)
Parameter = str | int | float | bool


@dataclass(frozen=True)
class Point:
    """An epoch's figures.

    Attributes:
        epoch: Counted from 1 on through the stages.
        seconds: Of training since the trial's start; 0 where the history does not tell.
        figures: By column of the history. Of what is not finite, the metrics are there as they are;
            of other columns NaN means that nothing was measured, and such are left out.
    """

    epoch: int
    seconds: float
    figures: Mapping[str, float]


@dataclass(frozen=True)
class TrialSeries:
    """A trial as other tools show it.

    Attributes:
        name: The trial's, with leading zeros, so that names sort as batch sizes and replicates do.
        status: How far the trial is.
        points: Of its epochs, in their order.
    """

    name: str
    status: TrialStatus
    points: tuple[Point, ...]

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Batch size, replicate and, where the trial's is one of a grid, learning rate."""
        trial = self.status.trial
        grid = {} if trial.learning_rate is None else {"learning_rate": trial.learning_rate}
        return {"batch_size": trial.batch_size, "replicate": trial.replicate, **grid}

    def seconds_at(self, epoch: int) -> float | None:
        """When an epoch ended, by which it is told from that of a trial that began anew; None without it."""
        return next((point.seconds for point in self.points if point.epoch == epoch), None)


@dataclass(frozen=True)
class RunContent:
    """A run at one moment.

    Attributes:
        identity: Tells the run from all others, see `Store.identity`.
        study: The study, its secrets masked.
        started: When the run's first session began, in seconds since 1970, UTC.
        ended: When its last session ended; None while that goes on, or where it was killed.
        trials: Those that have begun, in the order of the plan.
        planned: Number of all trials.
    """

    identity: str
    study: AnyStudy
    started: float
    ended: float | None
    trials: tuple[TrialSeries, ...]
    planned: int

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The study's values by dotted key, but for its description; lists as text."""
        values = study_values(self.study)
        values.pop("description", None)
        return {key: _parameter(value) for key, value in values.items()}


def read_run(place: RunFolder) -> RunContent:
    """Reads what is stored of a run at this moment.

    Args:
        place: The run's folder.

    Raises:
        HistoryError: No epoch is stored yet.
        RunFolderError: The folder holds no run, or its database does not tell when the run began.
    """
    study = without_secrets(place.study())
    with Store(place.database) as store:
        statuses = (
            store.trials()
        )  # ahead of the history: a trial that is told complete then has its last epoch
        history, sessions, identity = store.history(study.name), store.sessions(), store.identity()
    if history.empty:
        raise HistoryError(
            f"{place.path}: at least one epoch must be stored, but none is yet; export it later"
        )
    if identity is None:
        raise RunFolderError(f"{place.path}: its database must tell when the run began, but holds no session")
    # Not of the trials alone: a name must not change when the run grows.
    most = max((status.trial.replicate for status in statuses), default=1)
    most = most if study.until_ci is None else max(most, study.until_ci.max_replicates)
    rows = {str(name): table for name, table in history.groupby("trial")}
    begun = [status for status in statuses if status.state is not TrialState.WAITING or status.epochs]
    return RunContent(
        identity=identity,
        study=study,
        started=_moment(sessions[0][0], place),
        ended=None if sessions[-1][1] is None else _moment(sessions[-1][1], place),
        trials=tuple(
            TrialSeries(_sorted_name(status.trial, study, most), status, _points(rows.get(status.trial.name)))
            for status in begun
        ),
        planned=len(statuses),
    )


def _sorted_name(trial: Trial, study: AnyStudy, most: int) -> str:
    """A trial's name that sorts as batch sizes and replicates do, for example ``b0016-r01``."""
    size = max(4, len(str(max(study.batch_sizes))))
    replicate = max(2, len(str(most)))
    between = trial.name.removeprefix(f"b{trial.batch_size}-").removesuffix(f"r{trial.replicate}")
    return f"b{trial.batch_size:0{size}}-{between}r{trial.replicate:0{replicate}}"


def _points(table: pd.DataFrame | None) -> tuple[Point, ...]:
    if table is None:
        return ()
    columns = [name for name in table.select_dtypes("number").columns if name not in _KEYS]
    return tuple(_point(row, columns) for row in table.to_dict("records"))


def _point(row: Mapping[Any, Any], columns: list[str]) -> Point:
    figures = {name: float(row[name]) for name in columns}
    seconds = figures.get("seconds", math.nan)
    return Point(
        epoch=int(row["epoch"]),
        seconds=seconds if math.isfinite(seconds) else 0.0,
        figures={name: x for name, x in figures.items() if name in METRICS or not math.isnan(x)},
    )


def _moment(text: str, place: RunFolder) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise RunFolderError(f"{place.path}: a session's start and end must be times: {error}") from error


def _parameter(value: Any) -> Parameter:
    return value if isinstance(value, str | int | float | bool) else str(value)
