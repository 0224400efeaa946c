"""Real trainings in real worker processes: what is left behind, and what a kill changes (nothing)."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest

import batchscope
from batchscope.history import read_history
from batchscope.records import PEAK_MEMORY, EpochRecord, Trial, TrialState
from batchscope.running import run
from batchscope.running.folder import RunFolder
from batchscope.running.machine import Machine
from batchscope.running.run import run_study
from batchscope.running.store import Store
from run_samples import FIRST, SECOND, TESTS, Events, children, python_path, trained_study
from timeless import history_without_time

pytestmark = pytest.mark.keras
STUDY = trained_study(replicates=2)
TRIALS = ["b8-r1", "b16-r1", "b8-r2", "b16-r2"]


@pytest.fixture(scope="module", autouse=True)
def _network_in_reach() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", python_path(TESTS))
        yield


def with_cores(cores: int) -> AbstractContextManager[object]:
    """The run finds so many cores, and so takes as many workers with one thread each."""
    machine = Machine(cores, memory=None, gpu=False)
    return mock.patch.object(run, "look_around", return_value=machine)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> batchscope.Run:
    """A run that nothing disturbs, by two workers."""
    with with_cores(2):
        return batchscope.run(STUDY, out=tmp_path_factory.mktemp("whole") / "run")


@dataclass(frozen=True)
class Disturbed:
    """A run in which much went wrong, as it stood then and after the same call once more."""

    before: Mapping[str, tuple[TrialState, int, str]]
    resumed: Events
    after: batchscope.Run


class Killer(Events):
    """Kills the worker after the first trial's first epoch."""

    def __init__(self) -> None:
        super().__init__()
        self._others = set(children())

    def epoch(self, trial: Trial, record: EpochRecord) -> None:
        super().epoch(trial, record)
        if (trial, record.epoch) == (FIRST, 1):
            for pid in set(children()) - self._others:
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disturbed]:
    """By one worker."""
    with with_cores(1):
        yield disturb(tmp_path_factory)


def disturb(tmp_path_factory: pytest.TempPathFactory) -> Disturbed:
    place = RunFolder(tmp_path_factory.mktemp("disturbed") / "run")
    obstacle = place.checkpoints / f"{SECOND.name}.npz"
    with place.claim(STUDY):
        obstacle.mkdir(parents=True)  # the second trial cannot keep its state, and raises
    statuses = run_study(STUDY, place.path, Killer())
    before = {s.trial.name: (s.state, s.epochs, str(s.error)) for s in statuses}
    obstacle.rmdir()
    with closing(sqlite3.connect(place.database)) as database, database:
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("DELETE FROM epoch WHERE trial = 'b8-r2' AND epoch = 2")
        database.execute("UPDATE trial SET state = 'running' WHERE name = 'b8-r2'")
    resumed = Events()
    run_study(STUDY, place.path, resumed)
    return Disturbed(before, resumed, batchscope.load(place.path))


def test_the_history_has_a_row_for_each_trial_and_epoch(whole: batchscope.Run):
    history = whole.history
    assert history[["trial", "epoch"]].to_numpy().tolist() == [
        [trial, epoch] for trial in ("b8-r1", "b8-r2", "b16-r1", "b16-r2") for epoch in (1, 2)
    ]
    assert history["updates"].tolist() == [6, 12, 6, 12, 3, 6, 3, 6]
    assert history["examples"].tolist() == [48, 96] * 4
    assert set(history["learning_rate"]) == {1e-3}
    assert (history["study"] == "tiny").all()
    assert (history.groupby("trial")["seconds"].diff().dropna() > 0).all()
    assert history["train_loss"].nunique() == 8
    assert history["train_loss"].between(0.05, 5).all()
    assert history["val_accuracy"].between(0, 1).all()
    # A process with TensorFlow takes hundreds of megabytes; where nothing is reset there is no such column.
    assert (PEAK_MEMORY in history.columns) == sys.platform.startswith("linux")
    assert history.get(PEAK_MEMORY, pd.Series([2e8])).between(2e8, 2e10).all()


def test_two_workers_trained_with_a_thread_each(whole: batchscope.Run):
    assert len(list((whole.path / "logs").iterdir())) == 2
    with Store(whole.path / "results.sqlite") as store:
        [(_, _, facts)] = store.sessions()
    assert (facts["workers"], facts["threads of a worker"]) == ("2", "1")


def test_every_trial_is_complete_and_nothing_but_results_is_left(whole: batchscope.Run):
    assert [(s.trial.name, s.state, s.epochs, s.error) for s in whole.trials] == [
        (name, TrialState.COMPLETE, 2, None) for name in TRIALS
    ]
    assert list((whole.path / "checkpoints").iterdir()) == []
    names = {entry.name for entry in whole.path.iterdir()}
    assert names >= {"study.toml", "results.sqlite", "report", "cache", "logs"}
    assert not names & {"study.partial", "results.sqlite-wal"}


def test_the_written_histories_equal_the_database(whole: batchscope.Run):
    for suffix in (".csv", ".parquet"):
        written = read_history(whole.path / "report" / f"history{suffix}")
        pd.testing.assert_frame_equal(written, whole.history, check_exact=True)


def test_figures_and_page_are_written(whole: batchscope.Run):
    report = whole.path / "report"
    pictures = {path.stem for path in report.glob("*.png")}
    assert pictures == {path.stem for path in report.glob("*.svg")}
    assert pictures >= {
        "a-replicates-accuracy",
        "a-replicates-loss",
        "b-together-accuracy",
        "c-means-accuracy",
        "d-by-batch-size-accuracy",
    }
    page = (report / "report.html").read_text(encoding="utf-8")
    for fact in ("synthetic-cactus", "keras", "seed"):
        assert fact in page


def test_the_same_call_again_trains_nothing_and_rebuilds_the_report(whole: batchscope.Run):
    before, seen = whole.history, Events()
    files = {path.name for path in (whole.path / "report").iterdir()}
    shutil.rmtree(whole.path / "report")
    again = batchscope.run(STUDY, out=whole.path, watcher=seen)
    assert (seen.planned, seen.starts, seen.records) == ([(4, 4, 0)], [], [])
    pd.testing.assert_frame_equal(again.history, before, check_exact=True)
    assert {path.name for path in (whole.path / "report").iterdir()} == files


def test_a_killed_worker_fails_its_trial_alone(disturbed: Disturbed):
    state, epochs, error = disturbed.before["b8-r1"]
    assert (state, epochs) == (TrialState.FAILED, 1)
    assert error.endswith(
        "the worker process was ended by SIGKILL, as where memory runs out (then give fewer --workers)"
    )
    for name in ("b8-r2", "b16-r2"):
        assert disturbed.before[name][:2] == (TrialState.COMPLETE, 2)


def test_a_trial_that_raises_keeps_its_traceback(disturbed: Disturbed):
    state, epochs, error = disturbed.before["b16-r1"]
    assert (state, epochs) == (TrialState.FAILED, 0)
    assert error.startswith("Traceback (most recent call last):")
    assert "b16-r1.npz" in error.splitlines()[-1]


def test_the_same_call_takes_up_what_is_left(disturbed: Disturbed):
    assert disturbed.resumed.planned == [(4, 1, 48 + 96 + 48)]
    # The first trial's checkpoint was there; the third's is gone with its completion.
    records = [("b8-r1", 2), ("b16-r1", 1), ("b16-r1", 2), ("b8-r2", 1), ("b8-r2", 2)]
    assert disturbed.resumed.records == records
    assert [s.state for s in disturbed.after.trials] == [TrialState.COMPLETE] * 4
    assert list((disturbed.after.path / "checkpoints").iterdir()) == []


def test_a_disturbed_run_of_one_worker_ends_with_the_figures_of_two_that_were_not(
    whole: batchscope.Run, disturbed: Disturbed
):
    pd.testing.assert_frame_equal(
        history_without_time(disturbed.after.history), history_without_time(whole.history), check_exact=True
    )


@pytest.mark.usefixtures("whole", "disturbed")
def test_no_worker_is_left():
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children()]
    assert [command for command in commands if b"batchscope.running.worker" in command] == []
