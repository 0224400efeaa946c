"""Processes are found by the marks that they have inherited, and nobody else is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batchscope.own import leftovers
from batchscope.own.leftovers import bearers, end_all, folder_mark, mark_settings, new_mark, own_mark

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


def test_who_bears_a_mark_is_ended_and_nobody_else(sleeper: Sleeper, tmp_path: Path):
    mine, others = new_mark(tmp_path / "mine"), new_mark(tmp_path / "mine")
    ours, theirs, nobodys = sleeper(**mark_settings(mine)), sleeper(**mark_settings(others)), sleeper()
    assert bearers(mine) == [ours.pid]
    assert sorted(bearers(folder_mark(tmp_path / "x" / ".." / "mine"))) == sorted([ours.pid, theirs.pid])
    assert bearers(folder_mark(tmp_path)) == bearers("") == []
    end_all(mine)
    assert ours.wait(60) == -9
    assert (theirs.poll(), nobodys.poll()) == (None, None)


def test_a_run_within_a_run_bears_the_marks_of_both(
    sleeper: Sleeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    outer, inner = new_mark(tmp_path / "outer"), new_mark(tmp_path / "inner")
    for name, value in mark_settings(outer).items():
        monkeypatch.setenv(name, value)
    assert own_mark() == outer
    process = sleeper(**mark_settings(inner))
    assert bearers(outer) == bearers(inner) == [process.pid]


def test_who_looks_is_never_among_those_found(tmp_path: Path):
    mark = new_mark(tmp_path)
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
    mark = new_mark(tmp_path)
    process = sleeper(**mark_settings(mark))
    monkeypatch.setattr(leftovers, "_PROCESSES", tmp_path / "none")
    assert bearers(mark) == []
    end_all(mark)
    assert process.poll() is None
