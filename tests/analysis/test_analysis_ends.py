"""Where batch sizes are compared: at one epoch, or each at its own end."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from analysis_samples import made_history
from batchscope.analysis import Analysis, Plan, RecipeFacts, Settings, analyze, to_dict
from batchscope.analysis.panel import build_panel
from budgeted import SIZES, STAGES, budgeted_history, follows_updates

FEW = Settings(resamples=100)
# Epochs that hold 2,000 updates, and 3,000: at batch size 16 an epoch has 875, the last one cut short.
OWN = {16: 3 + 4, 32: 5 + 7, 64: 10 + 14, 128: 19 + 28}
BUDGETS = {name: "updates" for name, _, _ in STAGES}
PLAN = RecipeFacts(plan=Plan(BUDGETS, OWN))  # type: ignore[arg-type]


def ends(analysis: Analysis) -> dict[int, int]:
    return {end.batch_size: end.epoch for end in analysis.facts.ends}


def rules(analysis: Analysis) -> dict[str, str]:
    return {sentence.rule: sentence.text for sentence in (*analysis.verdict, *analysis.notes)}


def at_own_ends(history: pd.DataFrame) -> pd.DataFrame:
    """Each trial's last row, replicates by batch sizes."""
    last = history.sort_values("epoch").groupby(["batch_size", "replicate"]).tail(1)
    return last.pivot_table(index="replicate", columns="batch_size", values="val_accuracy")


@pytest.mark.parametrize("recipe", [None, PLAN])
def test_equal_updates_end_each_batch_size_at_its_own_epoch(recipe: RecipeFacts | None) -> None:
    analysis = analyze(budgeted_history(), FEW, recipe)
    assert ends(analysis) == OWN
    assert [stage.budget for stage in analysis.facts.stages] == ["updates", "updates"]
    assert [end.updates for end in analysis.facts.ends] == [5000.0] * 4
    assert analysis.facts.last_epoch == 47
    assert analysis.facts.end_epoch is None
    assert analysis.facts.when == "each batch size's end (5,000 updates)"
    assert [(row.batch_size, row.epoch) for row in analysis.final] == list(OWN.items())
    for row in analysis.final:
        assert row.val_accuracy is not None
        assert (row.n_missing, row.val_accuracy.n) == (0, 3)
        assert row.val_accuracy.mean == pytest.approx(follows_updates(row.batch_size, 2, 5000), rel=1e-12)
        assert row.stage == "fine_tuning"
    late = [(row.batch_size, row.epoch) for row in analysis.summary[:4]]
    assert late == [(16, 6), (32, 9), (64, 18), (128, 36)]
    assert ("may be chance" in rules(analysis)["own_ends"]) == (recipe is None)
    assert "from 7 to 47, because all were given the same number of updates." in rules(analysis)["own_ends"]


def test_statistics_at_own_ends_agree_with_scipy() -> None:
    random = np.random.default_rng(0)
    history = budgeted_history(replicates=6)
    history["val_accuracy"] -= 0.02 * np.log2(history["batch_size"] / 16) * random.random(len(history))
    analysis = analyze(history, FEW)
    table = at_own_ends(history)
    for found in analysis.comparisons[:3]:
        test = scipy.stats.ttest_rel(table[found.batch_size], table[16])
        assert (found.p, found.n_pairs, found.epoch) == (pytest.approx(test.pvalue, rel=1e-9), 6, None)
    page = scipy.stats.page_trend_test(-table.to_numpy())
    assert (analysis.trend[0].statistic, analysis.trend[0].p) == pytest.approx((page.statistic, page.pvalue))
    assert [row.sd for row in analysis.spread.rows] == pytest.approx(table.std().tolist(), rel=1e-9)
    levene = scipy.stats.levene(*(table[size] for size in SIZES), center="median")
    assert analysis.spread.p == pytest.approx(levene.pvalue)
    assert {analysis.trend[0].epoch, analysis.spread.epoch, analysis.recommendation.epoch} == {None}
    best = analysis.recommendation
    assert best.best_mean == pytest.approx(table.mean().max(), rel=1e-12)
    assert best.best_batch_size == table.mean().idxmax()


def test_no_difference_at_equal_updates_is_said_to_be_just_that() -> None:
    analysis = analyze(budgeted_history(), FEW)
    first = analysis.verdict[0]
    assert first.rule == "gap_steady"
    assert first.text == (
        "The observed gap hardly changes with batch size at the same number of updates: the observed gap at "
        "each batch size's end (5,000 updates) is 0.010 at batch size 16 and 0.010 at batch size 128, a "
        "difference of 0.000, less than the margin of 0.005."
    )
    assert dict(first.figures)["epoch"] is None
    assert dict(first.figures)["updates"] == 5000
    said = " ".join(sentence.text for sentence in analysis.verdict)
    assert "same epoch" not in said
    assert "stage_share" not in rules(analysis)


def test_a_difference_at_equal_updates_is_not_put_down_to_updates() -> None:
    history = budgeted_history(val=lambda b, r, u: follows_updates(b, r, u) - 0.01 * np.log2(b / 16))
    first = analyze(history, FEW).verdict[0]
    assert first.rule == "gap_beyond_updates"
    assert first.text.startswith(
        "What looks like a generalization gap is not explained by the number of updates, which is the same "
        "for all batch sizes: the observed gap at each batch size's end (5,000 updates) is 0.010 at"
    )
    assert "share" not in dict(first.figures)
    noisy = history.assign(val_accuracy=follows_updates(16, 2, 5000) - 0.01 * history.replicate)
    noisy["val_accuracy"] += 0.05 * ((history.batch_size == 128) & (history.replicate == 3))
    undecided = analyze(noisy, FEW).verdict[0]
    assert undecided.rule == "gap_undecided"
    assert "depends on batch size at the same number of updates: at each batch size's end" in undecided.text


def test_equal_epochs_end_at_one_epoch() -> None:
    analysis = analyze(budgeted_history((("one", "epochs", 4), ("two", "epochs", 6))), FEW)
    assert ends(analysis) == dict.fromkeys(SIZES, 10)
    assert [stage.budget for stage in analysis.facts.stages] == ["epochs", "epochs"]
    assert (analysis.facts.end_epoch, analysis.facts.when) == (10, "epoch 10")
    assert analysis.facts.end_updates is None
    assert {found.epoch for found in analysis.comparisons} == {10}
    assert "own_ends" not in rules(analysis)


def test_a_stage_in_epochs_and_one_in_updates() -> None:
    analysis = analyze(budgeted_history((("one", "epochs", 4), ("two", "updates", 3000))), FEW)
    assert ends(analysis) == {16: 4 + 4, 32: 4 + 7, 64: 4 + 14, 128: 4 + 28}
    assert [stage.budget for stage in analysis.facts.stages] == ["epochs", "updates"]
    assert analysis.facts.when == "each batch size's end (epochs 8 to 32)"
    assert "the same number of updates in two." in rules(analysis)["own_ends"]
    # What the first stage's share says stands, but not as the reason of a difference at the end.
    assert analysis.verdict[0].rule == "gap_steady"
    assert [row.stage for row in analysis.updates_share] == ["one", "two"]
    assert rules(analysis)["stage_share"].startswith("In one, ")


def test_whole_epochs_need_not_add_up_to_the_same_updates() -> None:
    """The smallest batch size stops after whole epochs; the others within an epoch's worth of the largest."""
    history = budgeted_history((("", "updates", 5250),)).drop(columns="stage")
    whole = history[history.updates == history.epoch * np.ceil(14_000 / history.batch_size)]
    last = whole.groupby("batch_size").updates.max()
    assert last.to_dict() == {16: 5250, 32: 4818, 64: 5037, 128: 5170}
    assert ends(analyze(whole, FEW)) == dict.fromkeys(SIZES, 47)
    kept = whole[whole.batch_size.isin([16, 128])]
    analysis = analyze(kept, FEW)
    assert ends(analysis) == {16: 6, 128: 47}
    assert analysis.facts.when == "each batch size's end (about 5,210 updates)"


def test_equal_examples_end_each_batch_size_at_its_own_row() -> None:
    """Rows every 100 updates, which calls them epochs, up to 102,400 examples."""
    history = pd.concat(
        made_history((size,), 3, 102_400 // (100 * size)).assign(
            updates=lambda table: 100 * table.epoch, examples=lambda table: table.updates * table.batch_size
        )
        for size in (16, 64, 128)
    )
    analysis = analyze(history, FEW)
    assert ends(analysis) == {16: 64, 64: 16, 128: 8}
    assert analysis.facts.stages[0].budget == "examples"
    assert analysis.facts.when == "each batch size's end (102,400 examples)"
    assert analysis.facts.end_updates is None
    assert not any("updates instead" in sentence.text for sentence in analysis.verdict)


@pytest.mark.parametrize(
    "reached",
    [
        {16: 20, 32: 20, 64: 7},  # one after the other
        {16: 5, 32: 6, 64: 6},
        {16: 19, 32: 20, 64: 20},
        {16: 3, 32: 7, 64: 11},
    ],
)
def test_a_run_in_progress_keeps_one_end(reached: dict[int, int]) -> None:
    history = made_history(tuple(reached), 2, 20)
    history = history[history.epoch <= history.batch_size.map(reached)]
    analysis = analyze(history, FEW)
    assert ends(analysis) == dict.fromkeys(reached, max(reached.values()))
    assert "own_ends" not in rules(analysis)
    assert [row.n_missing for row in analysis.final] == [
        0 if epoch == max(reached.values()) else 2 for epoch in reached.values()
    ]


def test_equal_updates_by_chance_are_told_apart_by_the_study() -> None:
    """Trials side by side at the same pace: batch size 16 at epoch 2 when 128 is at epoch 16."""
    history = made_history((16, 128), 2, 20)
    history = history[history.epoch <= history.batch_size.map({16: 2, 128: 16})]
    assert ends(analyze(history, FEW)) == {16: 2, 128: 16}
    plan = Plan({"training": "epochs"}, {16: 20, 128: 20})
    planned = analyze(history, FEW, RecipeFacts(plan=plan))
    assert ends(planned) == {16: 16, 128: 16}
    assert planned.facts.stages[0].budget == "epochs"


def test_a_run_with_a_budget_in_updates_that_goes_on() -> None:
    history = budgeted_history()
    going = history[(history.batch_size < 128) | ((history.replicate == 1) & (history.epoch <= 30))]
    # By itself it shows no budget, since 3,300 updates are not 5,000.
    assert ends(analyze(going, FEW)) == dict.fromkeys(SIZES, 30)
    analysis = analyze(going, FEW, PLAN)
    assert ends(analysis) == OWN
    row = analysis.final[-1]
    assert (row.epoch, row.stage, row.n_trials, row.n_missing) == (47, None, 1, 1)
    assert analysis.facts.when == "each batch size's end (5,000 updates)"
    assert [row.val_accuracy.n for row in analysis.final if row.val_accuracy] == [3, 3, 3, 0]
    assert [found.n_pairs for found in analysis.comparisons[:3]] == [3, 3, 0]
    missing = [note.text for note in analysis.notes if note.rule == "missing_trials"]
    assert missing[-1] == (
        "1 trial did not reach the end and is missing from its figures: 1 of 1 at batch size 128."
    )
    assert analysis.verdict[0].rule == "gap_steady"
    begun = analyze(history[(history.batch_size == 16) & (history.epoch <= 2)], FEW, PLAN)
    assert ends(begun) == {16: 2}


def test_one_diverged_replicate_does_not_hide_the_budget() -> None:
    history = budgeted_history()
    cell = (history.batch_size == 128) & (history.replicate == 2)
    history.loc[cell & (history.epoch == 20), "val_loss"] = np.nan
    analysis = analyze(history[~(cell & (history.epoch > 20))], FEW)
    assert ends(analysis) == OWN
    row = analysis.final[-1]
    assert (row.n_trials, row.n_diverged, row.n_missing) == (3, 1, 0)
    assert analysis.facts.ends[-1].updates == 5000
    assert "1 of 3 at batch size 128" in rules(analysis)["diverged"]
    assert 128 not in analysis.recommendation.within_margin


def test_a_batch_size_that_diverged_in_all_trials_ends_with_the_longest() -> None:
    history = budgeted_history()
    history.loc[(history.batch_size == 128) & (history.epoch == 20), "val_loss"] = np.inf
    history = history[(history.batch_size < 128) | (history.epoch <= 20)]
    analysis = analyze(history, FEW)
    assert ends(analysis) == OWN | {128: 20}
    assert [row.n_diverged for row in analysis.final] == [0, 0, 0, 3]
    assert analysis.facts.when == "each batch size's end (5,000 updates)"
    planned = analyze(history, FEW, PLAN)
    assert ends(planned) == OWN
    assert [row.n_diverged for row in planned.final] == [0, 0, 0, 3]


def test_a_replicate_that_ended_early_is_missing_at_the_end() -> None:
    history = budgeted_history()
    ragged = history[~((history.batch_size == 64) & (history.replicate == 3) & (history.epoch > 9))]
    analysis = analyze(ragged, FEW)
    assert ends(analysis) == OWN
    assert [row.n_missing for row in analysis.final] == [0, 0, 1, 0]
    assert [found.n_pairs for found in analysis.comparisons[:3]] == [3, 2, 3]
    # With two of three gone, what the third shows is no longer taken for the budget.
    most = history[~((history.batch_size == 64) & (history.replicate > 1) & (history.epoch > 9))]
    assert ends(analyze(most, FEW)) == dict.fromkeys(SIZES, 47)


def test_chosen_epochs_are_of_the_batch_sizes_that_have_them() -> None:
    analysis = analyze(budgeted_history(), dataclasses.replace(FEW, summary_epochs=(7, 10)))
    rows = [(row.epoch, row.batch_size) for row in analysis.summary]
    before = [(7, 32), (7, 64), (7, 128), (10, 32), (10, 64), (10, 128)]
    assert rows == before + [(epoch, size) for size, epoch in OWN.items()]


def test_the_panel_cuts_figures_at_each_end() -> None:
    panel = build_panel(budgeted_history())
    assert panel.ends.epochs.tolist() == list(OWN.values())
    assert panel.final("val_accuracy") == pytest.approx(at_own_ends(budgeted_history()).to_numpy().T)
    ahead = build_panel(budgeted_history(), Plan(BUDGETS, OWN | {128: 60}))  # type: ignore[arg-type]
    assert np.isnan(ahead.final("val_accuracy")[-1]).all()
    assert np.isfinite(ahead.final("val_accuracy")[:-1]).all()


def test_json_has_null_for_the_epoch_and_the_ends_beside_it() -> None:
    found = to_dict(analyze(budgeted_history(), FEW))
    assert [end["epoch"] for end in found["ends"]] == list(OWN.values())
    assert {row["epoch"] for row in (*found["comparisons"], *found["trend"], found["spread"])} == {None}
    assert found["recommendation"]["epoch"] is None
