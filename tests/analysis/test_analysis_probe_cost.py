from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from batchscope.analysis import Settings, analyze
from probed import probed_history

FEW = Settings(resamples=100)


def _note(history: pd.DataFrame) -> tuple[str, dict[str, object]] | None:
    found = [note for note in analyze(history, FEW).notes if note.rule == "probe_cost"]
    return (found[0].text, dict(found[0].figures)) if found else None


@pytest.fixture
def history() -> pd.DataFrame:
    planted: pd.DataFrame = probed_history()
    planted["seconds"] = planted["epoch"] * 50.0  # 6 epochs, 12 trials: 3,600 s
    planted["probe_seconds"] = np.where(planted["probe_train_clean_loss"].notna(), 7.5, np.nan)
    return planted


def test_probes_are_set_against_the_training_of_all_trials(history: pd.DataFrame) -> None:
    note = _note(history)
    assert note is not None
    text, figures = note
    # Probed twice a trial: 12 x 2 x 7.5 s.
    assert figures == pytest.approx({"probes": 180.0, "training": 3600.0, "share": 0.05})
    assert text == (
        "Probes took 5% as long as training, off its clock: 180 s beside 3,600 s over all trials."
    )


@pytest.mark.parametrize("column", ["seconds", "probe_seconds"])
def test_without_a_column_nothing_is_said(history: pd.DataFrame, column: str) -> None:
    assert _note(history.drop(columns=column)) is None
    assert _note(history.assign(**{column: np.nan})) is None


def test_a_trial_that_has_only_begun_counts_by_what_it_trained(history: pd.DataFrame) -> None:
    cut = history[(history.batch_size != 64) | (history.epoch <= 2)]
    note = _note(cut)
    assert note is not None
    assert note[1]["training"] == pytest.approx(9 * 300.0 + 3 * 100.0)
