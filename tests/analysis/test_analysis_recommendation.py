import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from analysis_samples import N_IMAGES, made_history, noisy
from batchscope.analysis import RecipeFacts, Settings, analyze, load_source
from batchscope.analysis.results import Recommendation


def _final(
    loss_of: dict[int, float], *, noise: float = 1e-4, reach: dict[int, int] | None = None
) -> pd.DataFrame:
    """Accuracy 0.9 less a loss by batch size, reached at a given epoch, hardly any noise."""

    def curve(b: int, r: int, e: int, u: float) -> float:
        late = 0.2 if e < (reach or {}).get(b, 1) else 0.0
        return 0.9 - loss_of[b] - late + noisy(b, r, e, noise)

    return made_history(tuple(loss_of), replicates=4, epochs=8, val=curve)


def _recommend(history: pd.DataFrame, **settings: float) -> Recommendation:
    return analyze(history, Settings(**settings)).recommendation


def _rules(history: pd.DataFrame, **settings: float) -> set[str]:
    return {reason.rule for reason in _recommend(history, **settings).reasons}


def test_the_largest_batch_within_the_margin_needs_the_fewest_updates() -> None:
    found = _recommend(_final({16: 0, 32: 0.001, 64: 0.002, 128: 0.02}))
    assert found.status == "recommended"
    assert found.best_batch_size == 16
    assert found.within_margin == (16, 32, 64)
    by = {choice.cost: choice for choice in found.choices}
    assert by["updates"].batch_size == 64
    assert (by["updates"].spent, by["updates"].best_spent) == (N_IMAGES // 64, N_IMAGES // 16)
    # Fewer seconds an epoch at larger batches, by construction of the sample.
    assert by["seconds"].batch_size == 64
    assert by["seconds"].spent == pytest.approx(1 + 100 / 64)


def test_costs_are_counted_up_to_the_epoch_from_which_the_margin_is_kept() -> None:
    found = _recommend(_final({16: 0, 32: 0, 64: 0.001}, reach={16: 2, 32: 3, 64: 8}))
    by = {choice.cost: choice for choice in found.choices}
    spent = {16: 2 * (N_IMAGES // 16), 32: 3 * (N_IMAGES // 32), 64: 8 * (N_IMAGES // 64)}
    cheapest = min(spent, key=lambda size: spent[size])
    assert (by["updates"].batch_size, by["updates"].spent) == (cheapest, spent[cheapest])
    # By examples, the batch size that gets there in the fewest epochs.
    assert (by["examples"].batch_size, by["examples"].epoch) == (16, 2)


@pytest.mark.parametrize(("behind", "expected"), [(0.00499, True), (0.005, True), (0.00501, False)])
def test_the_margin_at_its_edge(behind: float, expected: bool) -> None:
    history = _final({16: 0, 32: behind}, noise=0)
    assert (32 in _recommend(history).within_margin) == expected
    assert 32 in _recommend(history, margin=0.0051).within_margin


def test_a_loss_is_better_the_lower_it_is() -> None:
    history = _final({16: 0, 32: 0.1})
    found = _recommend(history, metric="val_loss")
    assert (found.best_batch_size, found.within_margin) == (16, (16,))
    assert found.best_mean == pytest.approx(0.1, abs=1e-3)
    assert found.status == "recommended"


@pytest.mark.parametrize(("replicates", "few"), [(1, True), (2, True), (3, False)])
def test_too_few_replicates(replicates: int, few: bool) -> None:
    history = _final({16: 0, 32: 0.02})
    rules = _rules(history[history.replicate <= replicates])
    assert ("too_few_replicates" in rules) == few


def test_replicates_that_are_not_shared_do_not_count() -> None:
    history = _final({16: 0, 32: 0.02})
    history.loc[history.batch_size == 32, "replicate"] += 4
    history["trial"] = [f"b{b}-r{r}" for b, r in zip(history.batch_size, history.replicate, strict=True)]
    found = _recommend(history)
    assert [dict(reason.figures)["fewest"] for reason in found.reasons] == [0]


@pytest.mark.parametrize(
    ("low", "high", "is_open"),
    [
        (-0.0049, 0.001, False),
        (-0.0051, 0.001, True),
        (-0.02, -0.0049, True),
        (-0.02, -0.0051, False),
    ],
)
def test_an_interval_that_crosses_the_margin_leaves_the_choice_open(
    low: float, high: float, is_open: bool
) -> None:
    # Differences of four replicates with exactly that t-interval.
    half = (high - low) / 2
    sd = half / scipy.stats.t.ppf(0.975, 3) * 2
    shape = np.array([-1, -1, 1, 1]) * sd * math.sqrt(3) / 2
    differences = (low + high) / 2 + shape

    def curve(b: int, r: int, e: int, u: float) -> float:
        return 0.9 + (differences[r - 1] if b == 32 else 0)

    found = _recommend(made_history((16, 32), 4, 4, val=curve))
    assert found.best_batch_size == 16
    reasons = {reason.rule: dict(reason.figures) for reason in found.reasons}
    assert ("interval_wider_than_margin" in reasons) == is_open
    if is_open:
        figures = reasons["interval_wider_than_margin"]
        assert (figures["low"], figures["high"]) == pytest.approx((low, high), abs=1e-12)


def test_one_learning_rate_for_all_batch_sizes_is_derived_from_the_history() -> None:
    history = _final({16: 0, 32: 0.02})
    assert analyze(history).facts.learning_rate_retuned is True
    same = history.assign(learning_rate=1e-3)
    assert analyze(same).facts.learning_rate_retuned is False
    assert _rules(same) == {"learning_rate_not_retuned"}
    assert "(0.001)" in _recommend(same).reasons[0].text


def test_the_recipe_overrules_what_the_history_suggests() -> None:
    same = _final({16: 0, 32: 0.02}).assign(learning_rate=1e-3)
    told = analyze(same, recipe=RecipeFacts(learning_rate_retuned=True))
    assert told.recommendation.status == "recommended"
    bare = same.drop(columns="learning_rate")
    assert analyze(bare).facts.learning_rate_retuned is None
    assert analyze(bare).recommendation.status == "recommended"
    assert (
        analyze(bare, recipe=RecipeFacts(learning_rate_retuned=False)).recommendation.status == "cannot_tell"
    )
    assert "learning_rate_unknown" in {sentence.rule for sentence in analyze(bare).verdict}


def _slope(per_epoch: float, noise: float) -> pd.DataFrame:
    def curve(b: int, r: int, e: int, u: float) -> float:
        tilt = noise * (-1 if r % 2 else 1) * (e - 8)
        return 0.9 + per_epoch * (e - 8) - (0.05 if b == 32 else 0) + (tilt if b == 16 else 0)

    return made_history((16, 32), 4, 8, val=curve)


@pytest.mark.parametrize(
    ("per_epoch", "noise", "rising"),
    [
        # The window is the last 4 of 8 epochs: 4 more epochs gain 4 times the slope.
        (0.00126, 1e-6, True),
        (0.00124, 1e-6, False),
        (-0.002, 1e-6, False),
        # Two of four replicates fall: the interval of the mean gain reaches below 0.
        (0.002, 0.01, True),
    ],
)
def test_still_rising_at_its_edges(per_epoch: float, noise: float, rising: bool) -> None:
    found = {reason.rule: reason for reason in _recommend(_slope(per_epoch, noise)).reasons}
    assert ("still_rising" in found) == rising
    if noise > 0.001:
        # Batch 16 scatters too much to be judged; batch 32 is the one named.
        assert dict(found["still_rising"].figures)["batch_size"] == 32
    elif rising:
        assert dict(found["still_rising"].figures)["gain"] == pytest.approx(4 * per_epoch, rel=1e-3)


def test_gain_agrees_with_scipys_regression() -> None:
    history = made_history((16, 32), 4, 8, val=lambda b, r, e, u: 0.8 + 0.003 * e + noisy(b, r, e, 1e-3))
    figures = dict(next(r for r in _recommend(history).reasons if r.rule == "still_rising").figures)
    cell = history[(history.batch_size == figures["batch_size"]) & (history.epoch > 4)]
    slopes = [
        scipy.stats.linregress(part.epoch, part.val_accuracy).slope for _, part in cell.groupby("replicate")
    ]
    assert figures["gain"] == pytest.approx(4 * np.mean(slopes), rel=1e-9)
    low = scipy.stats.ttest_1samp(4 * np.array(slopes), 0).confidence_interval(0.95).low
    assert figures["low"] == pytest.approx(low, rel=1e-6)


def test_a_stage_too_short_for_a_slope_is_not_judged() -> None:
    history = made_history((16, 32), 4, stages=(("a", 4), ("b", 4)), val=lambda b, r, e, u: 0.5 + 0.05 * e)
    assert "still_rising" not in _rules(history)


def test_one_batch_size_and_total_divergence() -> None:
    history = _final({16: 0, 32: 0.02})
    assert "one_batch_size" in _rules(history[history.batch_size == 16])
    found = _recommend(history.assign(train_loss=np.nan))
    assert found.status == "cannot_tell"
    assert (found.best_batch_size, found.within_margin, found.choices) == (None, (), ())
    assert math.isnan(found.best_mean)
    assert {reason.rule for reason in found.reasons} == {"no_finite_value"}


def test_a_batch_size_with_a_diverged_trial_is_not_recommended() -> None:
    history = _final({16: 0, 32: 0.001, 64: 0.002})
    history.loc[(history.batch_size == 64) & (history.replicate == 2) & (history.epoch > 5), "train_loss"] = (
        np.inf
    )
    found = _recommend(history)
    assert found.within_margin == (16, 32)
    assert {choice.batch_size for choice in found.choices} <= {16, 32}


def test_a_cost_with_gaps_picks_nothing_and_is_noted() -> None:
    history = _final({16: 0, 32: 0.001})
    history.loc[history.batch_size == 32, "seconds"] = np.nan
    analysis = analyze(history)
    assert [choice.cost for choice in analysis.recommendation.choices] == ["updates", "examples"]
    assert "column seconds has gaps" in next(n.text for n in analysis.notes if n.rule == "incomplete_costs")


def test_published_data_cannot_tell() -> None:
    found = _recommend(load_source("published"))
    assert found.status == "cannot_tell"
    assert (found.best_batch_size, found.within_margin) == (16, (16,))
    rules = [reason.rule for reason in found.reasons]
    assert rules == ["interval_wider_than_margin", "learning_rate_not_retuned"]
    assert dict(found.reasons[0].figures)["batch_size"] == 32
