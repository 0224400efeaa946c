import math

import numpy as np
import pytest
import scipy.stats

from analysis_samples import made_history
from batchscope.analysis import Settings, analyze, load_source
from batchscope.errors import HistoryError


def test_published_figures_at_epoch_20() -> None:
    analysis = analyze(load_source("published"))
    rows = analysis.final
    assert [row.batch_size for row in rows] == [16, 32, 64, 128]
    expected = {
        "gap": [0.008, 0.008, 0.144, 0.256],
        "val_accuracy": [0.9804, 0.9670, 0.8329, 0.7356],
        "train_accuracy": [0.9885, 0.9755, 0.9765, 0.9917],
    }
    digits = {"gap": 6e-4, "val_accuracy": 6e-5, "train_accuracy": 6e-5}
    for name, values in expected.items():
        assert [getattr(row, name).mean for row in rows] == pytest.approx(values, abs=digits[name])
    assert {row.epoch for row in analysis.summary} == {15, 20}
    assert {row.stage for row in analysis.summary} == {"fine_tuning"}


def test_estimates_agree_with_scipy() -> None:
    history = made_history(replicates=5, epochs=4)
    for row in analyze(history, Settings(confidence=0.9)).summary:
        cell = history[(history.batch_size == row.batch_size) & (history.epoch == row.epoch)]
        columns = {name: cell[name] for name in ("train_accuracy", "val_accuracy", "train_loss", "val_loss")}
        columns["gap"] = cell.train_accuracy - cell.val_accuracy
        for name, values in columns.items():
            found = getattr(row, name)
            low, high = scipy.stats.t.interval(0.9, 4, loc=values.mean(), scale=scipy.stats.sem(values))
            assert found.n == 5
            assert [found.mean, found.sd] == pytest.approx([values.mean(), values.std()], rel=1e-12)
            assert [found.low, found.high] == pytest.approx([low, high], rel=1e-12)


@pytest.mark.parametrize(("epochs", "expected"), [(20, {15, 20}), (10, {8, 10}), (2, {2}), (1, {1})])
def test_default_epochs_are_three_quarters_of_the_way_and_the_end(epochs: int, expected: set[int]) -> None:
    assert {row.epoch for row in analyze(made_history(epochs=epochs)).summary} == expected


def test_chosen_epochs_come_with_the_end_and_unknown_ones_are_refused() -> None:
    history = made_history(epochs=5)
    assert {row.epoch for row in analyze(history, Settings(summary_epochs=(2,))).summary} == {2, 5}
    with pytest.raises(HistoryError, match="runs from 1 to 5, but got 0, 7"):
        analyze(history, Settings(summary_epochs=(7, 0)))


def test_one_replicate_has_a_mean_and_no_spread() -> None:
    analysis = analyze(made_history(replicates=1, epochs=3))
    for row in analysis.summary:
        assert row.val_accuracy is not None
        assert row.val_accuracy.n == 1
        assert math.isfinite(row.val_accuracy.mean)
        assert all(math.isnan(value) for value in (row.val_accuracy.sd, row.val_accuracy.low))
    assert "one_replicate" in {note.rule for note in analysis.notes}


def test_diverged_and_missing_trials_are_counted_and_said() -> None:
    history = made_history(replicates=4, epochs=4)
    cell = history.batch_size == 64
    history.loc[cell & (history.replicate == 1) & (history.epoch == 2), "train_loss"] = np.nan
    gone = cell & (history.replicate == 1) & (history.epoch > 2)
    gone |= cell & (history.replicate == 2) & (history.epoch > 3)
    analysis = analyze(history[~gone])
    row = next(row for row in analysis.final if row.batch_size == 64)
    assert (row.n_trials, row.n_diverged, row.n_missing) == (4, 1, 1)
    kept = history[cell & (history.epoch == 4) & (history.replicate > 2)].val_accuracy
    assert row.val_accuracy is not None
    assert row.val_accuracy.n == 2
    assert row.val_accuracy.mean == pytest.approx(kept.mean(), rel=1e-15)
    notes = {note.rule: note for note in analysis.notes}
    assert dict(notes["diverged_trials"].figures) == {"n_trials": 1}
    assert dict(notes["missing_trials"].figures) == {"epoch": 4, "n_trials": 1}
    assert "b64-r1" in notes["diverged_trials"].text
    diverged = next(sentence for sentence in analysis.verdict if sentence.rule == "diverged")
    assert "1 of 4 at batch size 64" in diverged.text


def test_a_batch_size_that_diverged_in_all_trials_has_no_mean() -> None:
    history = made_history(epochs=3)
    history.loc[(history.batch_size == 128) & (history.epoch >= 2), "val_loss"] = np.inf
    row = analyze(history).final[-1]
    assert (row.batch_size, row.n_diverged, row.n_missing) == (128, 3, 0)
    assert row.gap is not None
    assert row.gap.n == 0
    assert math.isnan(row.gap.mean)


def test_missing_columns_give_none_and_a_note() -> None:
    analysis = analyze(made_history(epochs=3).drop(columns=["train_accuracy", "seconds", "examples"]))
    assert all(row.gap is None and row.train_accuracy is None for row in analysis.summary)
    notes = {note.rule: note.text for note in analysis.notes}
    assert "train_accuracy" in notes["no_gap"]
    assert "examples and seconds" in notes["missing_costs"]


def test_only_a_validation_loss_is_analysed_as_such() -> None:
    history = made_history(epochs=3)[["batch_size", "replicate", "epoch", "val_loss"]]
    analysis = analyze(history)
    assert analysis.facts.metric == "val_loss"
    assert analysis.facts.study is None
    assert "metric_val_loss" in {note.rule for note in analysis.notes}
    with pytest.raises(HistoryError, match="needs the column val_accuracy"):
        analyze(history, Settings(metric="val_accuracy"))
    with pytest.raises(HistoryError, match="val_accuracy or val_loss"):
        analyze(history.rename(columns={"val_loss": "train_loss"}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"margin": 0.0}, "margin must be above 0, but got 0"),
        ({"confidence": 1.0}, "confidence must lie between 0 and 1"),
        ({"resamples": 99}, "at least 100, but got 99"),
        ({"metric": "auc"}, "val_accuracy, val_loss, but got auc"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(HistoryError, match=message):
        Settings(**values)
