"""Nodes that are killed, and drivers that are."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from batchscope.api import Run
from batchscope.errors import ClusterError
from batchscope.own.handle import TrialHandle
from batchscope.records import EpochRecord, Trial
from batchscope.running.cluster import fleet, session
from batchscope.running.run import run_study
from batchscope.running.store import Store
from clusters import LOCAL, assert_alike, cluster, on_ray, study_of_views
from own_runs import outcomes, run_function
from run_samples import Events, is_alive

DRIVER = Path(__file__).with_name("driver.py")


def test_a_node_is_killed_and_the_history_is_that_of_one_machine(tmp_path: Path):
    pytest.importorskip("ray")
    study = study_of_views(epochs=3)
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
    assert_alike(tmp_path / "run", tmp_path / "here")
    assert all(status.state.value == "complete" for status in Run(tmp_path / "run").trials)
    assert any("lost its worker or node" in note for note in seen.notes)
    assert len(seen.records) == len(set(seen.records)) == 4 * 3  # from the state that was kept, not anew
    # On the third node only if there was anything left for it.
    brought = [note.partition(":")[0] for note in seen.notes if note.startswith("the data are on node")]
    assert len(brought) == len(set(brought)) >= 2


def _place(record: tuple[str, int]) -> tuple[str, str]:
    size, replicate = record[0].split("-")
    return size, replicate


@pytest.mark.timeout(150)
def test_where_no_node_is_left_with_room_the_run_says_so_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("ray")
    monkeypatch.setattr(fleet, "_PATIENCE_SECONDS", 5.0)

    def train(trial: TrialHandle) -> None:
        import time

        for epoch in range(len(trial.reported) + 1, 4):
            trial.report(updates=epoch, val_accuracy=0.5)
            time.sleep(0.3)

    class LoseTheNode(Events):
        def epoch(self, trial: Trial, record: EpochRecord) -> None:
            super().epoch(trial, record)
            if len(self.records) == 1:
                started.remove_node(roomy, allow_graceful=False)

    with cluster(1) as started:
        roomy = started.add_node(num_cpus=2)
        with pytest.raises(ClusterError, match=r"none had for 5 s, and [12] trials wait; add nodes"):
            run_function(train, tmp_path / "run", LoseTheNode(), on_ray(cpus_per_trial=2.0))
        started.add_node(num_cpus=2)
        run = run_function(train, tmp_path / "run", None, on_ray(cpus_per_trial=2.0))
    assert outcomes(run) == [("b16-r1", "complete", 3), ("b32-r1", "complete", 3)]


def test_a_killed_driver_leaves_nothing_running_and_the_same_command_goes_on(tmp_path: Path):
    pytest.importorskip("ray")
    folder = tmp_path / "run"
    with cluster(2) as started:
        _kill_and_go_on([sys.executable, str(DRIVER), str(folder), started.address], folder)


def _kill_and_go_on(command: list[str], folder: Path) -> None:
    """The cluster goes on; on both of its nodes the driver's trials do not."""
    tmp_path = folder.parent
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        waited = {"b16-r1 2\n", "b32-r1 2\n"}
        while waited:
            waited.discard(driver.stdout.readline())
            assert driver.poll() is None
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        assert all(map(is_alive, pids))
        driver.send_signal(signal.SIGKILL)
    _wait_for_end_of(pids)
    stored = sum(status.epochs for status in Run(folder).trials)
    assert stored == 4
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
        with Store(folder / "results.sqlite") as store:
            assert [facts["stopped by"] for *_, facts in store.sessions()] == ["SIGTERM"]
    _wait_for_end_of([pid])


def _wait_for_end_of(pids: list[int]) -> None:
    until = time.monotonic() + 60
    while any(map(is_alive, pids)):
        assert time.monotonic() < until
        time.sleep(0.2)
