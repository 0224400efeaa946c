"""What a run can be taken to, and what is refused before anything is done."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from export_samples import stored

import batchscope
from batchscope import load
from batchscope.errors import ExportError
from run_samples import Events, small_study


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "wandb"}, "exported to mlflow, tensorboard, csv, parquet, json, but got 'wandb'"),
        (
            {"to": "csv", "tracking_uri": "sqlite:///x.db"},
            "--tracking-uri is for mlflow alone, but got --to csv",
        ),
        ({"to": "mlflow", "out": "x"}, "--out is for files, but got --to mlflow; give --tracking-uri"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, options: dict[str, str], message: str):
    run = load(stored(tmp_path / "run").folder.path)
    with pytest.raises(ExportError, match=message):
        run.export(**options)
    assert not (tmp_path / "run" / "export").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"track": ["tensorboard", "wandb"]}, "tracked by mlflow and tensorboard, but got 'wandb'"),
        ({"track": "csv"}, "but got 'csv'"),
        ({"track": "tensorboard", "tracking_uri": "x"}, "for mlflow alone, but there is no --track mlflow"),
        ({"tracking_uri": "x"}, "for mlflow alone, but there is no --track mlflow"),
    ],
)
def test_what_cannot_be_tracked_is_refused_before_a_run_begins(
    tmp_path: Path, options: dict[str, str], message: str
):
    seen = Events()
    with pytest.raises(ExportError, match=message):
        batchscope.run(small_study(), out=tmp_path / "run", watcher=seen, **options)
    assert not (tmp_path / "run").exists()
    assert seen.planned == []


@pytest.mark.parametrize("tool", ["mlflow", "tensorboard"])
def test_a_tool_that_is_not_installed_is_told_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str
):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == tool else there(name))
    told = rf"{tool} must be installed .*: pip install 'batchscope\[{tool}\]'"
    with pytest.raises(ExportError, match=told):
        load(stored(tmp_path / "run").folder.path).export(tool)
    with pytest.raises(ExportError, match=told):
        batchscope.run(small_study(), out=tmp_path / "new", track=[tool])
    assert not (tmp_path / "new").exists()


def test_runs_that_are_not_tracked_load_no_tool():
    code = (
        "import sys, batchscope.api, batchscope.export; "
        "print([name for name in ('mlflow', 'tensorboard', 'altair', 'keras') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
