"""The local executor against workers that train nothing and misbehave."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from batchscope.errors import RunFolderError, TrainingError, WeightsError
from batchscope.records import EpochRecord, Trial
from batchscope.running import measuring, pool
from batchscope.running.layout import Layout
from batchscope.running.local import Job, More, execute
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


class Execution:
    """Runs jobs with stub workers and holds that none of them outlives it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.logs = folder, folder / "logs"
        self.sink: Events = Events()
        self._monkeypatch = monkeypatch

    def run(
        self,
        *misbehaviour: str,
        jobs: tuple[Trial, ...] = (FIRST, SECOND),
        workers: int = 1,
        layouts: tuple[Layout, ...] = (),
        pace: str = "",
        more: More = list,
    ) -> None:
        """Takes `workers` of one thread, or `layouts`; `pace` is that of a worker with 1, 2, ... threads."""
        command = (sys.executable, str(STUB), *misbehaviour)
        self._monkeypatch.setattr(pool, "_COMMAND", command)
        self._monkeypatch.setenv("STUB_PACE", pace)
        listed = [Job(trial, self.folder / f"{trial.name}.npz") for trial in jobs]
        before = children()
        try:
            execute(self.set_up, listed, self.sink, self.logs, layouts or (Layout(workers, 1),), more)
        finally:
            assert children() == before

    @property
    def set_up(self) -> SetUp:
        return SetUp(small_study(), self.folder, self.folder / "features", 1_000)

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


@pytest.mark.parametrize(
    ("pace", "rates", "stays"),
    [
        ("120,180", {ONE: 180.0, TWO: 240.0}, {1, 2}),
        ("80,180", {ONE: 180.0, TWO: 160.0}, {0}),
        ("90,180", {ONE: 180.0, TWO: 180.0}, {0}),
    ],
)
def test_the_fastest_layouts_workers_go_on_to_train(
    execution: Execution, pace: str, rates: dict[Layout, float], stays: set[int]
):
    execution.sink = Alive(execution.logs)
    execution.run("train", jobs=(FIRST, SECOND, THIRD), layouts=(ONE, TWO), pace=pace)
    [(layout, measured)] = execution.sink.choices
    assert (layout, measured) == (ONE if stays == {0} else TWO, rates)
    assert logged_threads(execution.logs) == [2, 1, 1]
    assert execution.sink.alive == stays
    assert sorted(execution.outcome) == [("b16-r1", True), ("b8-r1", True), ("b8-r2", True)]
    seconds = f"measured for {measuring.SECONDS} s"
    assert all(seconds in log.read_text() for log in execution.logs.glob("*.log"))


class Alive(Events):
    """Looks which of the workers started are there when the choice is made."""

    def __init__(self, logs: Path) -> None:
        super().__init__()
        self._logs, self.alive = logs, set[int]()

    def chosen(self, layout: Layout, rates: Mapping[Layout, float]) -> None:
        super().chosen(layout, rates)
        self.alive = {index for index, pid in enumerate(logged_pids(self._logs)) if pid in children()}


@pytest.mark.parametrize("what", ["die at set-up", "die when measured"])
def test_a_layout_whose_worker_dies_is_not_taken(execution: Execution, what: str):
    execution.run(what, "1", layouts=(ONE, TWO), pace="500,180")
    assert execution.sink.choices == [(ONE, {ONE: 180.0, TWO: 0.0})]
    assert execution.outcome == [("b8-r1", True), ("b16-r1", True)]


@pytest.mark.parametrize(("what", "verb"), [("die at set-up", "set up"), ("die when measured", "measured")])
def test_where_not_even_one_worker_can_be_measured_the_run_ends(execution: Execution, what: str, verb: str):
    with pytest.raises(TrainingError, match=rf"^a worker could not be {verb}; the end of .*worker-1\.log"):
        execution.run(what, "2", layouts=(ONE, TWO), pace="500,180")
    assert len(logged_pids(execution.logs)) == 1


def test_what_a_worker_refuses_when_measured_is_raised_as_it_is(execution: Execution):
    with pytest.raises(WeightsError, match=r"^nothing can be measured$"):
        execution.run("fail when measured", "1", layouts=(ONE, TWO), pace="500,180")


def test_a_worker_that_dies_while_another_layout_is_measured_costs_no_trial(
    execution: Execution, monkeypatch: pytest.MonkeyPatch
):
    """The winner waits, and is killed before it has a trial."""
    start = pool.Pool.start

    def start_and_kill(self: pool.Pool, threads: int) -> pool.Worker:
        if threads == 1 and len(self._workers) == 1:
            self._workers[0].process.kill()
            self._workers[0].reader.join()
        return start(self, threads)

    monkeypatch.setattr(pool.Pool, "start", start_and_kill)
    execution.run("train", layouts=(ONE, TWO), pace="80,180")
    assert execution.sink.choices[0][0] == ONE
    assert execution.outcome == [("b8-r1", True), ("b16-r1", True)]
    assert logged_threads(execution.logs) == [2, 1, 1, 2]


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


def test_jobs_that_come_up_are_carried_out_also_by_workers_that_were_idle(execution: Execution):
    later = [Job(THIRD, execution.folder / "third.npz"), Job(Trial(16, 2), execution.folder / "fourth.npz")]

    def more() -> list[Job]:
        """Nothing until both first trials have ended; then two at once, one for the worker that waits."""
        if len(execution.sink.ends) < 2 or len(execution.sink.starts) > 2:
            return []
        return later

    execution.run("train", workers=2, more=more)
    assert sorted(execution.outcome) == [(name, True) for name in ("b16-r1", "b16-r2", "b8-r1", "b8-r2")]
    assert len(logged_pids(execution.logs)) == 2
