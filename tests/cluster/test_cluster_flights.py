"""How Ray's word of a task's end is read, and which clusters are refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from batchscope.errors import ClusterError
from batchscope.own_study import CommandStudy
from batchscope.running.cluster import task
from batchscope.running.cluster.connection import connected
from batchscope.running.cluster.flights import outcome_of, progress_seconds
from batchscope.running.cluster.letters import Errand, Lost, Unfit
from batchscope.running.cluster.node_files import SHARED
from batchscope.running.messages import AnySetUp, CommandSetUp, SetUp
from run_samples import small_study

ray = pytest.importorskip("ray")
client = pytest.importorskip("ray.util.client").ray

KERAS = SetUp(small_study(), Path("data"), Path("cache"), 0)


def ended_by(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> Any:
    def get(_: object) -> object:
        raise error

    monkeypatch.setattr(ray, "get", get)
    return outcome_of(None)  # type: ignore[arg-type]


def of_task(cause: Exception) -> Any:
    """As ray.get raises what a task has raised."""
    return ray.exceptions.RayTaskError("carry_out", "the task's traceback", cause).as_instanceof_cause()


@pytest.mark.parametrize("cause", ["ActorUnavailableError", "OutOfDiskError", "OwnerDiedError"])
def test_a_task_whose_way_to_the_driver_was_cut_is_a_loss_and_no_fault_of_its_node(
    cause: str, monkeypatch: pytest.MonkeyPatch
):
    made = {
        "ActorUnavailableError": lambda: ray.exceptions.ActorUnavailableError("reset by peer", b"1" * 16),
        "OutOfDiskError": lambda: ray.exceptions.OutOfDiskError("no space left"),
        "OwnerDiedError": lambda: ray.exceptions.OwnerDiedError("1" * 56, None, "somewhere"),
    }[cause]()
    outcome = ended_by(of_task(made), monkeypatch)
    assert isinstance(outcome, Lost)
    assert outcome.seated
    assert outcome.reason.startswith(cause)


def test_a_task_that_cannot_be_loaded_is_its_nodes_fault(monkeypatch: pytest.MonkeyPatch):
    outcome = ended_by(of_task(ModuleNotFoundError("No module named 'batchscope'")), monkeypatch)
    assert isinstance(outcome, Unfit)
    assert "batchscope must be installed on every node" in str(outcome.error)
    assert "the task's traceback" in str(outcome.error)


def test_a_task_whose_node_is_gone_before_it_came_there_has_lost_nothing(monkeypatch: pytest.MonkeyPatch):
    assert ended_by(ray.exceptions.TaskUnschedulableError("node is gone"), monkeypatch) is None


def test_a_process_that_is_killed_is_a_loss(monkeypatch: pytest.MonkeyPatch):
    outcome = ended_by(ray.exceptions.WorkerCrashedError(), monkeypatch)
    assert isinstance(outcome, Lost)
    assert outcome.reason.startswith("WorkerCrashedError: The worker died unexpectedly")


@pytest.mark.parametrize("given", ["ray://head:10001", None])
def test_a_cluster_that_is_reached_from_outside_is_refused(
    given: str | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    rule = "ray://head:10001: a run must be started on a node"
    with pytest.raises(ClusterError, match=rule), connected(given):
        pass


def test_a_connection_from_outside_is_refused_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(type(client), "is_connected", lambda _: True)
    with pytest.raises(ClusterError, match=r"^ray\.init: a run must be started on a node"), connected(None):
        pass


def test_whatever_ray_says_of_a_cluster_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch):
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.")  # noqa: TRY002  # as Ray does

    monkeypatch.setattr(ray, "init", init)
    rule = "local: must be a Ray cluster.*timed out during startup"
    with pytest.raises(ClusterError, match=rule), connected("local"):
        pass


@pytest.mark.parametrize(("at_once", "seconds"), [(1, 1.0), (200, 1.0), (8000, 40.0)])
def test_many_trials_tell_less_often_so_that_their_letters_stay_few(at_once: int, seconds: float):
    assert progress_seconds(at_once) == seconds


def errand(folder: Path, set_up: AnySetUp) -> Errand:
    (folder / SHARED).write_text("token")
    gone = folder / "gone"
    return Errand("run", "token", "1", set_up, folder, gone, {}, cache_limit=0, threads=1, keep_workers=True)


def test_a_folder_that_cannot_be_written_is_not_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = errand(tmp_path, KERAS)
    assert task._is_shared(asked)
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (tmp_path, os.W_OK))
    assert not task._is_shared(asked)


def test_where_the_driver_was_started_must_be_there_for_code_of_ones_own_only(tmp_path: Path):
    here = Path.cwd()
    task._enter(errand(tmp_path, KERAS))
    assert Path.cwd() == here
    own = CommandStudy(name="own", command="train {batch_size}", batch_sizes=[8], replicates=1)
    with pytest.raises(ClusterError, match="gone: training code of one's own runs in the folder"):
        task._enter(errand(tmp_path, CommandSetUp(own, tmp_path)))
