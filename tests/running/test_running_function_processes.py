"""Training functions and processes: what they start, read and import, in their workers and in a script."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from batchscope.errors import TrainingError
from batchscope.own.handle import TrialHandle
from own_runs import environment, outcomes, read_pid, run_function
from run_samples import is_alive

pytestmark = pytest.mark.usefixtures("machine")
BOTH = [("b16-r1", "complete", 3), ("b32-r1", "complete", 3)]


@pytest.mark.parametrize("how", ["fork", "start", "session"])
def test_what_a_function_has_started_does_not_outlive_its_worker(tmp_path: Path, how: str):
    """Nor does it hide the worker's end from the run."""
    pid = tmp_path / "pid"

    def train(trial: TrialHandle) -> None:
        import os
        import signal
        import subprocess
        import sys
        import time

        if trial.batch_size == 32:
            trial.report(updates=1, val_loss=1.0)
            return
        if how == "fork":
            child = os.fork()
            if not child:
                time.sleep(600)
        else:
            sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
            child = subprocess.Popen(sleep, start_new_session=how == "session").pid
        pid.write_text(str(child))
        os.kill(os.getpid(), signal.SIGKILL)

    run = run_function(train, tmp_path / "run")
    assert [state for _, state, _ in outcomes(run)] == ["failed", "complete"]
    assert not is_alive(read_pid(pid))


def test_children_of_a_function_heed_signals_though_the_worker_does_not(tmp_path: Path):
    def train(trial: TrialHandle) -> None:
        import multiprocessing
        import os
        import signal
        import subprocess
        import sys
        import time

        forked = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        forked.start()
        os.kill(os.getpid(), signal.SIGTERM)
        forked.terminate()
        started.terminate()
        forked.join()
        trial.report(updates=1, val_loss=1.0, forked=forked.exitcode, started=started.wait())

    history = run_function(train, tmp_path / "run").history
    assert history[["forked", "started"]].to_numpy().tolist() == [[-15, -15]] * 2


def test_what_reads_standard_input_finds_it_empty_and_swallows_no_message(tmp_path: Path):
    def train(trial: TrialHandle) -> None:
        import subprocess

        for epoch in (1, 2, 3):
            trial.report(updates=epoch, val_loss=1.0)
            done = subprocess.run(["cat"], stdout=subprocess.PIPE, check=True, timeout=60)
            assert done.stdout == b""
            with contextlib.suppress(EOFError):
                raise AssertionError(input())

    assert outcomes(run_function(train, tmp_path / "run")) == BOTH


def test_pipes_of_a_process_that_was_forked_survive_its_own_fork(tmp_path: Path):
    """They may have the numbers of the worker's, which its children are rid of."""

    def train(trial: TrialHandle) -> None:
        import os

        child = os.fork()
        if not child:
            os.closerange(3, 64)
            ends = [os.pipe() for _ in range(8)]
            grandchild = os.fork()
            if not grandchild:
                os._exit(0 if all(os.write(sink, b"x") and os.read(end, 1) for end, sink in ends) else 1)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        trial.report(updates=1, val_loss=1.0, code=code)

    assert run_function(train, tmp_path / "run").history["code"].tolist() == [0, 0]


def test_what_cannot_be_imported_in_a_worker_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = ModuleType("only_here")
    exec("def train(trial): pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(TrainingError, match="No module named 'only_here'; install the module or put its"):
        run_function(module.train, tmp_path / "run")


SCRIPT = """
import batchscope
from beside import accuracy

scale = 0.5

def train(trial):
    for epoch in (1, 2):
        trial.report(updates=epoch, val_accuracy=scale * accuracy(trial.batch_size, epoch))

run = batchscope.run(train, batch_sizes=[16, 32], replicates=1, out="mine", epochs=2, workers=2, quiet=True)
print(run.history["val_accuracy"].tolist())
print(run.study.function.name, run.analyze().facts.batch_sizes)
"""


def test_a_script_needs_no_guard_and_brings_what_lies_beside_it(tmp_path: Path):
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "script.py").write_text(SCRIPT)
    (scripts / "beside.py").write_text("def accuracy(size, epoch):\n    return epoch / size\n")
    done = subprocess.run(
        [sys.executable, "-W", "error", "scripts/script.py"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    expected = [0.5 * epoch / size for size in (16, 32) for epoch in (1, 2)]
    assert done.stdout.splitlines() == [str(expected), "__main__:train (16, 32)"]
    page = (tmp_path / "mine" / "report" / "report.html").read_text(encoding="utf-8")
    assert "__main__:train" in page
