"""The local executor against workers that train nothing and misbehave."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from executions import Execution

from batchscope.errors import RunFolderError, TrainingError, WeightsError
from batchscope.records import EpochRecord, Trial
from batchscope.running import pool
from batchscope.running.layout import Layout
from batchscope.running.local import Job, execute
from batchscope.running.messages import SetUp
from run_samples import (
    FIRST,
    SECOND,
    STUB,
    Events,
    children,
    is_alive,
    logged_pids,
    logged_threads,
    small_study,
)

THIRD = Trial(batch_size=8, replicate=2)
ONE, TWO = Layout(workers=1, threads=2), Layout(workers=2, threads=1)


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
    execute(SetUp(small_study(), tmp_path, tmp_path, 0), [], sink, tmp_path / "logs", (ONE, TWO))
    assert not (tmp_path / "logs").exists()
    assert sink.notes == []


def test_a_worker_that_is_killed_fails_its_trial_and_another_takes_over(execution: Execution):
    execution.run("be killed", "b8-r1", jobs=(FIRST, SECOND, THIRD))
    assert execution.outcome == [("b8-r1", False), ("b16-r1", True), ("b8-r2", True)]
    error = str(execution.sink.ends[0][1]).splitlines()
    log = execution.logs / "worker-1.log"
    assert error[0] == f"the end of {log}:"
    assert (
        error[-1]
        == "the worker process was ended by SIGKILL, as where memory runs out (then give fewer --workers)"
    )
    assert len(logged_pids(execution.logs)) == 2


def test_of_two_workers_one_is_killed_and_the_other_goes_on(execution: Execution):
    execution.run("be killed", "b8-r1", jobs=(FIRST, SECOND, THIRD), workers=2)
    assert sorted(execution.outcome) == [("b16-r1", True), ("b8-r1", False), ("b8-r2", True)]
    assert sorted(execution.sink.records) == [
        (name, epoch)
        for name, epochs in (("b16-r1", 2), ("b8-r1", 1), ("b8-r2", 2))
        for epoch in range(1, epochs + 1)
    ]
    assert len(logged_pids(execution.logs)) in (
        2,
        3,
    )  # none follows where the other took the last trial first


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


def test_three_workers_that_die_at_set_up_in_a_row_end_the_run_with_the_last_ones_log(execution: Execution):
    with pytest.raises(TrainingError) as caught:
        execution.run("die at set-up")
    last = execution.logs / "worker-3.log"
    lines = str(caught.value).splitlines()
    assert lines[0] == f"3 workers in a row could not be set up; the end of {last}:"
    assert lines[1].endswith("die at set-up")
    assert lines[-1] == "the worker process ended with exit code 3"
    assert execution.sink.notes[-1] == (
        f"a worker is gone before it was at any trial (see {last}); "
        "as were 3 in a row, so no other is started"
    )
    assert (execution.outcome, len(logged_pids(execution.logs))) == ([], 3)


def test_two_workers_that_die_at_set_up_cost_no_trial(execution: Execution):
    execution.run("die at first set-ups", "2")
    assert execution.outcome == [("b8-r1", True), ("b16-r1", True)]
    assert [note.endswith("another is started") for note in execution.sink.notes[:3]] == [True, True, False]
    assert len(logged_pids(execution.logs)) == 3


class Counting(Events):
    """Lets the first trial begin once the second has a worker, and the second once three died at set-up."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def started(self, trial: Trial, *counts: float) -> None:
        if trial == SECOND:
            (self._folder / "both are at work").touch()

    def note(self, text: str) -> None:
        super().note(text)
        if text.endswith("no other is started"):
            (self._folder / "three died").touch()


def test_where_no_worker_can_replace_one_that_died_the_others_go_on(execution: Execution):
    execution.sink = Counting(execution.folder)
    execution.run("be killed for good", "b8-r1", jobs=(FIRST, SECOND, THIRD), workers=2)
    assert execution.outcome == [("b8-r1", False), ("b16-r1", True), ("b8-r2", True)]
    assert len(logged_pids(execution.logs)) == 5


def test_a_library_that_talks_into_the_pipe_at_set_up_ends_the_run(execution: Execution):
    with pytest.raises(TrainingError, match="could not be set up") as caught:
        execution.run("talk at set-up")
    assert "no whole message" in str(caught.value)


def test_what_a_worker_refuses_is_raised_as_it_is(execution: Execution):
    with pytest.raises(WeightsError, match=r"^weights must be somewhere, but are nowhere$"):
        execution.run("refuse", workers=2)


def test_a_worker_that_cannot_be_started_is_told(execution: Execution, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool, "_COMMAND", ("/nowhere/python",))
    job = Job(FIRST, execution.folder / "x.npz")
    with pytest.raises(TrainingError, match=r"a worker with its log .*worker-1\.log must be startable"):
        execute(execution.set_up, [job], execution.sink, execution.logs, (ONE,))


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


def test_each_worker_computes_with_its_threads_and_no_other_setting_counts(
    execution: Execution, monkeypatch: pytest.MonkeyPatch
):
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        monkeypatch.setenv(name, "7")
    execution.run("train", layouts=(Layout(workers=2, threads=3),))
    assert logged_threads(execution.logs) == [3, 3]
    assert execution.sink.choices == [(Layout(2, 3), {})]


def test_all_workers_end_when_the_run_is_killed(tmp_path: Path):
    code = (
        "import sys, pathlib\n"
        "from batchscope.running import pool\n"
        "from batchscope.running.layout import Layout\n"
        "from batchscope.running.local import execute\n"
        "from batchscope.running.messages import SetUp\n"
        "from run_samples import FIRST, SECOND, STUB, Events, small_study\n"
        "pool._COMMAND = (sys.executable, str(STUB), 'wait')\n"
        "here = pathlib.Path(sys.argv[1])\n"
        "jobs = [pool.Job(trial, here / 'x.npz') for trial in (FIRST, SECOND)]\n"
        "class Told(Events):\n"
        "    def epoch(self, trial, record):\n"
        "        print(trial.name, flush=True)\n"
        "execute(SetUp(small_study(), here, here, 0), jobs, Told(), here / 'logs', [Layout(2, 1)])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(STUB.parent), *sys.path])},
    ) as process:
        assert process.stdout is not None
        assert {process.stdout.readline().strip() for _ in range(2)} == {"b8-r1", "b16-r1"}
        process.kill()
    for pid in logged_pids(tmp_path / "logs"):
        while is_alive(pid):  # a worker that outlives its run makes this hang
            time.sleep(0.01)
