"""The local executor against workers that train nothing and misbehave."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from batchscope.errors import RunFolderError, TrainingError, WeightsError
from batchscope.records import EpochRecord, Trial
from batchscope.running import local
from batchscope.running.local import Job, execute
from run_samples import FIRST, SECOND, STUB, Events, children, logged_pids, small_study

THIRD = Trial(batch_size=8, replicate=2)


class Execution:
    """Runs jobs with stub workers and holds that none of them outlives it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.logs = folder, folder / "logs"
        self.sink: Events = Events()
        self._monkeypatch = monkeypatch

    def run(self, *misbehaviour: str, jobs: tuple[Trial, ...] = (FIRST, SECOND), workers: int = 1) -> None:
        command = (sys.executable, str(STUB), *misbehaviour)
        self._monkeypatch.setattr(local, "_COMMAND", command)
        listed = [Job(trial, self.folder / f"{trial.name}.npz", 0) for trial in jobs]
        before = children()
        try:
            execute(small_study(), self.folder, listed, self.sink, self.logs, workers)
        finally:
            assert children() == before

    @property
    def outcome(self) -> list[tuple[str | None, bool]]:
        """The trials in the order of their ends, and whether they went well."""
        return [(name, error is None) for name, error in self.sink.ends]


@pytest.fixture
def execution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Execution:
    return Execution(tmp_path, monkeypatch)


def test_one_worker_carries_out_all_jobs_in_order(execution: Execution):
    execution.run("train", jobs=(FIRST, SECOND, THIRD))
    names = ["b8-r1", "b16-r1", "b8-r2"]
    assert execution.sink.starts == [(name,) for name in names]
    assert execution.sink.records == [(name, epoch) for name in names for epoch in (1, 2)]
    assert execution.sink.ends == [(name, None) for name in names]
    assert execution.sink.notes[:2] == ["ready", "b8-r1 16/48"]
    assert len(logged_pids(execution.logs)) == 1


def test_no_more_workers_are_started_than_there_are_jobs(execution: Execution):
    execution.run("train", workers=5)
    assert sorted(execution.outcome) == [("b16-r1", True), ("b8-r1", True)]
    assert len(logged_pids(execution.logs)) == 2


def test_without_jobs_nothing_is_started(tmp_path: Path):
    sink = Events()
    execute(small_study(), tmp_path, [], sink, tmp_path / "logs")
    assert not (tmp_path / "logs").exists()
    assert sink.notes == []


def test_a_worker_that_is_killed_fails_its_trial_and_another_takes_over(execution: Execution):
    execution.run("be killed", "b8-r1", jobs=(FIRST, SECOND, THIRD))
    assert execution.outcome == [("b8-r1", False), ("b16-r1", True), ("b8-r2", True)]
    error = str(execution.sink.ends[0][1]).splitlines()
    log = execution.logs / "worker-1.log"
    assert error[0] == f"the end of {log}:"
    assert error[-1] == "the worker process was ended by SIGKILL"
    assert len(logged_pids(execution.logs)) == 2


def test_every_worker_killed_fails_every_trial_and_ends(execution: Execution):
    execution.run("be killed")
    assert execution.outcome == [("b8-r1", False), ("b16-r1", False)]


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("be cut off", "the last it wrote is no whole message: pickle data was truncated"),
        ("talk", "the last it wrote is no whole message: "),
    ],
)
def test_what_is_no_whole_message_fails_the_trial_and_never_hangs(
    execution: Execution, what: str, reason: str
):
    execution.run(what, "b8-r1")
    assert execution.outcome == [("b8-r1", False), ("b16-r1", True)]
    last = str(execution.sink.ends[0][1]).splitlines()[-1]
    assert last.startswith("the worker process was ended by SIGKILL; ")
    assert reason in last


def test_a_worker_that_dies_at_set_up_ends_the_run_with_its_log(execution: Execution):
    with pytest.raises(TrainingError) as caught:
        execution.run("die at set-up")
    lines = str(caught.value).splitlines()
    assert lines[0] == f"a worker could not be set up; the end of {execution.logs / 'worker-1.log'}:"
    assert lines[1].endswith("die at set-up")
    assert lines[-1] == "the worker process ended with exit code 3"


def test_a_library_that_talks_into_the_pipe_at_set_up_ends_the_run(execution: Execution):
    with pytest.raises(TrainingError, match="could not be set up") as caught:
        execution.run("talk at set-up")
    assert "no whole message" in str(caught.value)


def test_what_a_worker_refuses_is_raised_as_it_is(execution: Execution):
    with pytest.raises(WeightsError, match=r"^weights must be somewhere, but are nowhere$"):
        execution.run("refuse", workers=2)


def test_a_worker_that_cannot_be_started_is_told(execution: Execution, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local, "_COMMAND", ("/nowhere/python",))
    job = Job(FIRST, execution.folder / "x.npz", 0)
    with pytest.raises(TrainingError, match=r"a worker with its log .*worker-1\.log must be startable"):
        execute(small_study(), execution.folder, [job], execution.sink, execution.logs)


class Gates(Events):
    """Lets the first trial begin once the second has a worker, and the second once the first's is gone."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder, self._before = folder, len(children())

    def started(self, trial: Trial, *counts: float) -> None:
        if trial == SECOND:
            (self._folder / "both are at work").touch()

    def ended(self, trial: Trial, *told: str | None) -> None:
        super().ended(trial, *told)
        if trial == FIRST:
            while len(children()) > self._before + 1:
                time.sleep(0.01)
            (self._folder / "one is gone").touch()


def test_a_worker_that_dies_when_it_is_done_spoils_no_trial(execution: Execution):
    execution.sink = Gates(execution.folder)
    execution.run("die when done", "b8-r1", workers=2)
    assert execution.outcome == [("b8-r1", True), ("b16-r1", True)]
    assert ("b16-r1", 2) in execution.sink.records


class Raising(Events):
    """A sink that raises at a call."""

    def __init__(self, at: str, error: BaseException) -> None:
        super().__init__()
        self._at, self._error = at, error

    def _raise(self, at: str) -> None:
        if at == self._at:
            raise self._error

    def ready(self, facts: Mapping[str, str]) -> None:
        self._raise("ready")

    def started(self, trial: Trial, *counts: float) -> None:
        self._raise("started")

    def epoch(self, trial: Trial, record: EpochRecord) -> None:
        self._raise("epoch")

    def ended(self, trial: Trial, *told: str | None) -> None:
        self._raise("ended")


@pytest.mark.parametrize("at", ["ready", "started", "epoch", "ended"])
def test_whatever_the_sink_raises_leaves_no_process(execution: Execution, at: str):
    execution.sink = Raising(at, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        execution.run("train", workers=2)


def test_a_failed_write_ends_the_run_with_its_own_error(execution: Execution):
    execution.sink = Raising("epoch", RunFolderError("no room"))
    with pytest.raises(RunFolderError, match="no room"):
        execution.run("train")
