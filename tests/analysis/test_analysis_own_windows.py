"""The last half of a stage where each trial has its own: what still rises, and who stands out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from analysis_samples import made_history, noisy
from batchscope.analysis import Plan, RecipeFacts, Settings, analyze
from batchscope.analysis.results import Sentence

FEW = Settings(resamples=100)
LAST = {1: 8, 2: 10, 3: 12, 4: 14}
SIZES = (16, 32, 64)
NAMES = [f"b{size}-r{replicate}" for size in SIZES for replicate in LAST]


def ended_apart(per_epoch: float = 0.0, dip: tuple[int, int] | None = None, before: int = 0) -> pd.DataFrame:
    """Trials whose last stage took 8, 10, 12 and 14 epochs at every batch size.

    Validation rises by `per_epoch` in the last half of each; one trial's training is worse there alone.
    """

    def val(b: int, r: int, e: int, u: float) -> float:
        half = before + LAST[r] // 2
        return 0.7 + per_epoch * max(e - half, 0) + noisy(b, r, e, 1e-4)

    def train(b: int, r: int, e: int, u: float) -> float:
        return 0.9 + noisy(b, r, 100 + e, 1e-3) - 0.1 * ((b, r) == dip and e > before + LAST[r] // 2)

    stages = (("one", before), ("two", 14)) if before else (("two", 14),)
    history = made_history(SIZES, 4, stages=stages, val=val, train=train)
    return history[history["epoch"] <= before + history["replicate"].map(LAST)].reset_index(drop=True)


def recipe(ended: list[str] = NAMES) -> RecipeFacts:
    budgets = {"one": "epochs", "two": "seconds"}
    return RecipeFacts(plan=Plan(budgets, None, ended=frozenset(ended)))  # type: ignore[arg-type]


def rising(history: pd.DataFrame, told: RecipeFacts) -> Sentence | None:
    reasons = analyze(history, FEW, told).recommendation.reasons
    return next((reason for reason in reasons if reason.rule == "still_rising"), None)


@pytest.mark.parametrize("before", [0, 2])
def test_each_trial_still_rises_over_its_own_last_half(before: int) -> None:
    history = ended_apart(0.004, before=before)
    found = rising(history, recipe())
    assert found is not None
    figures = dict(found.figures)
    gains = []
    for replicate, last in LAST.items():
        rows = history[(history["batch_size"] == figures["batch_size"]) & (history["replicate"] == replicate)]
        rows = rows[rows["epoch"] > before + last // 2]
        gains.append(scipy.stats.linregress(rows["epoch"], rows["val_accuracy"]).slope * (last // 2))
    assert figures["gain"] == pytest.approx(np.mean(gains), rel=1e-9)
    assert figures["gain"] == pytest.approx(0.004 * 5.5, abs=1e-3)
    low = scipy.stats.ttest_1samp(gains, 0).confidence_interval(0.95).low
    assert (figures["low"], figures["epochs"]) == (pytest.approx(low, rel=1e-6), 7)
    assert "another 4 to 7 epochs at the pace of the last as many would change it by 0.022" in found.text


def test_a_trial_that_goes_on_and_one_that_is_level_raise_nothing() -> None:
    assert rising(ended_apart(), recipe()) is None
    # Of batch size 16 all but one go on: one has no interval.
    others = [name for name in NAMES if not name.startswith("b16") or name == "b16-r1"]
    found = rising(ended_apart(0.004), recipe(others))
    assert found is not None
    assert found.text.startswith("The validation accuracy at batch size 32 and 64 is still")


def test_a_falling_loss_is_told_as_a_fall() -> None:
    history = ended_apart().assign(val_loss=lambda rows: 0.9 - 0.004 * rows["epoch"])
    reasons = analyze(history, Settings(resamples=100, metric="val_loss"), recipe()).recommendation.reasons
    assert "would change it by \u22120.022" in next(r.text for r in reasons if r.rule == "still_rising")


@pytest.mark.parametrize("before", [0, 2])
def test_a_trial_stands_out_over_its_own_last_half(before: int) -> None:
    """Replicate 1 ends six epochs ahead of the longest, so it has no figure in the latter's last half."""
    history = ended_apart(dip=(32, 1), before=before)
    found = analyze(history, FEW, recipe())
    assert [(flag.trial, flag.stage) for flag in found.flags] == [("b32-r1", "two")]
    flag = found.flags[0]
    assert (flag.first_epoch, flag.last_epoch) == (before + 5, before + 8)
    rows = history[history["batch_size"] == 32]
    means = {
        replicate: rows.loc[
            (rows["replicate"] == replicate) & (rows["epoch"] > before + last // 2), "train_accuracy"
        ].mean()
        for replicate, last in LAST.items()
    }
    assert flag.value == pytest.approx(means[1], rel=1e-12)
    assert flag.others == pytest.approx(np.mean([means[2], means[3], means[4]]), rel=1e-12)
    assert [check.n_tested for check in found.exchangeability] == [12] * (2 if before else 1)


def test_a_trial_that_goes_on_is_compared_in_the_stages_that_it_has_left() -> None:
    history = ended_apart(dip=(32, 1), before=2)
    found = analyze(history, FEW, recipe([name for name in NAMES if name != "b32-r1"]))
    assert [(check.n_tested, check.n_left_out) for check in found.exchangeability] == [(12, 0), (11, 1)]
    assert found.flags == ()
