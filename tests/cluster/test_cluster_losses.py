"""Nodes and workers that are lost, a driver that is killed, folders that are not shared."""

from __future__ import annotations

import getpass
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from batchscope.api import Run
from batchscope.errors import ClusterError
from batchscope.own.handle import TrialHandle
from batchscope.records import EpochRecord, Trial
from batchscope.running.cluster import session
from batchscope.running.cluster.executor import TRIES
from batchscope.running.folder import RunFolder
from batchscope.running.recorder import THREADS_FACT
from batchscope.running.run import run_study
from batchscope.running.store import Store
from batchscope.spec import Study
from clusters import LOCAL, cluster, on_ray
from own_runs import outcomes, run_function
from run_samples import Events, is_alive, small_study
from tiny import stage

OF_THE_MOMENT = ("seconds", "probe_seconds", "probe_peak_memory")
DRIVER = Path(__file__).with_name("driver.py")


def keras_study(epochs: int) -> Study:
    views = stage("one", "head", epochs=epochs, augmentation={"rotation": 10})
    return small_study(replicates=2, stages=[views])


def figures(folder: Path) -> pd.DataFrame:
    history = Run(folder).history
    return history.drop(columns=[name for name in OF_THE_MOMENT if name in history.columns])


def test_a_node_is_killed_and_the_history_is_that_of_one_machine(tmp_path: Path):
    pytest.importorskip("ray")
    study = keras_study(epochs=3)
    run_study(study, tmp_path / "here", Events(), LOCAL)

    class KillANode(Events):
        """Kills the second node once both have stored an epoch, and gives a third in its place."""

        def epoch(self, trial: Trial, record: EpochRecord) -> None:
            super().epoch(trial, record)
            if len({replicate for _, replicate in map(_place, self.records)}) == 2 and not self.killed:
                self.killed = True
                started.remove_node(second, allow_graceful=False)
                started.add_node(num_cpus=1)

        killed = False

    seen = KillANode()
    with cluster(1) as started:
        second = started.add_node(num_cpus=1)
        run_study(study, tmp_path / "run", seen, on_ray())
    assert seen.killed
    pd.testing.assert_frame_equal(
        figures(tmp_path / "run"), figures(tmp_path / "here"), check_exact=False, rtol=1e-6, atol=1e-6
    )
    assert all(status.state.value == "complete" for status in Run(tmp_path / "run").trials)
    assert any("lost its worker or node" in note for note in seen.notes)
    # Once on the first node and once on the second, and on the third if there was anything left for it.
    brought = [note for note in seen.notes if note.startswith("the data are on node")]
    assert len(brought) in (2, 3)


def _place(record: tuple[str, int]) -> tuple[str, str]:
    size, replicate = record[0].split("-")
    return size, replicate


def test_data_are_brought_to_each_node_once_and_nothing_is_left_of_them(two_nodes: Any, tmp_path: Path):
    seen = Events()
    run_study(keras_study(epochs=1), tmp_path / "run", seen, on_ray())
    brought = [note for note in seen.notes if note.startswith("the data are on node")]
    assert len(brought) == 2
    images = 60 * 32 * 32 * 3
    assert all(f": {images / 1e6:.1f} MB in" in note for note in brought)
    with Store(RunFolder(tmp_path / "run").database) as store:
        mark = RunFolder(tmp_path / "run").mark(store)
    assert not list(Path(tempfile.gettempdir()).glob(f"batchscope-{getpass.getuser()}/{mark}"))
    assert not (tmp_path / "run" / session.SHARED).exists()


def test_a_worker_that_is_lost_goes_on_from_its_state_and_is_given_up_at_last(two_nodes: Any, tmp_path: Path):
    lives = tmp_path / "lives"
    lives.mkdir()

    def train(trial: TrialHandle) -> None:
        import os
        import signal

        tries = lives / trial.name
        tries.write_text((tries.read_text() if tries.exists() else "") + f"{len(trial.reported)} ")
        for epoch in range(len(trial.reported) + 1, 5):
            (trial.folder / "state").write_text(str(epoch))
            trial.report(updates=epoch, val_accuracy=epoch / 10)
            lost = len(tries.read_text().split())
            if trial.batch_size == 32 or (epoch == 2 and lost < 3):
                os.kill(os.getpid(), signal.SIGKILL)

    seen = Events()
    run = run_function(train, tmp_path / "run", seen, on_ray())
    assert outcomes(run) == [("b16-r1", "complete", 4), ("b32-r1", "failed", 3)]
    assert (lives / "b16-r1").read_text().split() == ["0", "2"]
    assert (lives / "b32-r1").read_text().split() == ["0", "1", "2"]
    assert len((lives / "b32-r1").read_text().split()) == TRIES
    error = run.trials[1].error or ""
    assert "was ended by SIGKILL" in error
    assert error.endswith(f"its worker or node was lost {TRIES} times")


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


def test_a_node_with_another_version_is_refused(
    two_nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(session.metadata, "version", lambda _: "0.0.1")

    def train(trial: TrialHandle) -> None:
        trial.report(updates=1, val_accuracy=0.5)

    with pytest.raises(ClusterError, match=r"must have the driver's batchscope 0\.0\.1, but this one has"):
        run_function(train, tmp_path / "run", None, on_ray())


def test_a_trial_that_fits_no_node_is_refused(two_nodes: Any, tmp_path: Path):
    def train(trial: TrialHandle) -> None:
        trial.report(updates=1, val_accuracy=0.5)

    with pytest.raises(ClusterError, match="asks for 2 CPUs and 0 GPUs"):
        run_function(train, tmp_path / "run", None, on_ray(cpus_per_trial=2.0))


def test_shares_of_a_cpu_let_a_node_carry_out_several_trials_and_workers_bound_them(
    two_nodes: Any, tmp_path: Path
):
    def train(trial: TrialHandle) -> None:
        trial.report(updates=1, val_accuracy=0.5)

    folder = tmp_path / "run"
    run = run_function(train, folder, None, on_ray(cpus_per_trial=0.25), replicates=6)
    run_function(train, tmp_path / "bounded", None, on_ray(3, cpus_per_trial=0.25), replicates=6)
    assert len(run.history) == 12
    assert [_workers(folder), _workers(tmp_path / "bounded")] == [("8", "1"), ("3", "1")]


def _workers(folder: Path) -> tuple[str, str]:
    with Store(RunFolder(folder).database) as store:
        [(_, _, facts)] = store.sessions()
    return facts["workers"], facts[THREADS_FACT]


def test_a_killed_driver_leaves_nothing_running_and_the_same_command_goes_on(tmp_path: Path):
    pytest.importorskip("ray")
    folder = tmp_path / "run"
    command = [sys.executable, str(DRIVER), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        assert any(line.startswith("b16-r1 2") for line in driver.stdout)
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        assert all(map(is_alive, pids))
        driver.send_signal(signal.SIGKILL)
    _wait_for_end_of(pids)
    stored = sum(status.epochs for status in Run(folder).trials)
    assert stored >= 2
    (tmp_path / "go-on").touch()
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    assert outcomes(Run(folder)) == [("b16-r1", "complete", 4), ("b32-r1", "complete", 4)]
    assert len(re.findall(r"^b\d+-r1 \d$", done.stdout, re.MULTILINE)) == 8 - stored


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_driver_that_ends_leaves_no_process_of_a_command(tmp_path: Path, how: signal.Signals):
    pytest.importorskip("ray")
    program, folder = tmp_path / "program.py", tmp_path / "run"
    program.write_text(
        'import os, time\nprint(\'{"updates": 1, "val_accuracy": 0.5}\', flush=True)\n'
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    )
    command = ["--command", f"{sys.executable} {program} {{batch_size}}", "--batch-sizes", "16"]
    asked = ["--replicates", "1", "--out", str(folder), "--executor", "ray", "--address", "local"]
    with subprocess.Popen(
        [sys.executable, "-m", "batchscope", "run", *command, *asked],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as driver:
        assert driver.stdout is not None
        assert any(line.startswith("b16-r1 epoch 1") for line in driver.stdout)
        pid = int((tmp_path / "pid").read_text())
        assert is_alive(pid)
        driver.send_signal(how)
        _, error = driver.communicate(timeout=60)
    if how == signal.SIGTERM:
        assert driver.returncode == 128 + how
        assert "Stopped by SIGTERM. 1 epoch is stored; the same command goes on from there." in error
        assert not (folder / session.SHARED).exists()
    _wait_for_end_of([pid])


def _wait_for_end_of(pids: list[int]) -> None:
    until = time.monotonic() + 60
    while any(map(is_alive, pids)):
        assert time.monotonic() < until
        time.sleep(0.2)
