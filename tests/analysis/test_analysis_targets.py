"""Budgets whose length only training tells: each trial at its own end, and targets that were missed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from analysis_samples import made_history
from batchscope.analysis import Analysis, Plan, RecipeFacts, Settings, analyze
from batchscope.analysis.panel import build_panel, stage_view
from batchscope.history import check_history
from recipe_samples import NAMES, REACHED, TARGET, recipe, until_history

FEW = Settings(resamples=100)


def said(analysis: Analysis) -> dict[str, str]:
    return {sentence.rule: sentence.text for sentence in (*analysis.verdict, *analysis.notes)}


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("budget", ["until", "seconds"])
def test_each_trial_is_compared_at_its_own_last_epoch(before: int, budget: str) -> None:
    history = until_history(before)
    found = analyze(history, FEW, recipe(budget=budget))
    last = history.groupby(["batch_size", "replicate"]).tail(1)
    table = last.pivot_table(index="replicate", columns="batch_size", values="val_accuracy")
    for row in found.final:
        assert row.val_accuracy is not None
        assert (row.val_accuracy.n, row.n_missing, row.n_diverged) == (3, 0, 0)
        assert row.val_accuracy.mean == pytest.approx(table[row.batch_size].mean(), rel=1e-12)
        assert row.epoch == before + min(max(REACHED[row.batch_size]), 8)
    assert len(found.summary) == len(found.final)
    of_metric = [row for row in found.comparisons if row.quantity == "val_accuracy"]
    # A target makes ends alike, and comparing them idle.
    assert len(of_metric) == (3 if budget == "seconds" else 0)
    for compared in of_metric:
        test = scipy.stats.ttest_rel(table[compared.batch_size], table[16])
        assert (compared.p, compared.epoch) == (pytest.approx(test.pvalue, rel=1e-9), None)
    updates = last.groupby("batch_size")["updates"].mean()
    assert [end.updates for end in found.facts.ends] == pytest.approx(updates.tolist())
    assert found.facts.end_epoch is None
    assert said(found)["own_ends"].startswith("Trials end at different epochs, up to")


def test_what_the_target_took_is_counted_over_the_trials_that_reached_it() -> None:
    history = until_history()
    found = analyze(history, FEW, recipe())
    there = history[history["val_accuracy"] >= 0.9]
    assert [(row.n_reached, row.n_missed, row.n_trials) for row in found.targets] == [
        (3, 0, 3),
        (3, 0, 3),
        (2, 1, 3),
        (0, 3, 3),
    ]
    for row in found.targets[:3]:
        for cost in ("epoch", "updates", "examples", "seconds"):
            estimate = row.epochs if cost == "epoch" else row.spent(cost)
            assert estimate is not None
            assert estimate.mean == pytest.approx(
                there.loc[there["batch_size"] == row.batch_size, cost].mean()
            )
    assert np.isnan(found.targets[3].epochs.mean)
    missed = said(found)["target_missed"]
    assert (
        "not reached within 8 epochs by some trials: 1 of 3 at batch size 64 and 3 of 3 at batch size 128"
        in missed
    )
    reached = said(found)["target_reached"]
    assert (
        "was reached by every trial of batch size 16 and 32: with the fewest updates at batch size" in reached
    )
    assert "64" not in reached.split(":")[0]


def test_a_trial_that_goes_on_is_neither_missed_nor_at_its_end() -> None:
    history = until_history()
    going_on = history[
        ~((history["batch_size"] == 128) & (history["replicate"] == 2) & (history["epoch"] > 3))
    ]
    found = analyze(going_on, FEW, recipe([name for name in NAMES if name != "b128-r2"]))
    assert (found.targets[3].n_missed, found.targets[3].n_trials) == (2, 3)
    assert found.final[3].n_missing == 1
    diverged = going_on.copy()
    at = (diverged["batch_size"] == 128) & (diverged["replicate"] == 2) & (diverged["epoch"] == 3)
    diverged.loc[at, "val_loss"] = np.nan
    found = analyze(diverged, FEW, recipe())
    assert (found.targets[3].n_missed, found.final[3].n_diverged, found.final[3].n_missing) == (3, 1, 0)


def test_before_any_trial_has_ended_batch_sizes_are_compared_as_far_as_the_longest_is() -> None:
    history = until_history()
    found = analyze(history[history["epoch"] <= 2], FEW, recipe([]))
    assert found.facts.end_epoch == 2
    assert [row.val_accuracy.n for row in found.final if row.val_accuracy] == [3, 3, 3, 3]


def test_a_later_stage_is_lined_up_from_where_each_trial_began_it() -> None:
    """Replicates that left the first stage after different epochs are together at each update of the next."""
    first = until_history().assign(stage="one")
    keys = ["batch_size", "replicate"]
    ends = first.groupby(keys).tail(1).set_index(keys)
    rows = []
    for (size, replicate), end in ends.iterrows():
        for step in (1, 2, 3):
            row = {"batch_size": size, "replicate": replicate, **end.to_dict(), "stage": "two"}
            row |= {"epoch": end["epoch"] + step, "updates": end["updates"] + 10 * step}
            rows.append(row | {"val_accuracy": 0.5 + 0.1 * step})
    history = check_history(pd.concat([first, pd.DataFrame(rows)]))
    plan = Plan({"one": "until", "two": "epochs"}, None, {"one": TARGET}, frozenset(NAMES))
    view = stage_view(build_panel(history, plan), 1)
    assert view.updates is not None
    for place in range(3):
        assert (view.updates[:, :, place] == 10 * (place + 1)).all()
        assert view.metrics["val_accuracy"][:, :, place] == pytest.approx(0.5 + 0.1 * (place + 1))
    found = analyze(history, FEW, RecipeFacts(plan=plan))
    assert [row.n_missed for row in found.targets] == [0, 0, 1, 3]
    assert [row.val_accuracy.mean for row in found.final if row.val_accuracy] == pytest.approx([0.8] * 4)


def test_the_cheapest_way_counts_each_trial_up_to_its_own_end() -> None:
    """Batch size 16 ends best by far, so what it spent is the mean over its trials' own ends."""
    history = until_history()
    ends = history.groupby(["batch_size", "replicate"])["epoch"].transform("max") == history["epoch"]
    history.loc[ends & (history["batch_size"] == 16), "val_accuracy"] += 0.05
    found = analyze(history, FEW, recipe(budget="seconds"))
    choice = next(choice for choice in found.recommendation.choices if choice.cost == "updates")
    last = history[history["batch_size"] == 16].groupby("replicate").tail(1)
    assert choice.batch_size == 16
    assert choice.spent == pytest.approx(last["updates"].mean())


def test_a_straggler_beyond_the_ended_trials_has_no_part_in_what_the_end_took() -> None:
    """Three of four trials ended at epoch 8 at 0.9; the fourth is at epoch 9, far below it, and goes on."""
    history = made_history(
        batch_sizes=(16, 32),
        replicates=4,
        epochs=9,
        val=lambda b, r, e, u: 0.5 if r == 4 else 0.9 - 0.01 * (8 - e) - 0.02 * (b == 32),
    )
    last = [9 if size == 16 and replicate == 4 else 8 for size, replicate in _trials(history)]
    history = history[history["epoch"] <= last]
    names = [f"b{size}-r{replicate}" for size in (16, 32) for replicate in (1, 2, 3)]
    plan = Plan({"training": "seconds"}, None, ended=frozenset(names))
    found = analyze(history, FEW, RecipeFacts(plan=plan)).recommendation
    assert (found.best_batch_size, found.best_mean) == (16, pytest.approx(0.9))
    ends = history[(history["batch_size"] == 16) & (history["epoch"] == 8) & (history["replicate"] <= 3)]
    for choice in found.choices:
        assert (choice.batch_size, choice.epoch) == (16, 8)
        assert choice.spent == pytest.approx(ends[choice.cost].mean())
    assert [choice.cost for choice in found.choices] == ["updates", "examples", "seconds"]


def _trials(history: pd.DataFrame) -> list[tuple[int, int]]:
    return list(zip(history["batch_size"], history["replicate"], strict=True))
