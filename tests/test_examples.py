"""Every example runs, and shows what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import batchscope
from batchscope.analysis import analyze
from batchscope.published import published_history
from batchscope.records import TrialState
from batchscope.running.folder import RunFolder
from batchscope.running.store import Store

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOK = EXAMPLES / "aerial_cactus_2019.ipynb"
TINY = """\
IMAGES = 100
WEIGHTS = "none"
IMAGE_SIZE = 32
BATCH_SIZES = [8, 16]
REPLICATES = 1
EPOCHS = (1, 1)
CHANGES = {"model.backbone": "MobileNet", "stages.fine_tuning.trainable": {"from_layer": "conv_dw_12"}}
"""
OFFLINE = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}


def execute(words: Sequence[str | Path], folder: Path, **environment: str) -> str:
    """Runs Python in a folder, and gives what it printed."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env={**os.environ, **OFFLINE, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def finished(folder: Path, batch_sizes: Sequence[int], replicates: int, epochs: int) -> batchscope.Run:
    """A run that did all it should: each trial complete, a row for each epoch, a page."""
    run = batchscope.load(folder)
    assert [status.trial.batch_size for status in run.trials] == list(batch_sizes) * replicates
    assert {status.state for status in run.trials} == {TrialState.COMPLETE}
    assert len(run.history) == len(batch_sizes) * replicates * epochs
    assert (folder / "report" / "report.html").stat().st_size > 100_000
    return run


def test_every_example_is_executed_by_a_test():
    """A new example must not go unexecuted; those with checkpoints are killed in tests/reliability."""
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("test_*.py"))
    found = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".py", ".toml", ".ipynb"))
    assert len(found) > 5
    assert [path.name for path in found if path.stem not in tests] == []


def test_mlp_classifier(tmp_path: Path):
    execute([EXAMPLES / "mlp_classifier.py"], tmp_path)
    run = finished(tmp_path / "runs" / "mlp", [8, 32, 128], replicates=3, epochs=20)
    ends = run.history.query("epoch == 20").groupby("batch_size")["train_loss"].mean()
    # 3,380 updates against 860 and 220: at equal epochs the smaller batch has learnt more.
    assert ends[8] < ends[32] < ends[128]
    updates = run.history.query("epoch == 20").groupby("batch_size")["updates"].unique()
    assert updates.map(list).to_dict() == {8: [20 * 169], 32: [20 * 43], 128: [20 * 11]}


def test_sgd_classifier_shows_no_effect_where_there_is_none(tmp_path: Path):
    execute([EXAMPLES / "sgd_classifier.py"], tmp_path)
    run = finished(tmp_path / "runs" / "sgd", [32, 128, 512], replicates=3, epochs=10)
    by_batch_size = run.history.pivot_table(
        index=["replicate", "epoch"], columns="batch_size", values=["train_accuracy", "val_accuracy"]
    )
    for metric in ("train_accuracy", "val_accuracy"):
        assert (by_batch_size[metric].nunique(axis=1) == 1).all()
    assert run.history.query("epoch == 10")["val_accuracy"].min() > 0.9
    assert run.analyze().verdict[0].rule == "gap_steady"


@pytest.mark.keras
def test_keras_model(tmp_path: Path):
    for name in ("keras_model.py", "keras_model.toml"):
        (tmp_path / name).write_bytes((EXAMPLES / name).read_bytes())
    small = [
        "--batch-sizes",
        "16,64",
        "--replicates",
        "1",
        "--limit",
        "200",
        "--set",
        "stages.training.epochs=2",
    ]
    execute(["-m", "batchscope", "run", "keras_model.toml", "--quiet", *small], tmp_path)
    finished(tmp_path / "runs" / "keras-model", [16, 64], replicates=1, epochs=2)


def notebook() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return found


def test_the_notebook_is_committed_without_outputs():
    code = [cell for cell in notebook()["cells"] if cell["cell_type"] == "code"]
    assert [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"]] == []
    assert "%pip install" in "".join(code[0]["source"])


@pytest.mark.keras
@pytest.mark.timeout(900)  # about one minute on two cores that do nothing else
def test_the_notebook_walks_through_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import nbformat
    from nbclient import NotebookClient

    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    book = nbformat.read(NOTEBOOK, as_version=4)
    tagged = [place for place, cell in enumerate(book.cells) if "parameters" in cell.metadata.get("tags", [])]
    book.cells.insert(tagged[0] + 1, nbformat.v4.new_code_cell(TINY))
    NotebookClient(book, timeout=None, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = {cell.id: cell for cell in book.cells}

    out = tmp_path / "runs" / "notebook"
    finished(out / "one", [16], replicates=1, epochs=2)
    sweep = finished(out / "sweep", [8, 16], replicates=1, epochs=2)
    assert counts(cells["data"]) == {"0": 25, "1": 75}
    assert counts(cells["split"], column=2) == {"0": 5, "1": 15}
    with Store(RunFolder(sweep.path).database) as store:
        kept = store.data()
    assert kept is not None
    assert [kept[0].training, kept[0].validation] == [(20, 60), (5, 15)]
    assert counts(cells["split"], column=1) == {"0": 20, "1": 60}
    pictures = {name: len(images(cell)) for name, cell in cells.items() if images(cell)}
    assert pictures == {
        "sample": 2,
        "one-curves": 2,
        "figures-published": 4,
        "figures-own": 4,
        "updates": 4,
        "terms": 1,
    }
    said = [sentence.text for sentence in analyze(published_history()).verdict]
    assert printed(cells["verdict-published"]).split("\n\n") == said
    assert printed(cells["verdict-own"]).split("\n\n") == [s.text for s in sweep.analyze().verdict]


def images(cell: Mapping[str, Any]) -> list[str]:
    return [
        output["data"]["image/png"]
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]


def printed(cell: Mapping[str, Any]) -> str:
    """What a cell printed, as lines that a table or sentence stands in."""
    return "".join(output["text"] for output in cell["outputs"] if output["output_type"] == "stream").strip()


def counts(cell: Mapping[str, Any], column: int = 1) -> dict[str, int]:
    """A column of the table that a cell shows, by its row's name; the two lines of the head left out."""
    shown = cell["outputs"][-1]["data"]["text/plain"].splitlines()[2:]
    return {line.split()[0]: int(line.split()[column]) for line in shown}
