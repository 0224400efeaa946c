"""A network of one's own in real worker processes: found, fingerprinted, failing, mended, gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchscope.errors import TrainingError
from batchscope.loading import parse_study
from batchscope.records import TrialState
from batchscope.running.options import RunOptions
from batchscope.running.run import run_study
from batchscope.running.store import Store
from run_samples import Events
from tiny import stage

pytestmark = pytest.mark.keras

GOOD = """
import keras

def build(input_shape, classes):
    inputs = keras.Input(input_shape)
    x = keras.layers.Dense(4, activation="relu")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))
"""
# Once to set up, once for the first trial; the second trial's network fails.
FAILING = """
calls = []

def fails():
    raise LookupError("the third time")
""" + GOOD.replace("    inputs", "    calls.append(1)\n    len(calls) > 2 and fails()\n    inputs", 1)
STUDY = parse_study(
    {
        "name": "own",
        "batch_sizes": [16, 32],
        "replicates": 1,
        "probes": "none",
        "data": {"source": "synthetic-cactus", "images": 60},
        "model": {"network": "network_of_mine:build"},
        "stages": [stage("one", "all", epochs=1)],
    },
    "own",
)


def test_a_network_that_fails_in_one_trial_is_mended_and_the_change_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    module, folder, one = tmp_path / "network_of_mine.py", tmp_path / "run", RunOptions(workers=1)
    monkeypatch.chdir(tmp_path)
    module.write_text(FAILING, encoding="utf-8")
    first, second = run_study(STUDY, folder, Events(), one)
    assert (first.state, second.state) == (TrialState.COMPLETE, TrialState.FAILED)
    assert 'network_of_mine.py", line' in str(second.error)
    assert str(second.error).rstrip().endswith("LookupError: the third time")
    module.write_text(GOOD, encoding="utf-8")
    watcher = Events()
    statuses = run_study(STUDY, folder, watcher, one)
    assert {status.state for status in statuses} == {TrialState.COMPLETE}
    with Store(folder / "results.sqlite") as store:
        before, now = [facts["network sha256"] for _, _, facts in store.sessions()]
    assert before != now
    told = (
        f"network: its file has changed since epochs of this run were stored (sha256 {before}, now {now}); "
    )
    assert [note for note in watcher.notes if note.startswith(told)]


def test_a_network_that_cannot_be_imported_stops_the_run_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        TrainingError, match=f"must lie in the working directory, {tmp_path}, or be installed"
    ):
        run_study(STUDY, tmp_path / "run", Events(), RunOptions(workers=1))
