import numpy as np
import pandas as pd
import pytest

from analysis_samples import N_IMAGES, made_history
from batchscope.analysis import analyze
from batchscope.analysis.panel import Panel, build_panel, stage_view
from batchscope.errors import HistoryError
from batchscope.history import check_history


def _panel(history: pd.DataFrame) -> Panel:
    return build_panel(check_history(history))


def test_every_row_lands_in_its_cell() -> None:
    history = made_history(batch_sizes=(8, 32), replicates=2, epochs=3).sample(frac=1, random_state=3)
    panel = _panel(history)
    assert panel.batch_sizes.tolist() == [8, 32]
    assert panel.replicates.tolist() == [1, 2]
    for row in history.itertuples():
        cell = ([8, 32].index(row.batch_size), row.replicate - 1, row.epoch - 1)
        assert panel.metrics["val_accuracy"][cell] == row.val_accuracy
        assert panel.metrics["gap"][cell] == row.train_accuracy - row.val_accuracy
        assert panel.costs["updates"][cell] == row.updates


def test_the_order_of_rows_changes_nothing() -> None:
    history = made_history(epochs=4, stages=(("a", 2), ("b", 2)))
    shuffled = history.sample(frac=1, random_state=5)
    assert repr(analyze(shuffled)) == repr(analyze(history))


def test_a_nan_loss_blanks_the_row_and_all_epochs_after_the_trial_ended_with_it() -> None:
    history = made_history(batch_sizes=(16,), replicates=2, epochs=4)
    first = (history.replicate == 1) & (history.epoch == 3)
    history.loc[first, "train_loss"] = np.nan
    panel = _panel(history[~((history.replicate == 1) & (history.epoch == 4))])
    assert panel.diverged[0].tolist() == [[False, False, True, True], [False] * 4]
    assert np.isnan(panel.metrics["val_accuracy"][0, 0]).tolist() == [False, False, True, True]
    assert panel.recorded[0, 0].tolist() == [True, True, True, False]


def test_an_infinite_loss_is_divergence_and_recovery_is_kept() -> None:
    history = made_history(batch_sizes=(16,), replicates=1, epochs=3)
    history.loc[history.epoch == 2, "val_loss"] = np.inf
    panel = _panel(history)
    assert panel.diverged[0, 0].tolist() == [False, True, False]
    assert np.isfinite(panel.metrics["val_accuracy"][0, 0]).tolist() == [True, False, True]


def test_stages_follow_the_order_of_training_not_of_the_alphabet() -> None:
    panel = _panel(made_history(epochs=4, stages=(("warm", 2), ("cool", 2))))
    assert panel.stages == ("warm", "cool")


def test_a_stage_counts_updates_from_its_own_start() -> None:
    panel = _panel(made_history(batch_sizes=(16, 64), replicates=1, stages=(("a", 3), ("b", 2))))
    view = stage_view(panel, 1)
    assert view.updates is not None
    assert view.updates[:, 0].tolist() == [
        [N_IMAGES // 16, 2 * (N_IMAGES // 16)],
        [N_IMAGES // 64, 2 * (N_IMAGES // 64)],
    ]
    assert view.epochs.tolist() == [[[4, 5]], [[4, 5]]]


def test_stages_that_start_at_different_epochs_are_lined_up() -> None:
    short = made_history(batch_sizes=(16,), replicates=2, stages=(("a", 1), ("b", 3)))
    long = made_history(batch_sizes=(64,), replicates=2, stages=(("a", 2), ("b", 2)))
    panel = _panel(pd.concat([short, long]))
    view = stage_view(panel, 1)
    assert view.epochs.tolist() == [[[2, 3, 4]] * 2, [[3, 4, -1]] * 2]
    expected = short.loc[(short.replicate == 2) & (short.epoch > 1), "val_accuracy"].tolist()
    assert view.metrics["val_accuracy"][0, 1].tolist() == expected
    late = long.loc[(long.replicate == 1) & (long.epoch > 2), "val_accuracy"].tolist()
    assert view.metrics["val_accuracy"][1, 0, :2].tolist() == late
    assert np.isnan(view.metrics["val_accuracy"][1, 0, 2])
    assert view.updates is not None
    assert view.updates[1, 0, :2].tolist() == [N_IMAGES // 64, 2 * (N_IMAGES // 64)]


def test_without_a_stage_column_there_is_one_unnamed_stage() -> None:
    panel = _panel(made_history(epochs=2).drop(columns="stage"))
    assert panel.stages == ("",)
    assert analyze(made_history(epochs=2).drop(columns="stage")).summary[0].stage == ""


def test_several_studies_are_refused_by_name() -> None:
    one, other = made_history(epochs=2), made_history(epochs=2)
    with pytest.raises(HistoryError, match="holds made, second"):
        analyze(pd.concat([one, other.assign(study="second")]))


def test_two_trials_in_one_cell_are_refused_with_the_remedy() -> None:
    one, other = made_history(epochs=2), made_history(epochs=2)
    with pytest.raises(HistoryError, match=r"batch_size=16, replicate=1 .* keep one of them"):
        analyze(pd.concat([one, other.assign(trial=other.trial + "-lr2")]))


def test_percentages_are_refused() -> None:
    history = made_history(epochs=2)
    history["val_accuracy"] *= 100
    with pytest.raises(HistoryError, match="val_accuracy must lie between 0 and 1, but got 9"):
        analyze(history)


@pytest.mark.parametrize("name", ["val_loss", "learning_rate", "seconds", "probe_x"])
def test_figures_that_float32_cannot_hold_are_refused(name: str) -> None:
    history = made_history(epochs=2).assign(probe_x=1.0)
    history.loc[3, name] = 1e39
    with pytest.raises(
        HistoryError, match=rf"column {name} must hold figures up to 3.4e\+38 .* but got 1e\+39"
    ):
        analyze(history)


def test_a_history_that_would_be_a_nearly_empty_grid_is_refused() -> None:
    rows = np.arange(1, 2_001)
    history = pd.DataFrame({"batch_size": rows, "replicate": rows, "epoch": rows, "val_loss": 0.5})
    with pytest.raises(
        HistoryError, match="2,000 rows hold 2,000 batch sizes, 2,000 replicates and 2,000 epochs"
    ):
        analyze(history)
