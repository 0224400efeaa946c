"""The local executor measures layouts of workers, and goes on with the fastest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from executions import Execution

from batchscope.errors import TrainingError, WeightsError
from batchscope.records import Trial
from batchscope.running import measuring, pool
from batchscope.running.layout import Layout
from run_samples import FIRST, SECOND, Events, children, logged_pids, logged_threads

THIRD = Trial(batch_size=8, replicate=2)
ONE, TWO = Layout(workers=1, threads=2), Layout(workers=2, threads=1)


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
