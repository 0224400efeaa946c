import dataclasses
import itertools
import math

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests

from analysis_samples import made_history, noisy, plain_variance
from batchscope.analysis import Settings, analyze, load_source
from batchscope.analysis.comparisons import holm, paired_t, replicate_spread
from batchscope.analysis.panel import build_panel
from batchscope.analysis.results import Spread


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_comparisons_agree_with_scipy_and_statsmodels(confidence: float) -> None:
    history = load_source("published")
    found = analyze(history, Settings(confidence=confidence)).comparisons
    for quantity in ("val_accuracy", "gap"):
        table = history.assign(gap=history.train_accuracy - history.val_accuracy)
        table = table[table.epoch == 20].pivot_table(index="replicate", columns="batch_size", values=quantity)
        rows = [row for row in found if row.quantity == quantity]
        tests = [scipy.stats.ttest_rel(table[size], table[16]) for size in (32, 64, 128)]
        assert [row.p for row in rows] == pytest.approx([test.pvalue for test in tests], rel=1e-9)
        intervals = [test.confidence_interval(confidence) for test in tests]
        assert [row.low for row in rows] == pytest.approx([ends.low for ends in intervals], rel=1e-9)
        assert [row.high for row in rows] == pytest.approx([ends.high for ends in intervals], rel=1e-9)
        corrected = multipletests([test.pvalue for test in tests], method="holm")[1]
        assert [row.p_holm for row in rows] == pytest.approx(corrected, rel=1e-9)
        assert {row.n_pairs for row in rows} == {3}


@pytest.mark.parametrize("number", [1, 2, 3, 12])
def test_holm_agrees_with_statsmodels(number: int) -> None:
    random = np.random.default_rng(number)
    for _ in range(5):
        # Powers make small p-values, rounding makes ties, 0 and 1.
        p = np.round(random.random(number) ** random.integers(1, 6), 3)
        assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], rel=1e-12)


def test_holm_does_not_count_missing_tests() -> None:
    assert holm(np.array([np.nan, 0.02, 0.01])) == pytest.approx([np.nan, 0.02, 0.02], nan_ok=True)
    assert np.isnan(holm(np.array([np.nan]))).all()


def test_pairs_are_formed_by_replicate_and_incomplete_ones_left_out() -> None:
    history = made_history(batch_sizes=(16, 64), replicates=5, epochs=1)
    history = history[~((history.batch_size == 64) & (history.replicate == 2))]
    found = analyze(history).comparisons[0]
    table = history.pivot_table(index="replicate", columns="batch_size", values="val_accuracy").dropna()
    test = scipy.stats.ttest_rel(table[64], table[16])
    assert found.n_pairs == 4
    assert found.p == pytest.approx(test.pvalue, rel=1e-9)


@pytest.mark.parametrize("replicates", [1, 2])
def test_below_two_pairs_there_is_a_reason_instead_of_a_test(replicates: int) -> None:
    found = analyze(made_history(replicates=replicates, epochs=1)).comparisons
    for row in found:
        assert math.isfinite(row.difference)
        assert (row.reason is None) == (replicates == 2)
        assert math.isnan(row.p) == (replicates == 1)
        assert math.isnan(row.low) == (replicates == 1)


def test_equal_differences_have_no_p() -> None:
    n, mean, low, high, p = paired_t(np.array([[0.1, 0.1, 0.1], [0.3 - 0.2, 0.1, 0.4 - 0.3]]), 0.95)
    assert n.tolist() == [3, 3]
    assert mean == pytest.approx([0.1, 0.1])
    assert np.concatenate([low, high]) == pytest.approx([0.1] * 4)
    assert np.isnan(p).all()
    history = made_history(batch_sizes=(8, 16), val=lambda b, *_: 0.5 + b / 100, epochs=1)
    assert "same in all replicates" in (analyze(history).comparisons[0].reason or "")


def _page_by_enumeration(values: np.ndarray, *, increasing: bool) -> tuple[float, float]:
    """Page's L and its exact p: every ordering of ranks in every replicate is equally likely."""
    k = values.shape[1]
    ranks = scipy.stats.rankdata(values if increasing else -values, axis=1)
    statistic = float((ranks * np.arange(1, k + 1)).sum())
    one = [
        sum(rank * (i + 1) for i, rank in enumerate(order))
        for order in itertools.permutations(range(1, k + 1))
    ]
    totals = [sum(chosen) for chosen in itertools.product(one, repeat=len(values))]
    return statistic, sum(total >= statistic for total in totals) / len(totals)


@pytest.mark.parametrize("seed", range(3))
def test_page_agrees_with_enumeration(seed: int) -> None:
    shift = seed * 1e-3
    history = made_history(
        replicates=3, epochs=1, val=lambda b, r, *_: 0.9 - shift * math.log2(b) + noisy(b, r, seed, 2e-3)
    )
    found = {trend.quantity: trend for trend in analyze(history).trend}
    table = history.assign(gap=history.train_accuracy - history.val_accuracy)
    for quantity, increasing in (("val_accuracy", False), ("gap", True)):
        wide = table.pivot_table(index="replicate", columns="batch_size", values=quantity).to_numpy()
        statistic, p = _page_by_enumeration(wide, increasing=increasing)
        trend = found[quantity]
        assert trend.direction == ("increasing" if increasing else "decreasing")
        assert (trend.statistic, trend.p) == pytest.approx((statistic, p), rel=1e-12)
        assert (trend.method, trend.n_replicates, trend.n_left_out) == ("exact", 3, 0)


def test_page_is_tested_in_the_expected_direction_only() -> None:
    falling = made_history(epochs=1, val=lambda b, r, *_: 0.9 - 0.01 * math.log2(b) + noisy(b, r, 1, 1e-4))
    rising = made_history(epochs=1, val=lambda b, r, *_: 0.8 + 0.01 * math.log2(b) + noisy(b, r, 1, 1e-4))
    assert analyze(falling).trend[0].p == pytest.approx(1 / 24**3)
    assert analyze(rising).trend[0].p == pytest.approx(1)
    loss = analyze(falling, Settings(metric="val_loss")).trend[0]
    assert (loss.direction, loss.p) == ("increasing", pytest.approx(1 / 24**3))


def test_page_uses_complete_replicates_and_says_so() -> None:
    history = made_history(replicates=4, epochs=2)
    history.loc[(history.batch_size == 32) & (history.replicate == 2) & (history.epoch == 2), "val_loss"] = (
        np.nan
    )
    analysis = analyze(history)
    trend = analysis.trend[0]
    assert (trend.n_replicates, trend.n_left_out) == (3, 1)
    complete = history[history.replicate != 2]
    assert trend.p == analyze(complete).trend[0].p
    assert "trend_left_out" in {note.rule for note in analysis.notes}


@pytest.mark.parametrize(
    ("batch_sizes", "replicates", "reason"),
    [((16, 32), 3, "3 batch sizes"), ((16, 32, 64), 1, "2 replicates")],
)
def test_page_gives_a_reason_where_it_cannot_be_computed(
    batch_sizes: tuple[int, ...], replicates: int, reason: str
) -> None:
    trend = analyze(made_history(batch_sizes, replicates, 1)).trend[0]
    assert math.isnan(trend.p)
    assert math.isnan(trend.statistic)
    assert trend.method is None
    assert reason in (trend.reason or "")


def test_spread_agrees_with_references() -> None:
    history = load_source("published")
    final = history[history.epoch == 20]
    groups = {size: part.val_accuracy.to_numpy() for size, part in final.groupby("batch_size")}
    spread = analyze(history).spread
    sds = [math.sqrt(plain_variance(list(values))) for values in groups.values()]
    assert [row.sd for row in spread.rows] == pytest.approx(sds, rel=1e-12)
    line = scipy.stats.linregress(np.log2(list(groups)), np.log2(sds))
    assert spread.factor_per_doubling == pytest.approx(2**line.slope, rel=1e-12)
    deviations = [np.abs(values - np.median(values)) for values in groups.values()]
    anova = scipy.stats.f_oneway(*deviations)
    assert (spread.statistic, spread.p) == pytest.approx((anova.statistic, anova.pvalue), rel=1e-9)


def test_planted_growth_of_the_spread_is_found() -> None:
    history = made_history(
        replicates=12,
        epochs=1,
        val=lambda b, r, *_: 0.7 + b / 16 * 1e-3 * ((r - 6.5) / 3.6 + noisy(b, r, 9, 0.05)),
    )
    spread = analyze(history).spread
    assert spread.factor_per_doubling == pytest.approx(2, rel=0.05)
    assert spread.p < 1e-4


def test_spread_without_variation_or_replicates_has_a_reason() -> None:
    alone = analyze(made_history(replicates=1, epochs=1)).spread
    assert "at least 3 replicates" in (alone.reason or "")
    assert math.isnan(alone.p)
    assert math.isnan(alone.factor_per_doubling)
    constant = analyze(made_history(epochs=1, val=lambda b, *_: b / 1000)).spread
    assert [row.sd for row in constant.rows] == [0, 0, 0, 0]
    assert math.isnan(constant.factor_per_doubling)
    assert "equally far" in (constant.reason or "")


def _spreads_of_noise(replicates: int, histories: int) -> list[tuple[np.ndarray, Spread]]:
    """Batch sizes that differ in nothing: values (B, R) at the end, and what is made of them."""
    random = np.random.default_rng(replicates)
    panel = build_panel(made_history(replicates=replicates, epochs=1))
    found = []
    for _ in range(histories):
        values = random.normal(0.9, 0.01, (4, replicates))
        metrics = {"val_accuracy": values[:, :, None]}
        found.append((values, replicate_spread(dataclasses.replace(panel, metrics=metrics), "val_accuracy")))
    return found


def test_two_replicates_give_no_test_of_the_spread() -> None:
    for _, spread in _spreads_of_noise(2, 300):
        assert "at least 3 replicates, but has 0" in (spread.reason or "")
        assert math.isnan(spread.p)
        assert math.isnan(spread.statistic)


@pytest.mark.parametrize("replicates", [3, 4])
def test_few_replicates_hold_the_level_of_the_test_of_the_spread(replicates: int) -> None:
    found = _spreads_of_noise(replicates, 300)
    # 99.9% of binomial(300, 0.05) lie below 28.
    assert sum(spread.p < 0.05 for _, spread in found) < 28
    for values, spread in found[:20]:
        assert spread.p == pytest.approx(scipy.stats.levene(*values, center="median").pvalue, rel=1e-9)


def test_batch_sizes_with_two_replicates_take_no_part_in_the_test_of_the_spread() -> None:
    history = made_history(replicates=4, epochs=1)
    history = history[(history.batch_size > 16) | (history.replicate <= 2)]
    spread = analyze(history).spread
    groups = [part.val_accuracy for size, part in history.groupby("batch_size") if size > 16]
    assert spread.p == pytest.approx(scipy.stats.levene(*groups, center="median").pvalue, rel=1e-9)
    assert [row.n for row in spread.rows] == [2, 4, 4, 4]


def test_distances_equal_but_for_rounding_have_no_test() -> None:
    # 0.8 + 0.1 and 0.9, 0.7 + 0.1 and 0.8 differ in their last bits.
    values = {16: (0.7, 0.7, 0.7 + 0.1, 0.8), 32: (0.5, 0.5, 0.9, 0.8 + 0.1)}
    history = made_history((16, 32), 4, 1, val=lambda b, r, *_: values[b][r - 1])
    spread = analyze(history).spread
    assert "equally far" in (spread.reason or "")
    assert math.isnan(spread.p)
