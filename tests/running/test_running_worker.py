"""The real worker program, as far as it goes without training: it never outlives its run."""

from __future__ import annotations

import io
import os
import pickle
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchscope.errors import Problem, StudyError, TrainingError
from batchscope.running import pool
from batchscope.running import worker as program
from batchscope.running.messages import EpochDone, Fatal, Measured, SetUp, Stored, receive, send
from run_samples import record, small_study

Worker = subprocess.Popen[bytes]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    with subprocess.Popen(
        [sys.executable, "-m", "batchscope.running.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"KERAS_BACKEND": "abacus"},
    ) as process:
        yield process
        process.kill()


def test_a_worker_ends_when_its_run_is_gone_before_the_set_up(worker: Worker):
    assert worker.communicate(timeout=60) == (b"", b"")
    assert worker.returncode == 0


def test_a_worker_ends_when_its_run_is_gone_in_the_middle_of_a_message(worker: Worker):
    whole = pickle.dumps(SetUp(small_study(), Path("nowhere"), Path("nowhere"), 0))
    out, _ = worker.communicate(whole[:-40], timeout=60)
    assert out == b""
    assert worker.returncode == 0


def test_a_backend_that_is_not_there_is_refused_by_name(worker: Worker):
    assert worker.stdin is not None
    assert worker.stdout is not None
    send(worker.stdin, SetUp(small_study(), Path("nowhere"), Path("nowhere"), 0))
    answer = receive(worker.stdout)
    assert isinstance(answer, Fatal)
    assert isinstance(answer.error, TrainingError)
    assert str(answer.error) == (
        "training needs one of the backends tensorflow, jax, torch, but KERAS_BACKEND is abacus, "
        "which is not installed; pip install 'batchscope[tensorflow]'"
    )


def test_a_worker_that_cannot_be_set_up_for_another_reason_leaves_it_in_its_log():
    code = (
        "from batchscope.running import worker\n"
        "def prepare(set_up):\n"
        "    raise MemoryError('none is left')\n"
        "worker._prepare = prepare\n"
        "worker.main()\n"
    )
    whole = pickle.dumps(SetUp(small_study(), Path("nowhere"), Path("nowhere"), 0))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.write(whole)
        process.stdin.flush()  # and stays open: the worker ends by itself
        code_at_end = process.wait(timeout=60)
        assert process.stdout is not None
        assert process.stderr is not None
        assert (code_at_end, process.stdout.read()) == (1, b"")
        assert process.stderr.read().splitlines()[-1] == b"MemoryError: none is left"


def test_a_worker_leaves_signals_to_the_run():
    code = (
        "import sys\n"
        "from batchscope.running.worker import leave_signals_to_the_run\n"
        "leave_signals_to_the_run()\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
        "print('not disturbed')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "not disturbed\n")


@pytest.mark.parametrize("error", [None, ProcessLookupError, PermissionError])
def test_the_group_of_a_worker_that_is_gone_is_signalled_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError] | None
):
    """Its number may be another group's by then."""
    signalled: list[tuple[int, int]] = []

    def killpg(group: int, number: int) -> None:
        signalled.append((group, number))
        if error is not None:
            raise error

    monkeypatch.setattr(os, "killpg", killpg)
    inbox: queue.SimpleQueue[pool.Heard] = queue.SimpleQueue()
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0) as process:
        gone = pool.Worker(process, tmp_path / "log", inbox, mark="nobody bears this")
        gone.kill()
        expected = [(process.pid, signal.SIGKILL)]
        assert signalled == expected
        assert gone.is_alive()
        assert process.stdin is not None
        process.stdin.close()
        assert inbox.get(timeout=60) == (gone, None)
        assert signalled == expected * 2
        gone.kill()
        assert signalled == expected * 2
        gone.reader.join(60)


class Trainer:
    """Says five times the seconds; less than one is too short for it."""

    def measure(self, seconds: float) -> float:
        if seconds < 1:
            raise ZeroDivisionError("too short")
        return 5 * seconds


def test_a_worker_says_how_fast_it_was_or_why_it_cannot():
    trainer = Trainer()
    assert program._measure(trainer, 2.0) == Measured(10.0)  # type: ignore[arg-type]
    answer = program._measure(trainer, 0.5)  # type: ignore[arg-type]
    assert isinstance(answer, Fatal)
    lines = str(answer.error).splitlines()
    assert lines[0] == "training could not be measured:"
    assert lines[-1] == "ZeroDivisionError: too short"


def test_messages_pass_whole_and_in_order():
    pipe = io.BytesIO()
    sent = [EpochDone(record(1, val_loss=float("inf"), probes={"norm": 0.1})), Stored()]
    for message in sent:
        send(pipe, message)
    pipe.seek(0)
    assert [receive(pipe), receive(pipe), receive(pipe)] == [*sent, None]


def test_errors_pass_with_all_that_they_tell():
    pipe = io.BytesIO()
    send(pipe, Fatal(StudyError("mine.toml", [Problem("seed", "must be", "x"), Problem("", "is bad")])))
    pipe.seek(0)
    answer = receive(pipe)
    assert isinstance(answer, Fatal)
    assert str(answer.error) == "mine.toml: 2 problems\n  seed: must be (got x)\n  the file: is bad"
