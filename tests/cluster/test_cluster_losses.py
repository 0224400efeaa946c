"""What a cluster does with data, workers that are lost, folders that are not shared."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from batchscope.errors import ClusterError
from batchscope.own.handle import TrialHandle
from batchscope.records import EpochRecord, Trial
from batchscope.running.cluster import session
from batchscope.running.cluster.executor import TRIES
from batchscope.running.folder import RunFolder
from batchscope.running.recorder import THREADS_FACT
from batchscope.running.run import run_study
from batchscope.running.store import Store
from clusters import on_ray, study_of_views
from own_runs import outcomes, run_function
from run_samples import Events, is_alive

NAMES = ("b16-r1", "b32-r1")


def kept_on_nodes(run: Path) -> Path:
    """Where the nodes of this machine keep a run's files; they are deleted with its end."""
    place = RunFolder(run)
    with Store(place.database) as store:
        return Path(tempfile.gettempdir()) / f"batchscope-{os.getuid()}" / place.mark(store)


def test_data_and_views_are_made_on_each_node_once_and_nothing_is_left_of_them(
    two_nodes: Any, tmp_path: Path
):
    views: dict[int, list[tuple[Path, int, int]]] = {1: [], 2: []}

    class Looking(Events):
        def epoch(self, trial: Trial, record: EpochRecord) -> None:
            super().epoch(trial, record)
            here = kept_on_nodes(tmp_path / "run").rglob(f"features/r{trial.replicate}-1-*.npy")
            views[trial.replicate] += [(path, path.stat().st_ino, path.stat().st_mtime_ns) for path in here]

    seen = Looking()
    run_study(study_of_views(epochs=1), tmp_path / "run", seen, on_ray())
    brought = [note for note in seen.notes if note.startswith("the data are on node")]
    assert len({note.partition(":")[0] for note in brought}) == len(brought) == 2
    images = 60 * 32 * 32 * 3
    assert all(f": {images / 1e6:.1f} MB in" in note for note in brought)
    for found in views.values():  # written once, on one node, and there for both batch sizes
        assert len(found) == 2
        assert len(set(found)) == 1
    assert len({found[0][0].parent for found in views.values()}) == 2
    assert not kept_on_nodes(tmp_path / "run").exists()
    assert not (tmp_path / "run" / session.SHARED).exists()


def test_a_worker_that_is_lost_goes_on_from_its_state_and_is_given_up_at_last(two_nodes: Any, tmp_path: Path):
    lives = tmp_path / "lives"
    lives.mkdir()

    def train(trial: TrialHandle) -> None:
        import os

        tries = lives / trial.name
        with tries.open("a") as file:
            file.write(f"{len(trial.reported)} {os.getppid()}\n")
        for epoch in range(len(trial.reported) + 1, 5):
            if trial.batch_size == 32 and epoch == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            trial.report(updates=epoch, val_accuracy=epoch / 10)
            lost = len(tries.read_text().splitlines())
            if lost == 1 and epoch == (1 if trial.batch_size == 32 else 2):
                os.kill(os.getpid(), signal.SIGKILL)

    seen = Events()
    run = run_function(train, tmp_path / "run", seen, on_ray())
    assert outcomes(run) == [("b16-r1", "complete", 4), ("b32-r1", "failed", 1)]
    tried = {name: [line.split() for line in (lives / name).read_text().splitlines()] for name in NAMES}
    assert [reported for reported, _ in tried["b16-r1"]] == ["0", "2"]
    assert [reported for reported, _ in tried["b32-r1"]] == ["0", "1", "1"]
    assert len({node for _, node in tried["b16-r1"]}) == 2  # elsewhere
    error = run.trials[1].error or ""
    assert "was ended by SIGKILL" in error
    assert error.endswith(f"its worker or node was lost {TRIES} times in a row")


def test_without_a_shared_folder_a_lost_trial_begins_anew_with_the_same_records(
    two_nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(session, "SHARED", "seen-by-the-driver-alone")
    marks = tmp_path / "marks"
    marks.mkdir()

    def train(trial: TrialHandle) -> None:
        import os

        (marks / f"{trial.name}-{len(list(marks.glob(trial.name + '-*')))}").write_text(str(trial.folder))
        for epoch in (1, 2, 3):
            trial.report(updates=epoch, val_accuracy=epoch / 10)
            if epoch == 2 and len(list(marks.glob(f"{trial.name}-*"))) == 1:
                os._exit(1)

    seen = Events()
    run = run_function(train, tmp_path / "run", seen, on_ray())
    assert outcomes(run) == [("b16-r1", "complete", 3), ("b32-r1", "complete", 3)]
    assert run.history["val_accuracy"].tolist() == [0.1, 0.2, 0.3] * 2
    assert all(str(tmp_path) not in mark.read_text() for mark in marks.iterdir())
    assert not any("discarded" in note for note in seen.notes)
    blind = [note for note in seen.notes if "does not see" in note]
    assert len(blind) == len({note.partition(")")[0] for note in blind}) > 0


def test_a_node_with_another_version_is_refused(
    two_nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(session.metadata, "version", lambda _: "0.0.1")

    def train(trial: TrialHandle) -> None:
        trial.report(updates=1, val_accuracy=0.5)

    seen = Events()
    with pytest.raises(ClusterError, match=r"must have the driver's batchscope 0\.0\.1, but this one has"):
        run_function(train, tmp_path / "run", seen, on_ray())
    assert sum("is given up" in note for note in seen.notes) == 2


def test_a_trial_that_fits_no_node_is_refused(two_nodes: Any, tmp_path: Path):
    def train(trial: TrialHandle) -> None:
        trial.report(updates=1, val_accuracy=0.5)

    with pytest.raises(ClusterError, match="asks for 2 CPUs and 0 GPUs"):
        run_function(train, tmp_path / "run", None, on_ray(cpus_per_trial=2.0))


def test_shares_of_a_cpu_let_a_node_carry_out_several_trials_and_workers_bound_them(
    two_nodes: Any, tmp_path: Path
):
    def run(bound: int | None, at_once: int) -> int:
        folder, here = tmp_path / f"bound {bound}", tmp_path / f"under way {bound}"
        here.mkdir()

        def train(trial: TrialHandle) -> None:
            import time

            (here / trial.name).touch()
            until = time.monotonic() + 60
            while len(list(here.iterdir())) < at_once and time.monotonic() < until:
                time.sleep(0.05)
            time.sleep(0.5)
            most = len(list(here.iterdir()))
            trial.report(updates=1, val_accuracy=0.5, most=most)
            (here / trial.name).unlink()

        done = run_function(train, folder, None, on_ray(bound, cpus_per_trial=0.25), replicates=4)
        assert len(done.history) == 8
        assert _workers(folder) == (str(at_once), "1")
        return int(done.history["most"].max())

    assert run(None, at_once=8) == 8
    assert run(3, at_once=3) == 3


def test_trials_that_ask_for_a_gpu_have_one_each_and_a_process_of_their_own(two_nodes: Any, tmp_path: Path):
    begun = tmp_path / "begun"
    begun.mkdir()

    def train(trial: TrialHandle) -> None:
        import os

        (begun / trial.name).touch()
        while len(list(begun.iterdir())) < 2:  # both of the first replicate at once
            time.sleep(0.05)
        trial.report(
            updates=1, val_accuracy=0.5, gpu=int(os.environ["CUDA_VISIBLE_DEVICES"]), pid=os.getpid()
        )

    asked = on_ray(cpus_per_trial=0.25, gpus_per_trial=1.0)
    run = run_function(train, tmp_path / "run", None, asked, replicates=2)
    assert _workers(tmp_path / "run") == ("2", "1")
    assert set(run.history.loc[run.history["replicate"] == 1, "gpu"]) == {0.0, 1.0}
    assert run.history["pid"].nunique() == 4


def test_trials_of_a_replicate_go_to_the_node_that_has_its_views(two_nodes: Any, tmp_path: Path):
    begun = tmp_path / "begun"
    begun.mkdir()

    def train(trial: TrialHandle) -> None:
        import os

        (begun / str(os.getppid())).touch()  # a node of one core has one process of Ray's for trials
        while len(list(begun.iterdir())) < 2:
            time.sleep(0.05)
        time.sleep(0.5)
        trial.report(updates=1, val_accuracy=0.5, node=os.getppid())

    run = run_function(train, tmp_path / "run", None, on_ray(), replicates=2, batch_sizes=[8, 16, 32])
    assert run.history.groupby("replicate")["node"].nunique().tolist() == [1, 1]
    assert run.history["node"].nunique() == 2


def _workers(folder: Path) -> tuple[str, str]:
    with Store(RunFolder(folder).database) as store:
        [(_, _, facts)] = store.sessions()
    return facts["workers"], facts[THREADS_FACT]


def test_trials_that_ask_for_no_gpu_see_none(two_nodes: Any, tmp_path: Path):
    def train(trial: TrialHandle) -> None:
        trial.report(updates=1, val_accuracy=0.5, visible=len(os.environ["CUDA_VISIBLE_DEVICES"]))

    run = run_function(train, tmp_path / "run", None, on_ray())
    assert run.history["visible"].tolist() == [0.0, 0.0]


def test_workers_are_gone_when_the_run_is_though_the_cluster_goes_on(two_nodes: Any, tmp_path: Path):
    def train(trial: TrialHandle) -> None:
        trial.report(updates=1, val_accuracy=0.5, pid=os.getpid())

    run = run_function(train, tmp_path / "run", None, on_ray())
    until = time.monotonic() + 60
    while any(is_alive(int(pid)) for pid in run.history["pid"]):
        assert time.monotonic() < until
        time.sleep(0.1)
