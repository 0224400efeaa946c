"""Processes are found by the marks that they have inherited, and nobody else is."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batchscope.own import leftovers
from batchscope.own.leftovers import (
    bearers,
    end_all,
    mark_settings,
    new_mark,
    own_mark,
    run_mark,
)
from batchscope.running.own_runs import end_leftovers

RUN = "0123456789abcdef"

Sleeper = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def sleeper() -> Iterator[Sleeper]:
    begun: list[subprocess.Popen[bytes]] = []

    def begin(**settings: str) -> subprocess.Popen[bytes]:
        code = "import time; print('up', flush=True); time.sleep(600)"
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | settings,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"  # by then its environment is its own
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def test_who_bears_a_mark_is_ended_and_nobody_else(sleeper: Sleeper):
    mine, others = new_mark(RUN), new_mark(RUN)
    ours, theirs, nobodys = sleeper(**mark_settings(mine)), sleeper(**mark_settings(others)), sleeper()
    assert bearers(mine) == [ours.pid]
    assert sorted(bearers(RUN)) == sorted([ours.pid, theirs.pid])
    assert bearers(RUN[::-1]) == bearers("") == []
    end_all(mine)
    assert ours.wait(60) == -9
    assert (theirs.poll(), nobodys.poll()) == (None, None)


def test_a_runs_mark_is_of_its_identity_and_its_folder(tmp_path: Path):
    one, other = "1" * 32, "2" * 32
    mark = run_mark(one, tmp_path / "run")
    assert run_mark(one, tmp_path / "x" / ".." / "run") == mark  # wherever it is named from
    assert run_mark(other, tmp_path / "run") != mark  # a new run at the same path
    assert run_mark(one, tmp_path / "copy") != mark
    assert new_mark(mark).startswith(f"{mark}-")
    assert new_mark(mark) != new_mark(mark)


def test_a_number_that_is_anothers_by_now_is_let_be(sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch):
    anothers = sleeper()
    looks = [[anothers.pid], []]
    monkeypatch.setattr(leftovers, "bearers", lambda _: looks.pop(0))
    end_all(RUN)
    assert (looks, anothers.poll()) == ([], None)


def test_a_number_that_becomes_anothers_after_the_look_is_let_be(
    sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch
):
    """The signal goes to who was looked at, which is gone, and never to a number."""
    if not hasattr(os, "pidfd_open"):
        pytest.skip("needs handles of processes")
    marked, real = sleeper(**mark_settings(new_mark(RUN))), leftovers._settings

    def looked_at(pid: int) -> bytes:
        settings = real(pid)
        if pid == marked.pid and marked.poll() is None:
            os.killpg(marked.pid, signal.SIGKILL)
            marked.wait(60)
        return settings

    monkeypatch.setattr(leftovers, "_settings", looked_at)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("signalled by its number"))
    leftovers._signal(marked.pid, RUN, signal.SIGKILL)
    assert marked.returncode == -9


def refuse(*_: object) -> None:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


@pytest.mark.parametrize("missing", [True, False], ids=["not in Python", "not in the system"])
def test_without_handles_processes_are_ended_by_their_numbers(
    sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch, missing: bool
):
    if missing:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    else:
        monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)
    ours, nobodys = sleeper(**mark_settings(new_mark(RUN))), sleeper()
    end_all(RUN)
    assert ours.wait(60) == -9
    assert nobodys.poll() is None


def test_what_could_not_be_ended_is_not_told_as_ended(sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch):
    assert end_leftovers(RUN) == end_leftovers("") == []
    ours, staying = (sleeper(**mark_settings(new_mark(RUN))) for _ in range(2))
    real = leftovers._signal
    monkeypatch.setattr(leftovers, "_TRIES", 3)
    monkeypatch.setattr(leftovers, "_signal", lambda pid, *rest: pid == staying.pid or real(pid, *rest))
    told, warned = end_leftovers(RUN)
    assert told == f"ended what an earlier session had left running: {ours.pid}"
    assert f"could not be ended: {staying.pid}; it may still write into the run's folder" in warned
    assert (ours.wait(60), staying.poll()) == (-9, None)


def test_a_run_within_a_run_bears_the_marks_of_both(sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch):
    outer, inner = new_mark(RUN), new_mark(RUN[::-1])
    for name, value in mark_settings(outer).items():
        monkeypatch.setenv(name, value)
    assert own_mark() == outer
    process = sleeper(**mark_settings(inner))
    assert bearers(outer) == bearers(inner) == [process.pid]


def test_who_looks_is_never_among_those_found():
    mark = new_mark(RUN)
    code = f"from batchscope.own.leftovers import bearers, own_mark; print(bearers({mark!r}), own_mark())"
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "{code}"; true', sys.executable],
        env=os.environ | mark_settings(mark),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"[] {mark}\n"


def test_where_the_system_tells_of_no_processes_nobody_is_found(
    sleeper: Sleeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mark = new_mark(RUN)
    process = sleeper(**mark_settings(mark))
    monkeypatch.setattr(leftovers, "_PROCESSES", tmp_path / "none")
    assert bearers(mark) == []
    end_all(mark)
    assert process.poll() is None
