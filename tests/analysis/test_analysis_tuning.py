"""Each batch size at the learning rate that gets to the target at which trials end in the fewest updates."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest

from batchscope.analysis import Analysis, Plan, RecipeFacts, Settings, Target, TargetSpec, analyze, to_json
from batchscope.analysis.tuning import choose_learning_rates
from batchscope.errors import HistoryError
from batchscope.history import check_history
from batchscope.report.tables import analysis_tables
from to_target_samples import TARGET, planted_history, until_reached

GOAL = Target("val_accuracy", TARGET, 16)
FEW = Settings(resamples=100, targets=(TargetSpec(metric="val_accuracy", value=TARGET),))
SIZES = (8, 32, 128)
# As `slowness` plants it.
BEST = {8: 0.1, 32: 0.1, 128: 1.0}


def ended(history: pd.DataFrame) -> pd.DataFrame:
    return check_history(until_reached(history).assign(stage="one"))


def known(names: frozenset[str], goal: Target = GOAL) -> RecipeFacts:
    return RecipeFacts(plan=Plan({"one": "until"}, None, {"one": goal}, names))


def chosen(analysis: Analysis) -> dict[int, float]:
    return {point.batch_size: point.learning_rate for point in analysis.learning_rates.chosen}


def said(analysis: Analysis) -> dict[str, str]:
    return {sentence.rule: sentence.text for sentence in (*analysis.verdict, *analysis.notes)}


@pytest.fixture(scope="module")
def whole() -> pd.DataFrame:
    """Measured four times an epoch, and long enough for every trial to get there."""
    return check_history(planted_history(SIZES, replicates=5, parts=4, epochs=40))


@pytest.fixture(scope="module")
def cut(whole: pd.DataFrame) -> pd.DataFrame:
    return ended(whole)


@pytest.fixture(scope="module")
def analysis(cut: pd.DataFrame) -> Analysis:
    return analyze(cut, FEW, known(frozenset(cut["trial"])))


def test_the_best_is_the_one_that_was_planted(analysis: Analysis) -> None:
    assert chosen(analysis) == BEST
    rates = analysis.learning_rates
    assert (rates.how, rates.chosen_by, rates.goal, rates.optimistic) == ("grid", "updates", GOAL, False)
    assert analysis.facts.learning_rate_retuned is True
    # Everything else is of the chosen trials.
    assert analysis.facts.n_trials == 15
    assert [row.n_reached for row in analysis.targets] == [5, 5, 5]


def test_medians_are_those_of_the_first_good_measurements(cut: pd.DataFrame, analysis: Analysis) -> None:
    """Of the last row of each trial, for there it ended; by a plain loop."""
    last = cut.groupby("trial").tail(1)
    assert (last["val_accuracy"] >= TARGET).all()
    assert (last["within_1_updates"].isna()).any()  # some ended by the first measurement of their epoch
    for point in analysis.learning_rates.points:
        here = last[(last["batch_size"] == point.batch_size) & (last["learning_rate"] == point.learning_rate)]
        assert point.to_target is not None
        assert point.to_target.updates.value == np.median(here["updates"])
        assert point.to_target.seconds is not None
        assert point.to_target.seconds.value == pytest.approx(np.median(here["seconds"]))
        assert point.metric.mean == pytest.approx(here["val_accuracy"].mean())
        assert (point.n_trials, point.n_missing, point.n_diverged) == (5, 0, 0)
        assert (point.selection, point.finals, point.passed_over) == (None, (), False)
        assert point.at_edge == ((point.batch_size, point.learning_rate) == (128, 1.0))
    assert len(analysis.learning_rates.points) == 9


def test_targets_choose_alike_whether_trials_end_there_or_go_on(
    whole: pd.DataFrame, analysis: Analysis
) -> None:
    on_the_way = analyze(whole, FEW).updates_to_target[0]
    for found in (analysis.updates_to_target[0], on_the_way):
        plain = [dataclasses.replace(row, efficiency=math.nan, seconds=None) for row in found.rates]
        points = [point.to_target for point in analysis.learning_rates.points]
        assert repr(plain) == repr([dataclasses.replace(row, seconds=None) for row in points if row])
    assert analysis.updates_to_target[0].trials == analysis.learning_rates.trials


def test_a_history_without_a_study_is_chosen_by_its_ends(cut: pd.DataFrame) -> None:
    rates = analyze(cut, FEW).learning_rates
    assert (rates.chosen_by, rates.goal, rates.trials) == ("val_accuracy", None, ())
    assert len(rates.optimism) == 3


def test_selection_figures_have_no_say_where_trials_end_at_a_target(cut: pd.DataFrame) -> None:
    history = cut.assign(selection_accuracy=1.0 - cut["learning_rate"] / 10)
    assert chosen(analyze(history, FEW, known(frozenset(history["trial"])))) == BEST


def test_a_loss_is_reached_from_above(cut: pd.DataFrame) -> None:
    goal = Target("val_loss", 1 - TARGET, 16)
    found = analyze(cut, FEW, known(frozenset(cut["trial"]), goal))
    assert chosen(found) == BEST
    assert "fewest updates to a validation loss of 0.150, at which" in said(found)["learning_rate_chosen"]


def test_what_is_said_tells_by_what_it_was_chosen_and_that_this_flatters(analysis: Analysis) -> None:
    text = said(analysis)["learning_rate_chosen"]
    assert text == (
        "Each batch size is compared at its own best of 3 learning rates (0.01 to 1), chosen by the fewest "
        "updates to a validation accuracy of 0.850, at which trials end (medians over replicates): 0.1 at "
        "batch size 8, 0.1 at batch size 32 and 1 at batch size 128."
    )
    assert "the largest, 1, at batch size 128" in said(analysis)["learning_rate_at_edge"]
    assert [reason.rule for reason in analysis.recommendation.reasons] == ["learning_rate_at_edge"]
    assert analysis.learning_rates.optimism == ()
    assert said(analysis)["learning_rate_optimism"].endswith(
        "so the updates, examples and seconds to it come out too few. By how much is not estimated."
    )


def test_the_luckiest_of_equal_learning_rates_comes_out_too_few() -> None:
    """So the note says; by simulation: three equal rates, of five trials each, at 200 batch sizes."""
    random = np.random.default_rng(3)
    rows = [
        (size, rate, replicate, int(1000 * np.exp(random.normal(0, 0.2))))
        for size in range(1, 201)
        for rate in (0.1, 0.2, 0.4)
        for replicate in range(1, 6)
    ]
    goal = Target("val_accuracy", 0.5, 9)
    found = choose_learning_rates(single_rows(rows), "val_accuracy", 0.95, goal=goal)
    assert found is not None
    best = np.array([point.to_target.updates.value for point in found.chosen if point.to_target])
    others = np.array([point.to_target.updates.value for point in found.points if point.to_target])
    assert np.log(others / 1000).mean() == pytest.approx(0, abs=0.02)
    assert np.log(best / 1000).mean() < -0.06


def single_rows(
    rows: list[tuple[int, float, int, int]], accuracy: dict[tuple[int, float, int], float] | None = None
) -> pd.DataFrame:
    """Trials of one epoch, from batch size, learning rate, replicate and updates; they reach 0.5."""
    table = pd.DataFrame(rows, columns=["batch_size", "grid_learning_rate", "replicate", "updates"])
    keys = [row[:3] for row in rows]
    return check_history(
        table.assign(
            trial=[f"b{size}-lr{rate:g}-r{replicate}" for size, rate, replicate in keys],
            epoch=1,
            stage="one",
            val_accuracy=[(accuracy or {}).get(key, 0.5) for key in keys],
        )
    )


def test_censored_diverged_and_running_trials_are_told_apart() -> None:
    """At 16 the slower rate got there more often; at 32 none has a median; at 64 two are equally fast."""
    updates = {
        (16, 0.1): (100, 900, 900),
        (16, 0.2): (300, 310, 320),
        (32, 0.1): (50, 60, 70),
        (32, 0.2): (500, 600, 700),
        (64, 0.1): (40, 44, 48),
        (64, 0.2): (44, 44, 44),
    }
    missed = {(16, 0.1, 2): 0.4, (16, 0.1, 3): np.nan, **{(32, 0.1, r): 0.4 for r in (1, 2, 3)}}
    missed |= {(32, 0.2, r): 0.4 for r in (2, 3)}
    rows = [
        (size, rate, replicate, spent)
        for (size, rate), each in updates.items()
        for replicate, spent in enumerate(each, start=1)
    ]
    history = single_rows(rows, missed)
    names = frozenset(history["trial"]) - {"b32-lr0.1-r3", "b32-lr0.2-r2"}
    found = analyze(history, Settings(resamples=100), known(names, Target("val_accuracy", 0.5, 1)))
    assert chosen(found) == {16: 0.2, 32: 0.2, 64: 0.1}
    points = {(point.batch_size, point.learning_rate): point for point in found.learning_rates.points}
    counts = {
        key: (point.to_target.n_reached, point.to_target.n_censored, point.n_diverged, point.n_missing)
        for key, point in points.items()
        if point.to_target
    }
    assert counts == {
        (16, 0.1): (1, 1, 1, 0),
        (16, 0.2): (3, 0, 0, 0),
        (32, 0.1): (0, 3, 0, 1),
        (32, 0.2): (1, 2, 0, 1),
        (64, 0.1): (3, 0, 0, 0),
        (64, 0.2): (3, 0, 0, 0),
    }
    # Of batch size 32 none is best by a median, so none is at the edge; of 16 the larger of two is.
    assert [key for key, point in points.items() if point.at_edge] == [(16, 0.2), (64, 0.1)]
    assert said(found)["learning_rate_chosen"].endswith(
        " At batch size 32 too few trials got there at any of them for a median; the one at which most did "
        "is taken, of equal ones the smallest."
    )


def test_before_any_trial_has_ended_the_smallest_is_taken_and_said_to_be() -> None:
    history = check_history(planted_history((8, 32), epochs=2).assign(stage="one"))
    found = analyze(history, FEW, known(frozenset()))
    assert chosen(found) == {8: 0.01, 32: 0.01}
    assert found.facts.goal is None  # so far, all are compared at the same epoch
    assert found.verdict[0].rule != "ends_at_target"
    assert "At batch size 8 and 32 too few trials got there" in said(found)["learning_rate_chosen"]
    assert {point.n_missing for point in found.learning_rates.points} == {3}


def test_updates_count_to_the_first_good_measurement_in_whichever_stage() -> None:
    """The faster rate is there in the first stage already, and takes longer to end in the second."""
    first = single_rows([(16, 0.1, 1, 10), (16, 0.2, 1, 10)], {(16, 0.1, 1): 0.4}).assign(stage="first")
    second = single_rows([(16, 0.1, 1, 20), (16, 0.2, 1, 30)]).assign(epoch=2)
    history = check_history(pd.concat([first, second]))
    plan = Plan(
        {"first": "epochs", "one": "until"},
        None,
        {"one": Target("val_accuracy", 0.5, 9)},
        frozenset(history["trial"]),
    )
    found = analyze(history, Settings(resamples=100), RecipeFacts(plan=plan))
    assert [trial.updates for trial in found.learning_rates.trials] == [20, 10]
    assert chosen(found) == {16: 0.2}


def test_one_learning_rate_so_far_flatters_nothing(cut: pd.DataFrame) -> None:
    single = cut[cut["learning_rate"] == 0.1]
    found = analyze(single, FEW, known(frozenset(single["trial"])))
    assert (chosen(found), found.learning_rates.chosen_by) == (dict.fromkeys(SIZES, 0.1), "updates")
    assert "learning_rate_optimism" not in said(found)


@pytest.mark.parametrize("missing", ["updates", "val_accuracy"])
def test_a_history_that_cannot_tell_is_refused(cut: pd.DataFrame, missing: str) -> None:
    history = cut.drop(columns=missing)
    with pytest.raises(HistoryError, match=f"by updates to a target needs the column {missing}"):
        analyze(history, dataclasses.replace(FEW, targets=()), known(frozenset(history["trial"])))


def test_one_learning_rate_twice_in_a_replicate_is_refused(cut: pd.DataFrame) -> None:
    again = cut[cut["trial"] == "b32-lr0.1-r1"].assign(trial="again")
    with pytest.raises(HistoryError, match=r"batch_size=32, replicate=1, learning_rate=0.1; keep one"):
        analyze(pd.concat([cut, again]), FEW, known(frozenset(cut["trial"]) | {"again"}))


def test_json_has_the_grid_by_updates(analysis: Analysis) -> None:
    found = json.loads(to_json(analysis))
    assert found["goal"] == {"metric": "val_accuracy", "value": TARGET, "epochs": 16}
    rates = found["learning_rates"]
    assert (rates["chosen_by"], rates["goal"], rates["optimism"]) == ("updates", found["goal"], [])
    best = [point for point in rates["points"] if point["chosen"]]
    assert [point["to_target"]["updates"]["value"] for point in best] == [
        row["updates"]["value"] for row in found["updates_to_target"][0]["rates"] if row["best"]
    ]
    assert len(rates["trials"]) == 45


def test_a_faster_rate_that_misses_the_target_does_not_shut_its_batch_size_out() -> None:
    """At 16 the rate 0.2 is faster by the median, and one of its trials diverged."""
    updates = {(16, 0.1): (110, 120, 130), (16, 0.2): (100, 104, 90)}
    updates |= {(32, 0.1): (150, 160, 170), (32, 0.2): (145, 165, 172)}
    rows = [
        (size, rate, replicate, spent)
        for (size, rate), each in updates.items()
        for replicate, spent in enumerate(each, start=1)
    ]
    history = single_rows(rows, {(16, 0.2, 3): np.nan})
    settings = dataclasses.replace(FEW, targets=(TargetSpec(metric="val_accuracy", value=0.5),))
    found = analyze(history, settings, known(frozenset(history["trial"]), Target("val_accuracy", 0.5, 1)))
    assert chosen(found) == {16: 0.1, 32: 0.1}
    assert found.recommendation.within_margin == (16, 32)
    assert said(found)["learning_rate_passed_over"] == (
        "Learning rates were passed over because more trials missed the target there, though the median is "
        "less than at the best: 0.2 at batch size 16 (1 of 3 missed it)."
    )
    passed = [
        (point.batch_size, point.learning_rate) for point in found.learning_rates.points if point.passed_over
    ]
    assert passed == [(16, 0.2)]
    [target] = found.updates_to_target  # the same, and so chosen alike
    assert [row.learning_rate for row in target.best] == [0.1, 0.1]
    tables = {table.key: table for table in analysis_tables(found)}
    for key in ("learning-rates", "updates-to-target-1"):
        remarks = [row[-1].text for row in tables[key].rows]
        assert remarks == ["best, at the edge", "passed over: missed", "best, at the edge", ""]
