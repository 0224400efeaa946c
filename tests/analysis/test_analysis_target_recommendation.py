"""What is found where trials end at a target: what it takes to get there, and nothing of how they end."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from batchscope.analysis import Analysis, Plan, RecipeFacts, Settings, Target, analyze
from batchscope.analysis.results import Recommendation
from batchscope.history import check_history
from batchscope.records import PEAK_MEMORY
from batchscope.report.tables import analysis_tables
from recipe_samples import recipe, until_history

FEW = Settings(resamples=100)
GOAL = Target("val_accuracy", 0.8, 20)
# Replicates share their luck, so that pairs tell apart what means alone would not.
UPDATES = {16: (1000, 1500, 2000), 32: (510, 770, 1000), 64: (500, 790, 990), 128: (400, 600, 900)}


def trials(
    updates: dict[int, tuple[int, ...]], missed: frozenset[str] = frozenset(), stage: str = "main"
) -> pd.DataFrame:
    """Each trial in one epoch, measured 10 updates before its end; larger batch sizes overshoot by more."""
    rows = [
        {
            "trial": f"b{size}-r{replicate}",
            "batch_size": size,
            "replicate": replicate,
            "stage": stage,
            "epoch": 1,
            "updates": spent,
            "examples": spent * size,
            "seconds": spent * (0.02 + size * 1e-3),
            "within_1_updates": spent - 10,
            "within_1_val_accuracy": 0.5,
            "val_accuracy": 0.8 + 0.0005 * size + 0.001 * replicate,
        }
        for size, each in updates.items()
        for replicate, spent in enumerate(each, start=1)
    ]
    history = pd.DataFrame(rows)
    history.loc[history["trial"].isin(missed), "val_accuracy"] = 0.7
    return check_history(history)


def found_in(history: pd.DataFrame, settings: Settings = FEW, goal: Target = GOAL) -> Analysis:
    plan = Plan({"first": "epochs", "main": "until"}, None, {"main": goal}, frozenset(history["trial"]))
    return analyze(history, settings, RecipeFacts(plan=plan))


def rules(found: Recommendation) -> list[str]:
    return [reason.rule for reason in found.reasons]


def test_each_cost_picks_the_least_mean_of_those_that_always_got_there() -> None:
    """Batch size 128 would be the cheapest, but one of its trials missed the target."""
    history = trials(UPDATES, frozenset({"b128-r2"}))
    found = found_in(history).recommendation
    assert (found.status, found.quantity, found.within_margin) == (
        "recommended",
        "val_accuracy",
        (16, 32, 64),
    )
    assert found.best_batch_size is None
    means = history.groupby("batch_size")[["updates", "examples", "seconds"]].mean().drop(index=128)
    picked = {choice.cost: (choice.batch_size, choice.spent) for choice in found.choices}
    assert picked == {
        cost: (int(means[cost].idxmin()), pytest.approx(means[cost].min())) for cost in means.columns
    }
    assert {cost: size for cost, (size, _) in picked.items()} == {
        "updates": 32,
        "examples": 16,
        "seconds": 32,
    }


def test_rivals_are_those_that_a_paired_test_of_ratios_does_not_tell_apart() -> None:
    history = trials({size: each for size, each in UPDATES.items() if size < 128})
    for choice in found_in(history).recommendation.choices:
        table = np.log(history.pivot_table(index="replicate", columns="batch_size", values=choice.cost))
        lows = {}
        for size in {16, 32, 64} - {choice.batch_size}:
            ratio = table[size] - table[choice.batch_size]
            lows[size] = scipy.stats.t.interval(0.95, 2, ratio.mean(), scipy.stats.sem(ratio))[0]
        assert choice.rivals == tuple(sorted(size for size, low in lows.items() if low <= 0))
    assert {choice.cost: choice.rivals for choice in found_in(history).recommendation.choices} == {
        "updates": (64,),
        "examples": (32,),
        "seconds": (),
    }


def test_the_verdict_speaks_of_the_way_to_the_target_alone() -> None:
    """Ends differ by far more than the margin, as a target that is measured rarely is overshot."""
    found = found_in(trials(UPDATES, frozenset({"b128-r2"})))
    texts = {sentence.rule: sentence.text for sentence in found.verdict}
    assert list(texts) == [
        "ends_at_target",
        "recommended",
        "target_missed",
        "target_reached",
        "few_replicates",
        "learning_rate_unknown",
    ]
    assert texts["ends_at_target"].startswith("Trials end when they reach a validation accuracy of 0.800: ")
    assert texts["recommended"] == (
        "Of batch size 16, 32 and 64, of which every trial reached the target, 32 takes the fewest updates "
        "(not told apart from 64); 16 takes the fewest examples (not told apart from 32); 32 takes the "
        "fewest seconds."
    )
    sem = {size: scipy.stats.sem(UPDATES[size]) for size in (16, 32, 64)}
    worst = max(sem, key=lambda size: sem[size] / np.mean(UPDATES[size]))
    half = scipy.stats.t.ppf(0.975, 2) * sem[worst]
    assert (
        f"known worst at batch size {worst}, {np.mean(UPDATES[worst]):,.0f} ±{half:,.0f} (from 3"
        in (texts["few_replicates"])
    )
    assert (found.comparisons, found.trend, found.spread.rows) == ((), (), ())
    assert found.spread.reason == "trials end at a target of it, which makes it alike"


def test_the_other_metric_is_compared_all_the_same() -> None:
    history = trials(UPDATES).assign(val_loss=lambda rows: 0.4 + rows["batch_size"] / 1000)
    found = found_in(history, goal=Target("val_loss", 0.6, 20))
    assert {row.quantity for row in (*found.comparisons, *found.trend)} == {"val_accuracy"}
    assert found.verdict[0].rule == "ends_at_target"
    assert found.recommendation.quantity == "val_loss"
    assert len(found.spread.rows) == 4


def test_too_few_replicates_or_none_that_always_got_there_recommend_nothing() -> None:
    two = found_in(trials({size: each[:2] for size, each in UPDATES.items()})).recommendation
    assert (two.status, rules(two)) == ("cannot_tell", ["too_few_replicates"])
    assert "batch size 16, 32, 64 and 128 have as few as 2." in two.reasons[0].text
    history = trials(UPDATES, frozenset(f"b{size}-r1" for size in UPDATES))
    none = found_in(history).recommendation
    assert (none.status, rules(none), none.choices) == ("cannot_tell", ["target_not_always_reached"], ())
    assert none.reasons[0].text == "At no batch size did every trial reach a validation accuracy of 0.800."


def test_one_batch_size_is_compared_with_none() -> None:
    found = found_in(trials({16: UPDATES[16]}))
    assert found.verdict[0].rule == "one_batch_size"
    assert rules(found.recommendation) == ["one_batch_size"]


def test_the_only_batch_size_that_always_got_there_is_named() -> None:
    found = found_in(trials(UPDATES, frozenset({"b16-r1", "b32-r1", "b128-r3"})))
    assert found.verdict[1].text == "Batch size 64 is the only one of which every trial reached the target."


def test_a_trial_that_was_lost_on_the_way_counts_as_one_that_did_not_get_there() -> None:
    """Replicate 1 of batch size 32 diverged in the first stage and never came to the second."""
    ahead = trials(UPDATES, stage="first").assign(val_accuracy=0.5, updates=10)
    later = trials(UPDATES).assign(epoch=2)
    ahead.loc[ahead["trial"] == "b32-r1", "val_accuracy"] = np.nan
    history = check_history(pd.concat([ahead, later[later["trial"] != "b32-r1"]]))
    found = found_in(history)
    assert [row.n_reached for row in found.to_goal] == [3, 2, 3, 3]
    assert found.recommendation.within_margin == (16, 64, 128)


def test_which_batch_size_for_what_goes_by_seconds_to_the_target() -> None:
    history = trials(UPDATES, frozenset({"b128-r2"})).assign(**{PEAK_MEMORY: 1e9})
    rows = found_in(history, Settings(resamples=100, price_per_hour=3.6)).practical
    means = history.groupby("batch_size")["seconds"].mean()
    assert [(row.batch_size, row.within_margin) for row in rows] == [
        (16, True),
        (32, True),
        (64, True),
        (128, False),
    ]
    assert [row.seconds for row in rows[:3]] == pytest.approx(means.loc[[16, 32, 64]].tolist())
    assert [row.price for row in rows[:3]] == pytest.approx((means.loc[[16, 32, 64]] / 1000).tolist())
    assert (rows[3].seconds, rows[3].price) == (None, None)
    assert [row.purposes for row in rows] == [(), ("fastest",), (), ()]


def test_tables_tell_of_the_target() -> None:
    tables = {
        table.key: table for table in analysis_tables(found_in(trials(UPDATES, frozenset({"b128-r2"}))))
    }
    assert not {"comparisons", "trend", "spread"} & set(tables)
    assert tables["practical"].columns == ("Batch size", "Seconds", "Peak memory", "Remark")
    assert [row[-1].text for row in tables["practical"].rows] == [
        "",
        "fastest to the target",
        "",
        "not always at the target",
    ]
    assert tables["choices"].title == "Cheapest batch size to the target"
    assert [[cell.text for cell in row] for row in tables["choices"].rows] == [
        ["updates", "32", "760", "64"],
        ["examples", "16", "24,000", "32"],
        ["seconds", "32", "39.5", ""],
    ]


def test_of_a_history_with_stages_ahead_the_targets_of_the_last_count() -> None:
    found = analyze(until_history(before=2), FEW, recipe())
    assert found.facts.goal == Target("val_accuracy", 0.9, 8)
    assert [row.stage for row in found.to_goal] == ["two"] * 4
    assert found.recommendation.within_margin == (16, 32)
    by_seconds = analyze(until_history(), FEW, recipe(budget="seconds"))
    assert (by_seconds.facts.goal, by_seconds.to_goal) == (None, ())
    assert by_seconds.verdict[0].rule != "ends_at_target"


def running(history: pd.DataFrame, going_on: set[str], planned: frozenset[tuple[int, int]]) -> Analysis:
    """Trials that go on are at 60 updates, below the target."""
    history = history.copy()
    at = history["trial"].isin(going_on)
    history.loc[at, ["updates", "within_1_updates", "val_accuracy"]] = (60, 50, 0.4)
    ended = frozenset(set(history["trial"]) - going_on)
    plan = Plan({"main": "until"}, None, {"main": GOAL}, ended, planned)
    return analyze(check_history(history), FEW, RecipeFacts(plan=plan))


def test_a_batch_size_that_still_trains_is_waited_for() -> None:
    history = trials({size: each for size, each in UPDATES.items() if size < 128})
    found = running(history, {"b64-r1", "b64-r2", "b64-r3"}, frozenset()).recommendation
    assert (found.status, rules(found), found.within_margin) == ("cannot_tell", ["still_running"], (16, 32))
    assert found.reasons[0].text == (
        "Trials that have not ended may still get to the target at less cost: 3 at batch size 64."
    )
    assert dict(found.reasons[0].figures) == {"n_trials": 3}
    # The others tell nothing of it: two that are there, one that goes on.
    found = running(history, {"b64-r3"}, frozenset()).recommendation
    assert rules(found) == ["still_running"]


def test_trials_that_are_still_to_begin_are_waited_for() -> None:
    history = trials({size: each for size, each in UPDATES.items() if size < 128})
    every = frozenset((size, replicate) for size in (16, 32, 64) for replicate in (1, 2, 3))
    assert running(history, set(), every).recommendation.status == "recommended"
    found = running(history, set(), every | {(32, 4), (128, 1), (128, 2)}).recommendation
    assert rules(found) == ["still_running"]
    assert found.reasons[0].text.endswith("at less cost: 1 at batch size 32 and 2 at batch size 128.")


def test_a_batch_size_that_missed_the_target_once_is_not_waited_for() -> None:
    """Nor one of which a trial diverged: neither can be recommended any more."""
    history = trials(UPDATES, frozenset({"b128-r2"}))
    history.loc[history["trial"] == "b64-r1", "val_accuracy"] = np.nan
    found = running(history, {"b128-r3", "b64-r2"}, frozenset({(64, 4)})).recommendation
    assert (found.status, found.within_margin) == ("recommended", (16, 32))


def test_what_took_equally_much_is_said_to() -> None:
    found = found_in(trials({16: (300, 302, 304), 32: (302, 302, 302)}))
    text = {sentence.rule: sentence.text for sentence in found.verdict}["target_reached"]
    assert text == (
        "The target of a validation accuracy of 0.800 in main was reached by every trial of batch size 16 "
        "and 32: with equally many updates at all of them (302); with the fewest examples at batch size 16 "
        "(4,832, against up to 9,664 at batch size 32); with the fewest seconds at batch size 16 (10.9, "
        "against up to 15.7 at batch size 32)."
    )
    nearly = found_in(trials({16: (3000, 3021, 3042), 32: (3021, 3021, 3022)}))  # means of 3021 and 3021.33
    text = {sentence.rule: sentence.text for sentence in nearly.verdict}["target_reached"]
    assert "with equally many updates at all of them (3,021)" in text
