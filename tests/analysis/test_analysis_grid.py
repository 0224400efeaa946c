"""Each batch size at its own best learning rate, on histories where that is planted."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from analysis_samples import made_history
from batchscope.analysis import Analysis, Plan, RecipeFacts, Settings, analyze, to_json
from batchscope.errors import HistoryError
from batchscope.history import check_history
from batchscope.report.figures import all_figures
from recipe_samples import BEST, GRID, tried

FEW = Settings(resamples=100)


def chosen(analysis: Analysis) -> dict[int, float]:
    return {point.batch_size: point.learning_rate for point in analysis.learning_rates.chosen}


def said(analysis: Analysis) -> dict[str, str]:
    return {sentence.rule: sentence.text for sentence in (*analysis.verdict, *analysis.notes)}


def test_each_batch_size_is_analysed_at_its_planted_best() -> None:
    history = tried()
    found = analyze(history.sample(frac=1, random_state=1), FEW)
    assert chosen(found) == BEST
    assert found.facts.learning_rate_retuned is True
    assert (found.learning_rates.chosen_by, found.learning_rates.optimistic) == ("selection_accuracy", False)
    best = history[history["learning_rate"] == history["batch_size"].map(BEST)]
    alone = analyze(best.drop(columns="selection_accuracy"), FEW)
    for part in ("summary", "comparisons", "trend", "updates_share", "flags", "exchangeability", "spread"):
        assert repr(getattr(found, part)) == repr(getattr(alone, part))
    assert found.facts.n_trials == 12
    assert "learning_rate_not_retuned" not in {reason.rule for reason in found.recommendation.reasons}
    text = said(found)["learning_rate_chosen"]
    assert text.startswith("Each batch size is compared at its own best of 4 learning rates in one (0.005 to")
    assert "on validation examples on which no other figure rests" in text
    assert "0.005 at batch size 16, 0.01 at batch size 32" in text
    assert "the smallest, 0.005, at batch size 16)" in said(found)["learning_rate_at_edge"]
    assert said(found)["learning_rates_left_out"].startswith("36 trials at learning rates")


def test_the_points_are_the_means_of_the_trials_last_rows() -> None:
    history = tried()
    found = analyze(history, FEW)
    last = history[history["epoch"] == 6].groupby(["batch_size", "learning_rate"])
    assert len(found.learning_rates.points) == 16
    for point in found.learning_rates.points:
        rows = last.get_group((point.batch_size, point.learning_rate))
        assert point.selection.mean == pytest.approx(rows["selection_accuracy"].mean(), rel=1e-12)
        assert point.selection.sd == pytest.approx(rows["selection_accuracy"].std(), rel=1e-9)
        assert point.metric.mean == pytest.approx(rows["val_accuracy"].mean(), rel=1e-12)
        assert list(point.finals) == rows.sort_values("replicate")["selection_accuracy"].tolist()
        assert point.at_edge == (point.chosen and point.batch_size == 16)


def test_the_choice_is_by_the_selection_images_alone() -> None:
    """Validation that speaks for another learning rate has no say."""
    found = analyze(tried(val=lambda size, rate: 0.9 - rate), FEW)
    assert chosen(found) == BEST


def test_without_selection_columns_the_metric_chooses_and_is_called_optimistic() -> None:
    found = analyze(tried(selection=None), FEW)
    assert chosen(found) == BEST
    assert (found.learning_rates.chosen_by, found.learning_rates.optimistic) == ("val_accuracy", True)
    assert (
        "by the validation accuracy itself, so that the figures are optimistic"
        in (said(found)["learning_rate_chosen"])
    )


def test_a_loss_is_chosen_by_its_least() -> None:
    history = tried(selection=None)
    history["selection_loss"] = 1 - history["val_accuracy"]
    history["selection_accuracy"] = 1 - history["val_accuracy"]  # of no say where the loss is analysed
    found = analyze(history, dataclasses.replace(FEW, metric="val_loss"))
    assert (chosen(found), found.learning_rates.chosen_by) == (BEST, "selection_loss")


def test_a_diverged_trial_is_worst_and_the_fewest_of_them_are_best() -> None:
    history = tried()
    at = (history["batch_size"] == 32) & (history["learning_rate"] == 0.01) & (history["replicate"] == 2)
    ended = history[~(at & (history["epoch"] > 3))].copy()
    ended.loc[at & (ended["epoch"] == 3), ["train_loss", "selection_accuracy"]] = np.nan
    found = analyze(ended, FEW)
    assert chosen(found)[32] in (0.005, 0.02)  # equally far from the best, which is out
    point = next(p for p in found.learning_rates.points if (p.batch_size, p.learning_rate) == (32, 0.01))
    assert (point.n_trials, point.n_diverged, point.n_missing, point.selection.n) == (3, 1, 0, 2)
    everywhere = ended.copy()
    rows = (everywhere["batch_size"] == 32) & (everywhere["epoch"] == everywhere["epoch"].max())
    everywhere.loc[rows & (everywhere["learning_rate"] != 0.01), "val_loss"] = np.inf
    assert chosen(analyze(everywhere, FEW))[32] == 0.01


def test_learning_rates_are_held_against_each_other_over_the_replicates_that_all_have_ended() -> None:
    """An unfinished third replicate, far better for all, has come to its end at the worst one only."""
    history = tried()
    third = (history["batch_size"] == 64) & (history["replicate"] == 3)
    lucky = third & (history["learning_rate"] == 0.005)
    history.loc[lucky, "selection_accuracy"] = 1.0
    running = history[~(third & ~lucky & (history["epoch"] > 4))]
    found = analyze(running, FEW)
    assert chosen(found)[64] == 0.02
    points = [point for point in found.learning_rates.points if point.batch_size == 64]
    assert [point.n_missing for point in points] == [0, 1, 1, 1]


def test_a_trial_that_runs_does_not_judge_its_learning_rate_where_each_has_an_end_of_its_own() -> None:
    """One at epoch 2 is far worse than any, one at epoch 5 far better; neither has ended."""
    history = tried()
    running = {"b64-lr0.02-r3": (2, 0.1), "b32-lr0.04-r3": (5, 1.0)}
    for name, (epoch, value) in running.items():
        at = history["trial"] == name
        history.loc[at, "selection_accuracy"] = value
        history = history[~(at & (history["epoch"] > epoch))]
    ended = frozenset(history["trial"]) - set(running)
    for names in (ended, ended - {"b32-lr0.04-r1", "b32-lr0.04-r2"}):
        plan = Plan({"one": "epochs", "two": "seconds"}, None, ended=names)
        found = analyze(history, FEW, RecipeFacts(plan=plan))
        assert chosen(found) == BEST
    points = {(point.batch_size, point.learning_rate): point for point in found.learning_rates.points}
    assert [points[key].n_missing for key in ((64, 0.02), (32, 0.04), (32, 0.01))] == [1, 3, 0]
    assert len(points[64, 0.02].finals) == 2


def test_a_best_learning_rate_at_the_edge_puts_the_recommendation_in_doubt() -> None:
    """With 0.0025 tried too, batch size 16 has its best within the grid and the status is firm."""
    edge, inside = (analyze(tried(grid=grid), FEW).recommendation for grid in (GRID, (0.0025, *GRID)))
    assert (edge.status, inside.status) == ("cannot_tell", "recommended")
    assert (inside.reasons, edge.choices) == ((), inside.choices)
    assert [reason.rule for reason in edge.reasons] == ["learning_rate_at_edge"]
    assert "The best learning rate at batch size 16 is at the edge" in edge.reasons[0].text
    assert edge.reasons[0].figures == (("n_batch_sizes", 1),)


@pytest.mark.parametrize("named", [True, False])
def test_a_warm_up_and_a_stage_without_a_grid_hide_no_learning_rate(named: bool) -> None:
    """The first stage has one for all, the second rises to the grid's in its second epoch."""
    history = tried(
        rate_of=lambda rate, epoch, stage: 1e-3 if stage == "one" else rate * min((epoch - 2) / 2, 1)
    )
    if named:
        history["grid_learning_rate"] = [
            float(name.split("lr")[1].split("-")[0]) for name in history["trial"]
        ]
    found = analyze(history, FEW)
    assert (chosen(found), found.learning_rates.stage) == (BEST, "two")


def test_a_grid_that_is_tried_at_one_learning_rate_so_far_is_one() -> None:
    """The trials of a run that has just begun, of which the name alone does not tell."""
    history = tried(grid=(0.01,)).assign(grid_learning_rate=0.01)
    found = analyze(history, FEW)
    assert chosen(found) == dict.fromkeys(BEST, 0.01)
    assert not any(point.at_edge for point in found.learning_rates.points)


@pytest.mark.parametrize(
    ("recipe", "how", "reason"),
    [
        (RecipeFacts(learning_rate_retuned=False), "same", "learning_rate_not_retuned"),
        (RecipeFacts(learning_rate_rule="linear"), "linear", "learning_rate_scaled"),
        (RecipeFacts(learning_rate_rule="sqrt"), "sqrt", "learning_rate_scaled"),
        (None, "differ", None),
    ],
)
def test_a_rule_is_told_as_a_rule_and_not_as_tuning(
    recipe: RecipeFacts | None, how: str, reason: str
) -> None:
    found = analyze(made_history(), FEW, recipe)
    assert (found.learning_rates.how, found.learning_rates.points) == (how, ())
    assert found.facts.learning_rate_retuned is (how == "differ")
    rules = {told.rule for told in found.recommendation.reasons}
    assert rules & {"learning_rate_not_retuned", "learning_rate_scaled"} == ({reason} if reason else set())
    assert (found.recommendation.status == "cannot_tell") >= bool(reason)


def test_trials_of_one_learning_rate_are_still_refused() -> None:
    history = tried(grid=(0.01,))
    twice = pd.concat([history, history.assign(trial=history["trial"] + "-again")])
    with pytest.raises(HistoryError, match=r"batch_size=16, replicate=1 .* column learning_rate"):
        analyze(twice, FEW)


@pytest.mark.parametrize(("column", "value"), [("selection_accuracy", 1.5), ("selection_accuracy", 1e39)])
def test_selection_figures_that_no_training_gives_are_refused(column: str, value: float) -> None:
    history = tried()
    history.loc[5, column] = value
    with pytest.raises(HistoryError, match=f"{column}.* but got"):
        analyze(history, FEW)


def test_nan_everywhere_chooses_and_says_nothing_finite() -> None:
    history = tried().assign(train_loss=np.nan)
    found = analyze(history, FEW)
    assert chosen(found) == dict.fromkeys(BEST, 0.005)  # a tie goes to the smallest
    assert found.verdict[0].rule == "nothing_finite"
    assert json.loads(to_json(found))["learning_rates"]["points"][0]["selection"]["mean"] is None
    assert all(figure.key != "learning-rates" for figure in all_figures(check_history(history), found))


def test_json_has_the_curve_over_the_grid() -> None:
    found = json.loads(to_json(analyze(tried(), FEW)))["learning_rates"]
    assert (found["how"], found["stage"], found["chosen_by"]) == ("grid", "one", "selection_accuracy")
    assert [point["learning_rate"] for point in found["points"] if point["chosen"]] == list(BEST.values())
    assert {len(point["finals"]) for point in found["points"]} == {3}
