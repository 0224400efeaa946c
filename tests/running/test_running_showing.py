"""Where the course of a run is shown when nobody says otherwise, and what is warned of."""

from __future__ import annotations

import io
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from rich.console import Console

import batchscope
from batchscope.errors import BatchscopeWarning
from batchscope.own.handle import TrialHandle
from batchscope.records import BatchProgress, TrialState
from batchscope.running import showing
from batchscope.running.progress import LinePrinter, LiveDisplay, Silent
from batchscope.running.showing import NotebookDisplay, usual_watcher
from own_runs import outcomes
from run_samples import FIRST, Events, record

CELL = """
import batchscope as bs

def train(trial):
    for epoch in (1, 2):
        trial.report(updates=epoch * 64 // trial.batch_size, val_loss=1 / epoch)

run = bs.run(train, batch_sizes=[16, 32], replicates=1, out="mine")
"""


def train(trial: TrialHandle) -> None:
    trial.report(updates=64 // trial.batch_size, val_loss=1.0)


def test_lines_are_printed_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch):
    assert type(usual_watcher(quiet=False)) is LinePrinter
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert type(usual_watcher(quiet=False)) is LiveDisplay
    assert type(usual_watcher(quiet=True)) is Silent


def test_a_run_shows_its_course_unless_it_is_told_otherwise(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    options = {"batch_sizes": [16, 32], "replicates": 1}
    batchscope.run(train, out=tmp_path / "told", **options)
    told = capfd.readouterr()
    assert "\nb16-r1 epoch 1 training: loss val 1.0000, " in told.out
    assert "\nb32-r1 complete (" in told.out
    assert told.out.endswith(f"Page: {tmp_path / 'told' / 'report' / 'report.html'}\n")
    assert told.err == ""
    monkeypatch.setattr(batchscope.Run, "write_report", lambda _: None)
    batchscope.run(train, out=tmp_path / "quiet", quiet=True, **options)
    seen = Events()
    batchscope.run(train, out=tmp_path / "watched", watcher=seen, **options)
    assert capfd.readouterr() == ("", "")
    assert sorted(seen.records) == [("b16-r1", 1), ("b32-r1", 1)]


def test_trials_that_failed_or_diverged_are_warned_of_and_the_run_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(batchscope.Run, "write_report", lambda _: None)

    def fails(trial: TrialHandle) -> None:
        if trial.batch_size == 16:
            raise ValueError(f"no luck with {trial.name}")
        trial.report(updates=1, val_loss=float("nan") if trial.batch_size == 32 else 1.0)

    with pytest.warns(BatchscopeWarning) as caught:
        run = batchscope.run(fails, batch_sizes=[16, 32, 64], replicates=2, out=tmp_path / "run", quiet=True)
    [warning] = caught
    assert str(warning.message) == (
        "2 of 6 trials failed: b16-r1, b16-r2 (the first: ValueError: no luck with b16-r1); 2 of 6 trials "
        "diverged: b32-r1, b32-r2; the run's `trials` tell the error of each, and the same call tries those "
        "that failed again"
    )
    assert warning.filename == __file__
    assert [state for _, state, _ in outcomes(run)] == ["failed", "diverged", "complete"] * 2


def test_where_every_trial_failed_there_is_a_warning_and_no_page(tmp_path: Path):
    def fails(trial: TrialHandle) -> None:
        raise ValueError(trial.name)

    with pytest.warns(BatchscopeWarning, match="2 of 2 trials failed: b16-r1, b32-r1 .the first: ValueError"):
        run = batchscope.run(fails, batch_sizes=[16, 32], replicates=1, out=tmp_path / "run", quiet=True)
    assert run.history.empty
    assert not (run.path / "report").exists()


class Cell:
    """What a notebook's output was told to show."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, content: dict[str, str], *, raw: bool) -> None:
        self.shown.append(content["text/plain"])


def test_in_a_notebook_nothing_is_left_out_but_where_an_epoch_stands(monkeypatch: pytest.MonkeyPatch):
    cell = Cell()
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: cell)
    monkeypatch.setattr(showing.time, "monotonic", lambda: 1000.0)  # all at the same moment
    with NotebookDisplay(Console(force_jupyter=False, file=io.StringIO())) as display:
        display.plan([FIRST], 0, {FIRST: 96.0})
        display.started(FIRST, 0, 0.0)
        for examples in (16, 32):
            display.batch(FIRST, BatchProgress("one", 1, examples, 48, 0.5, 1.0))
        display.epoch(FIRST, record(1))
        display.epoch(FIRST, record(2))
        display.ended(FIRST, TrialState.COMPLETE, None)
    told = [re.findall(r"starting|\d+%|val [\d.]+|\d/\d|setting up", text) for text in cell.shown]
    assert told == [
        ["0/1", "starting"],
        ["0/1", "val 0.6000"],
        ["0/1", "val 0.7000"],
        ["1/1", "setting up"],
        [],
    ]


def test_in_a_notebook_an_epochs_progress_is_shown_a_few_times_a_second(monkeypatch: pytest.MonkeyPatch):
    cell, now = Cell(), [1000.0]
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: cell)
    monkeypatch.setattr(showing.time, "monotonic", lambda: now[0])
    with NotebookDisplay(Console(force_jupyter=False, file=io.StringIO())) as display:
        display.plan([FIRST], 0, {FIRST: 96.0})
        display.started(FIRST, 0, 0.0)
        for examples in range(1, 49):
            now[0] += 1 / 16
            display.batch(FIRST, BatchProgress("one", 1, examples, 48, 0.5, 1.0))
        assert [re.findall(r"\d+%", text) for text in cell.shown[1:]] == [
            [f"{examples / 48:.0%}"] for examples in range(4, 49, 4)
        ]


def test_a_notebook_shows_it_in_one_output_that_is_empty_at_the_end(tmp_path: Path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    updates: list[str] = []

    class Client(NotebookClient):  # type: ignore[misc]
        def process_message(self, msg: dict, cell: object, cell_index: int) -> object:
            if msg["msg_type"] == "update_display_data":
                updates.append(msg["content"]["data"]["text/plain"])
            return super().process_message(msg, cell, cell_index)

    Client(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    nbformat.validate(notebook)
    shown, *streams = notebook.cells[0].outputs
    assert (shown.output_type, shown.data) == ("display_data", {"text/plain": ""})
    assert {output.output_type for output in streams} == {"stream"}
    assert "Page: mine/report/report.html\n" in "".join(output.text for output in streams)
    assert any(re.search(r"trials .* 0/2 .*left", text) for text in updates)
    assert any(re.search(r"^b(16|32)-r1  ", text, re.MULTILINE) for text in updates)
