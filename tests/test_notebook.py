"""A run in a real notebook: it shows itself where it is the value of a cell."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from batchscope import load
from batchscope.analysis.words import number
from batchscope.records import TrialState
from batchscope.running.folder import RunFolder
from run_samples import FIRST, SECOND, record, small_study


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with RunFolder(tmp_path / "run").claim(small_study()) as store:
        store.plan([FIRST, SECOND])
        for trial in (FIRST, SECOND):
            for epoch in (1, 2):
                store.add(trial, record(epoch, val_accuracy=0.7 + epoch / trial.batch_size))
            store.set_state(trial, TrialState.COMPLETE)
    return tmp_path / "run"


def test_a_run_that_is_the_value_of_a_cell_shows_itself(folder: Path):
    cell = nbformat.v4.new_code_cell("import batchscope as bs\nbs.load('run')")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder.parent)}}).execute()
    nbformat.validate(notebook)
    [output] = notebook.cells[0].outputs
    assert output.output_type == "execute_result"
    assert output.data["text/plain"].startswith("Run(path=")
    html = output.data["text/html"]
    run = load(folder)
    assert html == run._repr_html_().replace(str(folder), "run")
    assert len(re.findall(r'<img src="data:image/(?:svg\+xml|png);base64,[A-Za-z0-9+/=]+"', html)) >= 3
    for row in run.analyze().summary:
        assert row.val_accuracy is not None
        assert f">{number(row.val_accuracy.mean)}<" in html
    assert len(html) < 1_000_000
