"""By what a change of training code is known: by what is executed, not by how it is written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from batchscope.own.source import code_sha256, command_sha256

PLAIN = "def train(trial):\n    for epoch in range(3):\n        trial.report(updates=epoch, val_loss=0.5)\n"
VARIED = '''
class Model(Base, metaclass=Meta):
    """A class with parameters of type since 3.12."""

    async def train(self, trial, *rest, seed=None, **more):
        name = f"b{trial.batch_size:0{width}}-{'é😀'}{trial!r:>8}" u"x" + rb"\\0"[0:1].decode()
        match rest:
            case [None, 1.5e-300, *_] if not -1 < seed <= 2 ** 70:
                return (yield ...)
            case {"a": True, **others}:
                pass
        return lambda x, /, y=1j: {**x, "y": [z async for z in y if z is not None]}
'''


@pytest.mark.parametrize(
    "written",
    [
        PLAIN.replace("0.5)", "0.5)  # as good as it gets"),
        PLAIN.replace("trial):\n", 'trial):\n    """Trains."""\n'),
        PLAIN.replace("updates=epoch, ", "\n            updates = epoch,\n            "),
        "\n".join(f"    {line}" for line in PLAIN.splitlines()),
    ],
)
def test_comments_docstrings_and_layout_count_for_nothing(written: str):
    assert code_sha256(written) == code_sha256(PLAIN)


@pytest.mark.parametrize(
    "written",
    [
        PLAIN.replace("0.5", "0.25"),
        PLAIN.replace("range(3)", "range(4)"),
        PLAIN.replace("updates", "examples"),
        PLAIN.replace("val_loss=0.5", "val_loss=0.5, note='# no comment'"),
    ],
)
def test_whatever_is_executed_counts(written: str):
    assert code_sha256(written) != code_sha256(PLAIN)


def test_every_version_of_python_gives_the_same():
    """A finished run must not be refused after an upgrade; told by 3.11, 3.12 and 3.13."""
    assert code_sha256(VARIED) == "fbcf2bc77ff8b43372f026dc579d9710a8928683cbf4f603b531c79cc1d7b235"


def test_what_is_no_whole_program_is_taken_as_it_is_written():
    lines = "run(lambda trial: trial.report(updates=1, val_loss=1.0),"
    assert code_sha256(lines) == code_sha256(lines)
    assert code_sha256(lines) != code_sha256(f"{lines}  # by itself")
    assert code_sha256("x = '\\d'") != code_sha256("x = 'd'")  # and Python's warning of it is not raised


def test_a_command_is_known_by_the_scripts_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name, text in (("train.py", PLAIN), ("prepare.sh", "echo"), ("data.csv", "1"), ("tool", "#!x\n1")):
        (tmp_path / name).write_text(text)
    python = f"{sys.executable} train.py --data data.csv --seed {{seed}}"
    first, tool = command_sha256(python), command_sha256("./tool data.csv")
    assert None not in (first, tool)
    (tmp_path / "data.csv").write_text("2")
    (tmp_path / "train.py").write_text(f"# a comment\n{PLAIN}")
    assert (command_sha256(python), command_sha256("./tool data.csv")) == (first, tool)
    (tmp_path / "train.py").write_text(PLAIN.replace("3", "4"))
    (tmp_path / "tool").write_text("#!x\n2")
    assert first != command_sha256(python) is not None
    assert tool != command_sha256("./tool data.csv") is not None
    shell = command_sha256("sh prepare.sh")
    (tmp_path / "prepare.sh").write_text("echo # other")
    assert command_sha256("sh prepare.sh") not in (None, shell)


@pytest.mark.parametrize("command", ["true", "python -m train", "python gone.py", "cat data.csv", "./folder"])
def test_a_command_without_scripts_has_none(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "data.csv").write_text("#!1")
    assert command_sha256(command) is None
