"""A command's study at the command line: refusals, going on, the page, and other commands on its folder."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

import batchscope
from batchscope.cli import main
from batchscope.own_study import CommandStudy

NEEDED = ["--batch-sizes", "16,32", "--replicates", "2"]
PROGRAM = """
import json, sys
size, seed, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
for epoch in (1, 2, 3):
    if size == 32 and epoch == 3 and len(sys.argv) == 4:
        sys.exit("out of luck")
    record = {"updates": epoch * 640 // size, "train_accuracy": 0.9, "val_accuracy": 0.5 + epoch / 10}
    print("epoch", epoch)
    with open(out, "a") as file:
        file.write(json.dumps(record) + "\\n")
"""


class Outcome:
    """Exit code, standard output and standard error of a command."""

    def __init__(self, code: object, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def batchscope_run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["batchscope", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return Outcome(ended.value.code or 0, out, err)

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "command: needs either a study (or a function) or a command, but got none"),
        (["demo", "--command", "true"], "or a command, but got both"),
        (["demo", "--records", "r.jsonl"], "records: must come with a command (got r.jsonl)"),
        (["demo", "--learning-rates", "0.1"], "learning_rates: unknown key"),
        (["--command", "true", "--batch-sizes", "16"], "replicates: is required"),
        (["--command", "true {batchsize}", *NEEDED], "{batchsize} is not; a brace that stands for itself"),
        (["--command", "'true", *NEEDED], "command: must be words and quotes as in a shell"),
        (["--command", "true", "--data", "x", *NEEDED], "data: unknown key; known are name,"),
        (["--command", "true", "--skip-bad-images", *NEEDED], "data: unknown key"),
        (["--command", "true", "--weights", "none", *NEEDED], "model: unknown key"),
        (["--command", "true", "--limit", "50", *NEEDED], "data: unknown key"),
        (["--command", "true", "--records", "{epoch}", *NEEDED], "records: what stands in braces must be"),
        (
            ["--command", "true", "--learning-rates", "0.1;0.2", *NEEDED],
            "learning_rates: must be numbers separated by commas (got '0.1;0.2')",
        ),
        (
            ["--command", "true", "--learning-rates", "-1", *NEEDED],
            "learning_rates.1: must be greater than 0",
        ),
        (["--command", "true", "--set", "epochs=0", *NEEDED], "epochs: must be greater than or equal to 1"),
        (["--command", "no-such-program", *NEEDED], "be found on PATH, but no-such-program is not"),
    ],
)
def test_what_does_not_go_together_is_refused(batchscope_run, arguments: list[str], message: str):
    told = batchscope_run("run", *arguments)
    assert told.code == 2
    assert message in told.err
    assert "Traceback" not in told.err


def test_a_command_is_a_study_with_everything_that_belongs_to_one(batchscope_run, tmp_path: Path):
    (tmp_path / "train.py").write_text(PROGRAM, encoding="utf-8")
    command = shlex.join([sys.executable, "train.py", "{batch_size}", "{seed}", "{folder}/r"])
    given = ["run", "--command", command, "--records", "{folder}/r", *NEEDED]
    told = batchscope_run(*given)
    assert told.code == 1
    assert "b16-r1 epoch 3 training: accuracy 0.9000 val 0.8000, " in told.out
    assert told.err.splitlines()[:2] == [
        "b32-r1 failed after 2 epochs",
        f"  the command ended with exit code 1: {told.err.splitlines()[1].partition('code 1: ')[2]}",
    ]
    folder = tmp_path / "runs" / "train"
    run = batchscope.load(folder)
    assert isinstance(run.study, CommandStudy)
    assert (run.study.command, run.study.records) == (command, "{folder}/r")
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "2 of 4 trials failed; the same command tries them again: b32-r1, b32-r2." in page
    assert "out of luck" in (folder / "logs" / "b32-r1.log").read_text()
    assert run.analyze().facts.batch_sizes == (16, 32)

    told = batchscope_run("run", "--command", f"{command} mended", *given[3:])
    assert told.code == 2
    assert f"command: {command} -> {command} mended" in told.err
    (tmp_path / "train.py").write_text(PROGRAM.replace("== 4", "== 5"), encoding="utf-8")
    told = batchscope_run("run", str(folder / "study.toml"))
    assert (told.code, told.err) == (0, "")
    assert "4 trials, 2 done before" in told.out
    assert batchscope.load(folder).history["updates"].tolist() == [40, 80, 120] * 2 + [20, 40, 60] * 2
    assert batchscope_run("report", "runs/train").code == 0
    assert json.loads(batchscope_run("analyze", "runs/train", "--json").out)["batch_sizes"] == [16, 32]
    again = batchscope_run("run", str(folder / "study.toml"))
    assert (again.code, again.err) == (0, "")
    (tmp_path / "train.py").write_text(PROGRAM.replace("0.9", "0.8"), encoding="utf-8")
    told = batchscope_run("run", str(folder / "study.toml"))
    assert told.code == 2
    assert "but the source of the command's scripts has changed (sha256 " in told.err
    shown = batchscope_run("show", "runs/train/study.toml").out
    assert shown == (folder / "study.toml").read_text().rstrip() + "\n"
