"""Kills change nothing where the training is somebody's own: the examples, killed and started again."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from commands import HERE, await_end, started
from siege import Blow, Siege

import batchscope
from batchscope.records import TrialState
from batchscope.running.store import Store
from run_samples import children, is_alive

ROOT = HERE.parents[1]
TRIALS = [f"b{size}-r{replicate}" for size in (16, 64) for replicate in (1, 2)]
EARLY, STARTING = Blow("run", "now", 2.0), Blow("worker", "worker started", 2.0)
RUN, WORKER = Blow("run", "epoch told", 0.3), Blow("worker", "epoch told", 0.3)
AT_ONCE, WORKER_AT_ONCE = Blow("run", "checkpoint kept", 0.02), Blow("worker", "checkpoint kept", 0.02)
BLOWS = [EARLY, RUN, WORKER, AT_ONCE, STARTING, WORKER_AT_ONCE, RUN, WORKER]


def function_command(epochs: int, folder: Path) -> list[str | Path]:
    return [sys.executable, HERE / "own_driver.py", ROOT / "examples" / "torch_loop.py", folder, str(epochs)]


def program_command(epochs: int, folder: Path) -> list[str | Path]:
    program = (
        f"{sys.executable} {ROOT}/examples/command_train.py --batch-size {{batch_size}} --seed {{seed}} "
        f"--checkpoint {{folder}}/state.npz --epochs {epochs}"
    )
    options = ["--batch-sizes", "16,64", "--replicates", "2", "--workers", "2"]
    stubbed = [sys.executable, HERE / "stubbed_run.py", "", "no report"]
    return [*stubbed, "run", "--command", program, *options, "--out", folder]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("command", "state", "epochs"),
    [
        pytest.param(function_command, "*/state.pt", 50, id="function"),
        pytest.param(program_command, "*/state.npz", 80, id="command"),
    ],
)
def test_a_study_of_own_code_killed_many_times_ends_with_the_figures_of_one_never_killed(
    tmp_path: Path, command: Callable[[int, Path], Sequence[str | Path]], state: str, epochs: int
):
    if command is function_command and importlib.util.find_spec("torch") is None:
        pytest.skip("needs PyTorch")
    folders = [tmp_path / "whole", tmp_path / "besieged"]
    with started(command(epochs, folders[0]), cwd=tmp_path) as process:
        _, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    begin = partial(started, command(epochs, folders[1]), cwd=tmp_path)
    with Siege(begin, folders[1], seed=5, states=state) as siege:
        siege.strike(BLOWS)
        siege.conclude(restarts=4)
    assert len(siege.dealt) == len(BLOWS)
    whole, besieged = (batchscope.load(folder) for folder in folders)
    assert whole.history[["trial", "epoch"]].to_numpy().tolist() == [
        [trial, epoch] for trial in TRIALS for epoch in range(1, epochs + 1)
    ]
    assert whole.history["val_loss"].nunique() > 3 * epochs
    histories = [run.history.drop(columns="seconds") for run in (besieged, whole)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    assert {status.state for status in besieged.trials} == {TrialState.COMPLETE}
    assert list((besieged.path / "checkpoints").iterdir()) == []
    # Nothing was replaced: each trial went on from its checkpoint, and none began anew.
    with Store(besieged.path / "results.sqlite") as store:
        assert not [name for _, _, facts in store.sessions() for name in facts if "discarded" in name]


SLEEPER = (
    "import os, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "open('pids.new', 'w').write(f'{os.getpid()} {child.pid}')\n"
    "os.replace('pids.new', 'pids')\n"
    "time.sleep(600)\n"
)
# A shell starts background jobs, the tests among them, with SIGINT ignored.
HEEDING_CTRL_C = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from batchscope.cli import main; main()"
)


COMMAND = [sys.executable, "-m", "batchscope", "run"]
NEEDED = ["--batch-sizes", "16", "--replicates", "1"]
PLAIN: tuple[str, ...] = ()
GROUP = ("timeout", "900")  # leads a process group of its own
SESSION = ("setsid", "--wait")  # and this a session


@pytest.fixture
def sleeping(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[int, list[int]]]:
    """A run whose command sleeps, and so does what it has started: the run's pid, and theirs."""
    yield from asleep(tmp_path, request.param)


def asleep(folder: Path, way: Sequence[str] = ()) -> Iterator[tuple[int, list[int]]]:
    (folder / "sleeper.py").write_text(SLEEPER)
    (folder / "pids").unlink(missing_ok=True)
    program = shlex.join([*way, sys.executable, "sleeper.py"])
    command = [sys.executable, "-c", HEEDING_CTRL_C, "run", "--command", program, *NEEDED, "--out", "run"]
    with started(command, cwd=folder) as process:
        while not (folder / "pids").exists():
            assert process.poll() is None
            time.sleep(0.01)
        yield process.pid, [int(pid) for pid in (folder / "pids").read_text().split()]
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("sleeping", "number"),
    [
        pytest.param(PLAIN, signal.SIGKILL, id="plain-kill"),
        pytest.param(PLAIN, signal.SIGINT, id="plain-int"),
        pytest.param(GROUP, signal.SIGTERM, id="group-term"),
        pytest.param(SESSION, signal.SIGKILL, id="session-kill"),
        pytest.param(SESSION, signal.SIGTERM, id="session-term"),
    ],
    indirect=["sleeping"],
)
def test_a_command_and_what_it_has_started_end_with_the_run(
    sleeping: tuple[int, list[int]], number: signal.Signals
):
    run, others = sleeping
    workers = children(run)
    assert (len(workers), [is_alive(pid) for pid in others]) == (1, [True, True])
    os.kill(run, number)
    await_end([*workers, *others])


@pytest.mark.parametrize("sleeping", [PLAIN, SESSION], indirect=True, ids=["plain", "session"])
def test_a_command_and_what_it_has_started_end_with_their_worker(
    sleeping: tuple[int, list[int]], tmp_path: Path
):
    run, others = sleeping
    [worker] = children(run)
    os.kill(worker, signal.SIGKILL)
    await_end(others)
    (tmp_path / "pids").unlink()


def test_what_outlives_run_and_worker_is_ended_by_the_next_run_on_the_folder(tmp_path: Path):
    """Killed at once, neither can end what left their process group; no other run may."""
    for run, others in asleep(tmp_path, SESSION):
        [worker] = children(run)
        os.kill(worker, signal.SIGSTOP)
        os.kill(run, signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)
        os.kill(run, signal.SIGKILL)
        await_end([run, worker])
        assert all(map(is_alive, others))
        (tmp_path / "run").rename(tmp_path / "moved")
        for path in ("other", "run"):  # the latter a new run where the old one was
            elsewhere = [*COMMAND, "--command", "true", *NEEDED, "--out", path]
            with started(elsewhere, cwd=tmp_path) as process:
                process.communicate()
            assert all(map(is_alive, others))
        shutil.rmtree(tmp_path / "run")
        (tmp_path / "moved").rename(tmp_path / "run")
        with started([*COMMAND, "run/study.toml", "--out", "run"], cwd=tmp_path) as process:
            await_end(others)
            process.kill()
            process.communicate()
