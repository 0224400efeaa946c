"""A run as CSV, Parquet and JSON: what is read back is what was stored."""

from __future__ import annotations

import json
import math
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from export_samples import STUDY, Stored, stored

from batchscope import load
from batchscope.analysis import to_dict
from batchscope.errors import ReportError
from batchscope.history import read_history
from batchscope.loading import parse_study


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return stored(tmp_path_factory.mktemp("files") / "run")


@pytest.fixture(scope="module")
def parsed(run: Stored) -> dict[str, Any]:
    path = Path(load(run.folder.path).export("json"))
    assert path == run.folder.path / "export" / "run.json"

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    return found


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("given", [False, True])
def test_a_history_is_read_back_as_it_was_stored(run: Stored, tmp_path: Path, suffix: str, given: bool):
    out = tmp_path / "deep" / f"mine.{suffix}" if given else None
    opened = load(run.folder.path)
    for _ in range(2):
        path = Path(opened.export(suffix, out=out))
        pd.testing.assert_frame_equal(read_history(path), opened.history, check_exact=True)
    assert path == (out or run.folder.path / "export" / f"history.{suffix}")
    lost = read_history(path).query("trial == 'b16-r1' and epoch == 2").iloc[0]
    assert lost["train_loss"] == math.inf
    assert math.isnan(lost["val_loss"])


def test_the_json_holds_the_history_and_null_for_what_is_not_finite(run: Stored, parsed: dict[str, Any]):
    history = load(run.folder.path).history
    assert [list(row) for row in parsed["history"]] == [list(history.columns)] * len(history)
    for row, expected in zip(parsed["history"], history.to_dict("records"), strict=True):
        for name, value in expected.items():
            lost = isinstance(value, float) and not math.isfinite(value)
            assert row[name] == (None if lost else value)
    assert (
        sum(value is None for row in parsed["history"] for value in row.values()) == 2 + 3
    )  # losses; a probe that only second epochs have
    assert {type(row["epoch"]) for row in parsed["history"]} == {int}


def test_the_json_holds_study_trials_and_analysis(run: Stored, parsed: dict[str, Any]):
    assert parse_study(parsed["study"], "json") == STUDY
    assert parsed["analysis"] == json.loads(json.dumps(to_dict(load(run.folder.path).analyze())))
    assert parsed["trials"] == [
        {
            "trial": name,
            "batch_size": size,
            "replicate": replicate,
            "state": state,
            "epochs": n,
            "error": error,
        }
        for name, size, replicate, state, n, error in [
            ("b8-r1", 8, 1, "complete", 2, None),
            ("b16-r1", 16, 1, "diverged", 2, None),
            ("b8-r2", 8, 2, "failed", 1, "Traceback:\nValueError: broken"),
            ("b16-r2", 16, 2, "waiting", 0, None),
        ]
    ]
    assert (parsed["format"], parsed["batchscope"]) == (1, metadata.version("batchscope"))


def test_the_jsons_keys_are_documented(parsed: dict[str, Any], project: Path):
    page = (project / "docs" / "export.md").read_text(encoding="utf-8")

    def documented(heading: str) -> list[str]:
        section = page.partition(f"\n### {heading}\n")[2].partition("\n##")[0]
        return re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)

    assert documented("Top level") == list(parsed)
    assert documented("`trials[]`") == list(parsed["trials"][0])


def test_a_file_that_cannot_be_written_is_refused(run: Stored, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ReportError, match=r"mine\.csv must be writable"):
        load(run.folder.path).export("csv", out=tmp_path / "file" / "mine.csv")
