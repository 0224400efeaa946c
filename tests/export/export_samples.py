"""Stored runs whose figures are known, with what is not finite among them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from batchscope.records import EpochRecord, Trial, TrialState
from batchscope.running.folder import RunFolder
from batchscope.running.store import DataSummary
from batchscope.spec import Study
from run_samples import record, small_study

STUDY = small_study(name="sorting", description="Why it is done.", replicates=2)
TRIALS = [Trial(8, 1), Trial(16, 1), Trial(8, 2), Trial(16, 2)]
STARTED, ENDED = "2026-01-02T03:04:05+00:00", "2026-01-02T04:04:05+00:00"
NAMES = {"b8-r1": "b0008-r01", "b16-r1": "b0016-r01", "b8-r2": "b0008-r02", "b16-r2": "b0016-r02"}
SUMMARY = DataSummary("there", "f00d", ("cat", "dog"), (20, 28), (3, 9), ())


def figures(trial: Trial, epoch: int, **changes: object) -> EpochRecord:
    """An epoch's record that differs from every other trial's; a probe at the second epoch only."""
    offset = 0.001 * trial.batch_size + 0.01 * trial.replicate
    probes = {"probe_train_clean_accuracy": 0.5 + offset} if epoch == 2 else {}
    return record(epoch, val_accuracy=0.5 + 0.1 * epoch - offset, probes=probes, **changes)


@dataclass(frozen=True)
class Told:
    """What is stored of a trial."""

    state: TrialState
    records: tuple[EpochRecord, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Stored:
    """A run's folder with trials in every state, and its study."""

    folder: RunFolder
    study: Study = STUDY
    told: dict[str, Told] = field(default_factory=dict)


def whole(trial: Trial, epochs: int = 2) -> Told:
    return Told(TrialState.COMPLETE, tuple(figures(trial, epoch) for epoch in range(1, epochs + 1)))


def mixed() -> dict[str, Told]:
    """One complete, one diverged with NaN and infinity, one failed after an epoch, one not begun."""
    first, second, third, _ = TRIALS
    lost = figures(second, 2, train_loss=math.inf, val_loss=math.nan)
    return {
        first.name: whole(first),
        second.name: Told(TrialState.DIVERGED, (figures(second, 1), lost)),
        third.name: Told(TrialState.FAILED, (figures(third, 1),), "Traceback:\nValueError: broken"),
        "b16-r2": Told(TrialState.WAITING),
    }


def stored(path: Path, told: dict[str, Told] | None = None, study: Study = STUDY) -> Stored:
    """A run's folder that holds these trials, made as a run makes it; one that is there gets them too."""
    told = mixed() if told is None else told
    place = RunFolder(path)
    with place.claim(study) as store:
        if not store.sessions():
            session = store.start_session(STARTED, {"command": "batchscope run sorting.toml"})
            store.update_session(session, {}, ended=ENDED)
            store.keep_data(SUMMARY, [])
        store.plan(TRIALS)
        for trial in TRIALS:
            for entry in told[trial.name].records:
                store.add(trial, entry)
            store.set_state(trial, told[trial.name].state, told[trial.name].error)
    return Stored(place, study, told)


def expected(told: Told) -> Iterable[tuple[str, int, float]]:
    """(column, epoch, value) of all that is to be exported of a trial, by a plain loop over its records."""
    for entry in told.records:
        for name in ("updates", "examples", "seconds", "learning_rate"):
            yield name, entry.epoch, float(getattr(entry, name))
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            yield name, entry.epoch, getattr(entry, name)
        for name, value in entry.probes.items():
            yield name, entry.epoch, value
