"""The findings say what their histories hold."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from batchscope.history import read_history
from batchscope.loading import parse_study, read_toml
from batchscope.schedule import schedule

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "findings"
STUDIES = ("vehicles-2019", "vehicles-corrected", "cacti-2019", "cacti-corrected")


def test_tables_are_those_of_the_histories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import findings

    page = findings.PAGE.read_text(encoding="utf-8")
    assert page.count("<!-- end -->") == 7
    assert findings.with_tables(page) == page
    sys.modules.pop("findings")


@pytest.mark.parametrize("name", STUDIES)
def test_histories_are_whole_and_of_their_study(name: str) -> None:
    file = FOLDER / f"{name}.toml"
    study = parse_study(read_toml(file.read_text(encoding="utf-8"), str(file)), str(file))
    history = read_history(FOLDER / f"{name}.csv")
    assert set(history["study"]) == {name}
    epochs = sum(stage.epochs or 0 for stage in study.stages)
    assert len(history) == len(study.batch_sizes) * study.replicates * epochs
    for batch_size, rows in history.groupby("batch_size"):
        assert isinstance(batch_size, int)
        assert rows["updates"].max() == sum(part.updates for part in schedule(study, batch_size, 3200))
        assert rows["examples"].max() == sum(part.examples for part in schedule(study, batch_size, 3200))


def test_the_study_to_a_target_has_the_trials_of_its_study_files() -> None:
    history = read_history(FOLDER / "fashion-mnist-to-target.csv")
    found = set(zip(history["batch_size"], history["learning_rate"], history["replicate"], strict=True))
    planned = set()
    for file in FOLDER.glob("fashion-mnist-*.toml"):
        study = parse_study(read_toml(file.read_text(encoding="utf-8"), str(file)), str(file))
        [stage] = study.stages
        rates = study.grid or [stage.learning_rate]
        if study.name == "fashion-mnist-rate-0.4-at-1024":  # stopped in its first trial at this rate
            planned.add((1024, 0.4, 1))
            continue
        planned |= {
            (size, rate, replicate)
            for size in study.batch_sizes
            for rate in rates
            for replicate in range(1, study.replicates + 1)
        }
    assert found == planned
    last = history.groupby("trial").tail(1)
    ended = last[last["val_accuracy"] >= 0.8]
    assert len(ended) == len(last) - 6  # two each at 4,096, at 64 with the smallest rate, and at 0.4
