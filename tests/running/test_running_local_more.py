"""Jobs that come up while the local executor is at work, whatever becomes of its workers."""

from __future__ import annotations

import os
import signal
import time

from executions import Execution

from batchscope.records import Trial
from batchscope.running.local import Job
from run_samples import is_alive, logged_pids

THIRD, FOURTH = Trial(batch_size=8, replicate=2), Trial(batch_size=16, replicate=2)


def jobs(execution: Execution, *trials: Trial) -> list[Job]:
    return [Job(trial, execution.folder / f"{trial.name}.npz") for trial in trials]


def test_jobs_that_come_up_are_carried_out_also_by_workers_that_were_idle(execution: Execution):
    def more() -> list[Job]:
        """Nothing until both first trials have ended; then two at once, one for the worker that waits."""
        if len(execution.sink.ends) < 2 or len(execution.sink.starts) > 2:
            return []
        return jobs(execution, THIRD, FOURTH)

    execution.run("train", workers=2, more=more)
    assert sorted(execution.outcome) == [(name, True) for name in ("b16-r1", "b16-r2", "b8-r1", "b8-r2")]
    assert len(logged_pids(execution.logs)) == 2


class Later:
    """Gives jobs once both first trials have ended, and says so to a stub when it is asked before."""

    def __init__(self, execution: Execution, *trials: Trial) -> None:
        self._execution, self._trials = execution, list(trials)

    def __call__(self) -> list[Job]:
        (self._execution.folder / "another is idle").touch()
        if len(self._execution.sink.ends) < 2:
            return []
        trials, self._trials = self._trials, []
        return jobs(self._execution, *trials)


def test_jobs_come_up_also_where_the_only_worker_died_at_the_last_that_waited(execution: Execution):
    execution.run("be killed", "b16-r1", more=Later(execution, THIRD, FOURTH))
    assert execution.outcome == [("b8-r1", True), ("b16-r1", False), ("b8-r2", True), ("b16-r2", True)]
    assert len(logged_pids(execution.logs)) == 2


def test_a_worker_that_was_idle_takes_what_comes_up_when_the_other_dies(execution: Execution):
    execution.run("be killed last", "b16-r1", workers=2, more=Later(execution, THIRD))
    assert execution.outcome == [("b8-r1", True), ("b16-r1", False), ("b8-r2", True)]
    assert len(logged_pids(execution.logs)) == 2


def test_beside_one_that_was_idle_another_is_started_for_the_rest(execution: Execution):
    execution.run("be killed last", "b16-r1", workers=2, more=Later(execution, THIRD, FOURTH))
    assert sorted(execution.outcome[2:]) == [("b16-r2", True), ("b8-r2", True)]
    assert len(logged_pids(execution.logs)) == 3


def test_an_idle_worker_that_is_gone_is_given_nothing(execution: Execution):
    def more() -> list[Job]:
        """Ends the idle worker, once, before the last trial is."""
        if len(execution.sink.ends) == 2 and len(execution.sink.starts) == 2:
            [idle] = [pid for pid in logged_pids(execution.logs) if is_alive(pid)]
            os.kill(idle, signal.SIGKILL)
            while is_alive(idle):
                time.sleep(0.01)
            return jobs(execution, THIRD, FOURTH)
        (execution.folder / "another is idle").touch()
        return []

    execution.run("be killed last", "b16-r1", workers=2, more=more)
    assert execution.outcome[:2] == [("b8-r1", True), ("b16-r1", False)]
    assert sorted(execution.outcome[2:]) == [("b16-r2", True), ("b8-r2", True)]
    assert len(logged_pids(execution.logs)) == 3
