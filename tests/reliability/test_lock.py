"""One process writes in a run's folder; others are told who, or read what is there at any moment."""

from __future__ import annotations

import os
import platform
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from commands import first_epochs, stubbed, written

import batchscope
from batchscope.analysis import Settings
from batchscope.errors import RunFolderError
from batchscope.run_report import content_of
from batchscope.running import pool
from batchscope.running.lock import sole_writer
from run_samples import STUB, Events, small_study
from tiny import stage

ENDLESS = small_study(stages=[stage("one", "head", epochs=1_000_000)])


def test_a_second_run_is_told_who_is_at_it_and_goes_on_where_that_one_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pool, "_COMMAND", (sys.executable, str(STUB), "train"))
    study, folder = written(small_study(), tmp_path), tmp_path / "run"
    arguments = ("run", study, "--out", folder, "--workers", "2")
    with stubbed("wait", "", *arguments, cwd=tmp_path) as process:
        first_epochs(process)
        with pytest.raises(RunFolderError) as caught:
            batchscope.run(study, out=folder)
        with stubbed("train", "", *arguments, cwd=tmp_path) as second:
            out, err = second.communicate()
        assert (second.returncode, out, err) == (2, "", f"Error: {caught.value}\n")
        process.kill()
        process.communicate()
    assert re.fullmatch(
        re.escape(
            f"{folder}: must be run by one process at a time, but another is at it: "
            f"process {process.pid} on {platform.node()}, since "
        )
        + r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00; wait until it ends, or give --out another folder",
        str(caught.value),
    )
    assert (folder / "running.json").exists()  # a process that was killed does not tidy up
    seen = Events()
    batchscope.run(study, out=folder, watcher=seen)
    assert sorted(seen.records) == [("b16-r1", 2), ("b8-r1", 2)]
    assert not (folder / "running.json").exists()


@pytest.mark.parametrize(
    "content", [b"", b"4711\n", b"SQLite format 3\0" + b"\xff" * 5_000, os.urandom(10_000)]
)
def test_whatever_is_in_the_locks_file_is_no_lock(tmp_path: Path, content: bytes):
    lock = tmp_path / "running.lock"
    lock.write_bytes(content)
    for _ in range(2):
        with (
            sole_writer(lock),
            pytest.raises(RunFolderError, match=rf"another is at it: process {os.getpid()} on "),
            sole_writer(lock),
        ):
            pass


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"pid": 3}', None])
def test_a_holder_that_nobody_knows_keeps_others_out_too(tmp_path: Path, content: str | None):
    lock, holder = tmp_path / "running.lock", tmp_path / "running.json"
    with sole_writer(lock):
        holder.unlink() if content is None else holder.write_text(content, encoding="utf-8")
        with (
            pytest.raises(RunFolderError, match=r"but another is at it; wait until it ends"),
            sole_writer(lock),
        ):
            pass


@pytest.mark.parametrize("name", ["running.lock", "running.json"])
def test_a_lock_that_cannot_be_written_is_told(tmp_path: Path, name: str):
    (tmp_path / name).mkdir()
    with (
        pytest.raises(RunFolderError, match=rf"{name}: must be a file that can be written: "),
        sole_writer(tmp_path / "running.lock"),
    ):
        pass
    (tmp_path / name).rmdir()
    with sole_writer(tmp_path / "running.lock"):
        assert (tmp_path / "running.json").exists()


def test_reading_is_safe_while_a_run_writes_and_however_it_ends(tmp_path: Path):
    study, folder = written(ENDLESS, tmp_path), tmp_path / "run"
    arguments = ("run", study, "--out", folder, "--workers", "2", "--quiet")
    lengths = [0]
    for ending, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)):
        with stubbed("train slowly", "no report", *arguments, cwd=tmp_path) as process:
            while not (folder / "logs").exists():
                time.sleep(0.01)
            begun = lengths[-1]
            while lengths[-1] == begun:
                lengths.append(read(folder))
            if ending == signal.SIGTERM:
                content = content_of(str(folder), Settings())
                page = batchscope.load(folder).write_report()
                assert begun < len(content.history) < read(folder)
                assert page.read_text(encoding="utf-8").rstrip().endswith("</html>")
            assert process.poll() is None
            process.send_signal(ending)
            lengths += [read(folder) for _ in range(10)]
            process.communicate()
        assert process.returncode == code
    assert lengths == sorted(lengths)


def read(folder: Path) -> int:
    """Epochs that a reader finds, all of each trial's up to its last."""
    history = batchscope.load(folder).history
    for _, rows in history.groupby("trial"):
        assert rows["epoch"].tolist() == list(range(1, len(rows) + 1))
    return len(history)
