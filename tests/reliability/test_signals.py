"""What asks a run to end, ends it: with a way to go on, its exit code, and no process left behind."""

from __future__ import annotations

import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from commands import HERE, first_epochs, line_beginning, stubbed, written

import batchscope
from batchscope.resolving import resolve
from batchscope.running import pool
from batchscope.running.run import run_study
from batchscope.running.stopping import Stopped, held, named, resumable, stoppable
from batchscope.running.store import Store
from batchscope.spec import Study
from run_samples import STUB, Events, children, is_alive, logged_pids, small_study

NOTHING_YET = "No epoch is stored yet; the same command begins again.\n"


@pytest.fixture(autouse=True)
def _terminals_that_close_are_heeded() -> Iterator[None]:
    """Whoever starts the tests by nohup has SIGHUP ignored, and what is started inherits that."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def states(folder: Path) -> list[tuple[str, int]]:
    with Store(folder / "results.sqlite") as store:
        return [(status.state.value, status.epochs) for status in store.trials()]


def causes(folder: Path) -> list[str | None]:
    """What put an end to each session that has ended."""
    with Store(folder / "results.sqlite") as store:
        return [facts.get("stopped by") for _, ended, facts in store.sessions() if ended]


def arguments(study: Study, place: Path) -> list[str | Path]:
    return ["run", written(study, place), "--out", "my run", "--workers", "2"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_to_the_run_and_its_workers_ends_them_and_the_same_command_goes_on(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    folder, number = tmp_path / "my run", signal.Signals[name]
    with stubbed("hang", "", *arguments(small_study(), tmp_path), cwd=tmp_path) as process:
        first_epochs(process)
        os.killpg(process.pid, number)  # as a terminal does
        _, err = process.communicate()
        assert not [pid for pid in logged_pids(folder / "logs") if is_alive(pid)]
    assert process.returncode == 128 + number
    assert err == (
        f"Stopped by {name}. 2 epochs are stored; the same command goes on from there. "
        "The page of what is there so far: batchscope report 'my run'\n"
    )
    assert states(folder) == [("running", 1), ("running", 1)]
    assert causes(folder) == [name]
    monkeypatch.setattr(pool, "_COMMAND", (sys.executable, str(STUB), "train"))
    study, histories = resolve(tmp_path / "study.toml", []), []
    for path in (folder, tmp_path / "whole"):
        run_study(study, path, Events())
        histories.append(batchscope.load(path).history)
    pd.testing.assert_frame_equal(*histories, check_exact=True)


def test_the_page_of_what_is_there_so_far_is_made_by_the_command_that_is_told(tmp_path: Path):
    with stubbed("hang", "", *arguments(small_study(), tmp_path), cwd=tmp_path) as process:
        first_epochs(process)
        process.terminate()
        _, err = process.communicate()
    program, *rest = shlex.split(err.rpartition(": ")[2])
    subprocess.run([sys.executable, "-m", program, *rest], cwd=tmp_path, check=True, capture_output=True)
    page = (tmp_path / "my run" / "report" / "report.html").read_text(encoding="utf-8")
    assert "2 of 2 trials are not finished; the figures are those so far" in page


@pytest.mark.parametrize(
    ("stub", "line", "workers"),
    [("never answer", "reading the data", 0), ("never answer", "2 workers", 2), ("", "2 workers", 2)],
)
def test_a_run_that_has_trained_nothing_yet_ends_too(tmp_path: Path, stub: str, line: str, workers: int):
    """While images are read, while workers start, and while real ones load their backend."""
    with stubbed(stub, "", *arguments(small_study(), tmp_path), cwd=tmp_path) as process:
        line_beginning(process, line)
        while len(begun := children(process.pid)) < workers:
            time.sleep(0.01)
        process.terminate()
        _, err = process.communicate()
        assert not [pid for pid in begun if is_alive(pid)]
    assert (process.returncode, err) == (143, f"Stopped by SIGTERM. {NOTHING_YET}")
    assert causes(tmp_path / "my run") == ["SIGTERM"]


@pytest.fixture
def handlers() -> Iterator[None]:
    """Those of this process, which a stop leaves changed."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_a_signal_waits_for_what_is_being_begun():
    done = []

    def begin() -> None:
        with stoppable():
            with held():
                with held():
                    signal.raise_signal(signal.SIGTERM)
                    done.append("inner")
                done.append("outer")
            done.append("behind")

    with pytest.raises(Stopped) as stop:
        begin()
    assert (done, stop.value.exit_code) == (["inner", "outer"], 143)
    with stoppable(), held():  # nothing is left over
        pass


@pytest.mark.usefixtures("handlers")
def test_a_signal_is_heeded_even_if_what_was_being_begun_fails():
    def begin() -> None:
        with stoppable(), held():
            signal.raise_signal(signal.SIGTERM)
            raise OSError("no more processes")

    with pytest.raises(Stopped) as stop:
        begin()
    assert isinstance(stop.value.__context__, OSError)


@pytest.mark.usefixtures("handlers")
def test_a_signal_is_named_also_where_a_library_raises_another_interrupt_in_its_place():
    def wait() -> None:
        with stoppable(), named():
            try:
                signal.raise_signal(signal.SIGTERM)
            except KeyboardInterrupt:
                raise KeyboardInterrupt from None

    with pytest.raises(Stopped) as stop:
        wait()
    assert stop.value.exit_code == 143
    with pytest.raises(KeyboardInterrupt) as caught, stoppable(), named():  # nothing is left over
        raise KeyboardInterrupt
    assert not isinstance(caught.value, Stopped)


def test_a_database_that_cannot_be_read_is_not_called_empty(tmp_path: Path):
    (tmp_path / "results.sqlite").write_bytes(b"x" * 5000)
    with pytest.raises(KeyboardInterrupt) as caught, resumable(tmp_path):
        raise KeyboardInterrupt
    assert caught.value.__notes__[0].startswith(f"What is stored could not be looked at ({tmp_path}")


def test_further_signals_while_a_run_is_ending_do_not_disturb_it(tmp_path: Path):
    with stubbed("hang", "slow end", *arguments(small_study(), tmp_path), cwd=tmp_path) as process:
        first_epochs(process)
        process.send_signal(signal.SIGINT)
        line_beginning(process, "ending")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            process.send_signal(number)
        (tmp_path / "end").touch()
        _, err = process.communicate()
        assert not [pid for pid in logged_pids(tmp_path / "my run" / "logs") if is_alive(pid)]
    assert process.returncode == 130
    assert err.startswith("Stopped by SIGINT. 2 epochs are stored; ")
    assert len(err.splitlines()) == 1


def test_a_signal_that_the_run_was_started_to_ignore_does_not_end_it(tmp_path: Path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stubbed("hang", "", *arguments(small_study(), tmp_path), cwd=tmp_path) as process:
            first_epochs(process)
            process.send_signal(signal.SIGHUP)
            process.terminate()
            _, err = process.communicate()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert process.returncode == 143
    assert err.startswith("Stopped by SIGTERM. ")


def test_a_run_whose_terminal_is_gone_ends(tmp_path: Path):
    folder = tmp_path / "my run"
    command = [sys.executable, HERE / "stubbed_run.py", "hang", "", *arguments(small_study(), tmp_path)]
    terminal, end = pty.openpty()
    with subprocess.Popen(command, cwd=tmp_path, stdout=end, stderr=end, start_new_session=True) as process:
        os.close(end)
        while len(list(folder.glob("checkpoints/*.hangs"))) < 2:
            os.read(terminal, 1000)
        os.close(terminal)
        process.send_signal(signal.SIGHUP)
        process.wait()
        assert not [pid for pid in logged_pids(folder / "logs") if is_alive(pid)]
    assert process.returncode == 129
    assert causes(folder) == ["SIGHUP"]


def test_a_program_that_is_interrupted_is_told_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Stopping(Events):
        def epoch(self, *told: object) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(pool, "_COMMAND", (sys.executable, str(STUB), "train"))
    with pytest.raises(KeyboardInterrupt) as caught:
        batchscope.run(small_study(), out=tmp_path / "run", workers=1, watcher=Stopping())
    [note] = caught.value.__notes__
    assert note == (
        "1 epoch is stored; the same command goes on from there. "
        f"The page of what is there so far: batchscope report {tmp_path / 'run'}"
    )
    assert causes(tmp_path / "run") == ["KeyboardInterrupt"]


def test_what_stopped_a_session_is_kept_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "run"
    for stub in ("die at set-up", "refuse", "train"):
        monkeypatch.setattr(pool, "_COMMAND", (sys.executable, str(STUB), stub))
        with suppress(batchscope.BatchscopeError):
            run_study(small_study(), folder, Events())
    died, refused, went_well = causes(folder)
    assert str(died).endswith(" ... the worker process ended with exit code 3")
    assert " workers in a row could not be set up; the end of " in str(died)
    assert (refused, went_well) == ("weights must be somewhere, but are nowhere", None)
