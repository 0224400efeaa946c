"""What is known of a target's costs where validation is measured seldom."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from batchscope.analysis import Analysis, Plan, RecipeFacts, Settings, Target, analyze
from batchscope.analysis.measured_before import costs_before
from batchscope.analysis.to_target import trials_to_target
from batchscope.history import check_history
from to_target_samples import TARGET, planted_history, until_reached

GOAL = Target("val_accuracy", 0.8, 20)
COSTS = ("updates", "examples", "seconds")


def epochs_of(reached: dict[int, tuple[int, ...]], images: int = 1000) -> pd.DataFrame:
    """Trials measured once an epoch, the last short batch dropped, that end in these epochs."""
    rows = [
        {
            "trial": f"b{size}-r{replicate}",
            "batch_size": size,
            "replicate": replicate,
            "stage": "main",
            "epoch": epoch,
            "updates": (updates := epoch * (images // size)),
            "examples": updates * size,
            "seconds": updates * (0.02 + size * 1e-3),
            "val_accuracy": 0.81 if epoch == last else 0.5,
        }
        for size, each in reached.items()
        for replicate, last in enumerate(each, start=1)
        for epoch in range(1, last + 1)
    ]
    return check_history(pd.DataFrame(rows))


def found_in(history: pd.DataFrame) -> Analysis:
    plan = Plan({"main": "until"}, None, {"main": GOAL}, frozenset(history["trial"]))
    return analyze(history, Settings(resamples=100), RecipeFacts(plan=plan))


def rivals(found: Analysis) -> dict[str, tuple[int, tuple[int, ...]]]:
    return {choice.cost: (choice.batch_size, choice.rivals) for choice in found.recommendation.choices}


def texts(found: Analysis) -> dict[str, str]:
    return {sentence.rule: sentence.text for sentence in found.verdict}


@pytest.mark.parametrize("parts", [1, 4])
def test_the_measurement_before_the_end_is_that_of_the_first_good_one(parts: int) -> None:
    history = check_history(until_reached(planted_history((8, 64, 256), (0.1,), epochs=80, parts=parts)))
    before = costs_before(history, COSTS)
    last = history.groupby("trial").tail(1)
    known = before.loc[last.index].set_index(last["trial"])
    trials = trials_to_target(history, "val_accuracy", TARGET)
    assert {trial.outcome for trial in trials} == {"reached"}
    for trial in trials:
        spent = known.loc[trial.trial]
        assert spent["updates"] == trial.updates_before
        assert spent["examples"] == pytest.approx(trial.updates_before * trial.batch_size)
        assert spent["seconds"] == pytest.approx(trial.updates_before * (0.01 + trial.batch_size * 1e-4))


def test_rows_of_any_order_and_without_updates() -> None:
    history = epochs_of({16: (3, 2), 32: (2, 2)})
    mixed = history.sample(frac=1, random_state=3)
    assert costs_before(mixed, COSTS).loc[history.index].equals(costs_before(history, COSTS))
    assert costs_before(history, ["seconds"])["seconds"].equals(costs_before(history, COSTS)["seconds"])
    rows = costs_before(history, COSTS)[history["trial"] == "b16-r1"]
    assert rows["examples"].tolist() == [0, 992, 1984]


def test_batch_sizes_that_got_there_in_one_epoch_are_not_told_apart_by_its_dropped_tail() -> None:
    """By examples; 64 takes fewer updates than 16 and 32 had taken at the measurement before."""
    found = found_in(epochs_of(dict.fromkeys((16, 32, 48, 64), (3, 3, 3))))
    assert rivals(found) == {
        "updates": (64, (48,)),
        "examples": (48, (16, 32, 64)),
        "seconds": (64, (32, 48)),
    }


def test_what_is_measured_finer_is_told_apart_by_the_interval_at_both_measurements() -> None:
    reached = {16: (61, 66, 71), 32: (60, 65, 69), 64: (74, 76, 81)}
    history = epochs_of(reached)
    found = found_in(history)
    assert rivals(found)["examples"] == (32, (16,))
    last = history.groupby("trial").tail(1)
    table = last.pivot_table(index="replicate", columns="batch_size", values="examples")
    for size in (16, 64):
        lows = []
        for ago in (0, 1):
            ratio = np.log(table[size] - ago * (1000 // size * size)) - np.log(table[32])
            lows.append(scipy.stats.t.interval(0.95, 2, ratio.mean(), scipy.stats.sem(ratio))[0])
        assert (min(lows) > 0) == (size == 64)
        assert max(lows) > 0  # at the later measurement alone 16 would be told apart too


def test_a_trial_that_may_have_got_there_at_once_tells_no_batch_size_apart() -> None:
    """Its ratio has no lower end, and the interval of the others alone would leave that out."""
    history = epochs_of({16: (9, 9, 10), 64: (1, 1, 1)})
    assert rivals(found_in(history))["examples"] == (64, ())
    once = (history["trial"] == "b16-r3") & (history["epoch"] < 10)
    assert rivals(found_in(history[~once]))["examples"] == (64, (16,))


def test_updates_are_known_no_better_than_to_what_lies_between_two_measurements() -> None:
    found = found_in(epochs_of(dict.fromkeys((16, 64), (3, 3, 3))))
    assert texts(found)["few_replicates"] == (
        "With 3 replicates the mean updates to the target are known worst at batch size 16, 186 ±62 (from "
        "3 replicates); 10 replicates with the same spread would give ±62, the updates between two "
        "measurements."
    )
    [sentence] = [one for one in found.verdict if one.rule == "few_replicates"]
    figures = dict(sentence.figures)
    assert (figures["half_width"], figures["half_width_with_10"], figures["resolution"]) == (62, 62, 62)
    assert [row.resolution for row in found.to_goal] == [62, 15]


def test_where_trials_scatter_by_more_than_that_the_interval_is_students() -> None:
    found = found_in(epochs_of({64: (30, 40, 53), 128: (20, 21, 22)}))
    half = scipy.stats.t.ppf(0.975, 2) * scipy.stats.sem([30 * 15, 40 * 15, 53 * 15])
    assert f"worst at batch size 64, 615 ±{half:.0f} (from 3 replicates)" in texts(found)["few_replicates"]
    assert "between two measurements" not in texts(found)["few_replicates"]


def test_a_batch_size_that_never_got_there_and_a_history_without_updates_have_no_resolution() -> None:
    history = epochs_of({16: (3, 3, 3), 32: (4, 4, 4)})
    never = history.assign(val_accuracy=history["val_accuracy"].where(history["batch_size"] == 16, 0.5))
    assert math.isnan(found_in(never).to_goal[1].resolution or 0.0)
    bare = found_in(history.drop(columns="updates"))
    assert [row.resolution for row in bare.to_goal] == [None, None]
    assert rivals(bare)["examples"] == (16, (32,))
