"""`batchscope probe` as a person meets it: output, files, messages and exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import batchscope
from batchscope.cli import main
from batchscope.errors import StudyError
from batchscope.loading import dump_study
from batchscope.running import pool
from run_samples import small_study

WORKER = Path(__file__).with_name("sizing_worker.py")


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Runs the command in this process; batch sizes from 17 on do not fit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pool, "_COMMAND", (sys.executable, str(WORKER), "SIGKILL", "17"))
    (tmp_path / "small.toml").write_text(dump_study(small_study()), encoding="utf-8")

    def call(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["batchscope", "probe", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Outcome(int(ended.value.code or 0), *capfd.readouterr())

    return call


def test_json_has_standard_output_to_itself(command: Command):
    done = command("small.toml", "--batch-sizes", "8..32", "--json")
    found = json.loads(done.out)
    assert done.code == 0
    sizes = [(row["batch_size"], row["reason"] is None) for row in found["rows"]]
    assert sizes == [(8, True), (16, True), (17, False), (18, False), (20, False), (24, False), (32, False)]
    assert (found["largest"], found["too_large"], found["largest_with_room"]) == (16, 17, 16)
    pace = found["rows"][1]["pace"]["median"]
    assert pace == pytest.approx(16 / 0.116)
    assert found["rows"][1]["memory"] == {
        "kind": "resident",
        "idle": 10**8,
        "peak": 116 * 10**6,
        "limit": 10**9,
    }
    assert "batch size 32: does not fit in memory (the worker process was ended by SIGKILL" in done.err


def test_page_and_figure_are_written_and_the_advice_is_printed(command: Command, tmp_path: Path):
    done = command("small.toml", "--batch-sizes", "4..8", "--html", "sizes.html", "--figures", "figures")
    assert done.code == 0
    assert "Page: sizes.html" in done.out
    assert "Figures: 2 files in figures" in done.out
    told = " ".join(done.out.split())
    assert (
        "Batch size 8 was trained with and leaves room, at 108 MB of 1.00 GB of memory (8 is the end" in told
    )
    assert (tmp_path / "sizes.html").stat().st_size > 5_000
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "throughput-and-memory.png",
        "throughput-and-memory.svg",
    ]


def test_max_bounds_the_search_and_seconds_and_changes_arrive(command: Command):
    found = json.loads(command("small.toml", "--batch-sizes", "4..64", "--max", "12", "--json").out)
    assert [row["batch_size"] for row in found["rows"]] == [4, 8, 12]
    assert (found["bound"], found["bound_by"]) == (12, "the largest that was allowed")
    found = json.loads(command("small.toml", "--batch-sizes", "4..64", "--limit", "15", "--json").out)
    assert (found["bound"], found["bound_by"]) == (12, "the number of training examples")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--batch-sizes", "16"], "batch_sizes: must be a range such as 16..1024 (got '16')"),
        (["--batch-sizes", "16..x"], "must be a range such as 16..1024"),
        (["--batch-sizes", "-4..8"], "must be a range such as 16..1024"),
        (["--batch-sizes", "0..8"], "must be a range from a number of at least 1"),
        (["--batch-sizes", "32..16"], "must be a range from a number of at least 1"),
        (
            ["--batch-sizes", "64..128"],
            "must begin at no more than the number of training examples, 48 (got 64)",
        ),
        (["--max", "8"], "max: must be no less than the smallest batch size, 16 (got 8)"),
        (["--seconds", "0"], "seconds: must be a number above 0"),
        (["--seconds", "nan"], "seconds: must be a number above 0"),
        (["--data", "nowhere"], "nowhere"),
        (["--limit", "3"], "data.limit"),
        (["--set", "seed"], "must have the form KEY=VALUE"),
        (["--set", "sead=1"], "sead"),
        (["--weights", ""], "model.weights"),
    ],
)
def test_bad_values_are_refused_by_name(command: Command, arguments: list[str], told: str):
    done = command("small.toml", *arguments)
    assert done.code == 2
    assert told in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_files_that_cannot_be_written_are_told(command: Command, tmp_path: Path):
    (tmp_path / "a-file").touch()
    for option, value in (("--html", "a-file/page.html"), ("--figures", "a-file/figures")):
        done = command("small.toml", "--batch-sizes", "4..4", option, value)
        assert done.code == 2
        assert "must be writable" in done.err


def test_an_unknown_study_and_own_code_are_refused(command: Command, tmp_path: Path):
    assert command("nothing-like-it").code == 2
    (tmp_path / "own.toml").write_text(
        'name = "own"\nbatch_sizes = [8]\nreplicates = 1\ncommand = "python train.py"\n', encoding="utf-8"
    )
    done = command("own.toml")
    assert done.code == 2
    assert "must be one that Keras trains" in done.err


def test_from_python_the_course_is_printed_unless_it_shall_be_quiet(
    command: Command, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    batchscope.probe(small_study(), batch_sizes=(4, 8))
    assert capfd.readouterr().out.splitlines()[1:] == ["batch size 4: trained", "batch size 8: trained"]
    found = batchscope.probe(small_study(), batch_sizes=(4, 8), quiet=True)
    assert (found.largest, found.doubling_pays_to) == (8, 8)
    assert capfd.readouterr() == ("", "")
    with pytest.raises(StudyError, match="2 problems"):
        batchscope.probe(small_study(), batch_sizes=(4, 2), seconds=-1)
