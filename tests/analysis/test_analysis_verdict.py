import dataclasses
import math
import re

import numpy as np
import pandas as pd
import pytest

from analysis_samples import made_history, noisy
from batchscope.analysis import Analysis, Sentence, Settings, analyze, load_source
from batchscope.analysis.verdict import draw_verdict


@pytest.fixture(scope="module")
def published() -> Analysis:
    return analyze(load_source("published"))


def _rules(analysis: Analysis) -> list[str]:
    return [sentence.rule for sentence in draw_verdict(analysis)]


def _sentence(analysis: Analysis, rule: str) -> Sentence:
    return next(sentence for sentence in draw_verdict(analysis) if sentence.rule == rule)


def _with_share(analysis: Analysis, share: float, low: float, high: float) -> Analysis:
    first = dataclasses.replace(
        analysis.updates_share[0],
        share=share,
        low=low,
        high=high,
        share_alike=share,
        low_alike=low,
        high_alike=high,
    )
    return dataclasses.replace(analysis, updates_share=(first, *analysis.updates_share[1:]))


def _with_gaps(analysis: Analysis, smallest: float, largest: float) -> Analysis:
    """Moves the mean gap of the smallest and the largest batch size at the end."""
    rows = []
    for row in analysis.summary:
        assert row.gap is not None
        mean = {16: smallest, 128: largest}.get(row.batch_size, row.gap.mean)
        rows.append(dataclasses.replace(row, gap=dataclasses.replace(row.gap, mean=mean)))
    return dataclasses.replace(analysis, summary=tuple(rows))


def test_published_verdict_in_order(published: Analysis) -> None:
    assert [sentence.rule for sentence in published.verdict] == [
        "gap_follows_updates",
        "cannot_tell",
        "replicates_flagged",
        "comparison_different",
        "comparison_different",
        "trend_found",
        "trend_found",
        "stage_share",
        "spread_not_shown",
        "few_replicates",
    ]


def test_published_first_sentence_tells_that_the_gap_follows_updates(published: Analysis) -> None:
    text = published.verdict[0].text
    assert text.startswith("What looks like a generalization gap follows the number of updates: ")
    for figure in (
        "0.008 at batch size 16",
        "0.256 at batch size 128",
        "88% (95% interval ",
        "feature_extraction",
    ):
        assert figure in text
    figures = dict(published.verdict[0].figures)
    assert figures["gap_at_larger"] == pytest.approx(0.25606, abs=1e-5)
    assert figures["share"] == published.updates_share[0].share


def test_every_sentence_carries_the_numbers_it_shows(published: Analysis) -> None:
    for sentence in published.verdict:
        values = [value for _, value in sentence.figures if isinstance(value, int | float)]
        shown = {f"{value:.3f}" for value in values} | {f"{100 * value:.0f}%" for value in values}
        text = sentence.text.replace("\u2212", "-")
        for number in re.findall(r"-?\b\d\.\d{3}\b|-?\b\d+%(?! interval)", text):
            assert number in shown, (sentence.rule, number)


@pytest.mark.parametrize(
    ("share", "low", "high", "rule"),
    [
        (0.5, 1e-9, 0.9, "gap_follows_updates"),
        (0.499, 1e-9, 0.9, "gap_may_follow_updates"),
        (0.9, 0.0, 0.95, "gap_may_follow_updates"),
        (0.9, math.nan, math.nan, "gap_may_follow_updates"),
        (0.4, 0.2, 0.5, "gap_may_follow_updates"),
        (0.4, 0.2, 0.499, "gap_beyond_updates"),
        (-0.5, -1.0, 0.1, "gap_beyond_updates"),
    ],
)
def test_edges_of_the_share(published: Analysis, share: float, low: float, high: float, rule: str) -> None:
    assert _rules(_with_share(published, share, low, high))[0] == rule


@pytest.mark.parametrize(
    ("alike", "high_alike", "rule"),
    [
        (0.5, 0.9, "gap_follows_updates"),
        (0.499, 0.9, "gap_may_follow_updates"),
        (0.4, 0.499, "gap_beyond_updates"),
        (math.nan, math.nan, "gap_may_follow_updates"),
    ],
)
def test_the_share_like_for_like_must_agree(
    published: Analysis, alike: float, high_alike: float, rule: str
) -> None:
    first = dataclasses.replace(published.updates_share[0], share_alike=alike, high_alike=high_alike)
    changed = dataclasses.replace(published, updates_share=(first, *published.updates_share[1:]))
    assert _rules(changed)[0] == rule
    assert "nan" not in draw_verdict(changed)[0].text
    # The first share, 88%, speaks against what the second decides.
    assert (", although in feature_extraction, 88%" in draw_verdict(changed)[0].text) == (high_alike == 0.499)


@pytest.mark.parametrize(
    ("largest", "rule"),
    [
        (0.10501, "gap_follows_updates"),
        (0.105, "gap_follows_updates"),
        (0.10499, "gap_steady"),
        (0.09501, "gap_steady"),
        (0.095, "gap_shrinks"),
        (0.094, "gap_shrinks"),
    ],
)
def test_edges_of_the_margin(published: Analysis, largest: float, rule: str) -> None:
    assert _rules(_with_gaps(published, 0.1, largest))[0] == rule


def test_without_a_share_the_gap_only_grows(published: Analysis) -> None:
    without = _with_share(published, math.nan, math.nan, math.nan)
    without = dataclasses.replace(without, updates_share=without.updates_share[:1])
    sentence = draw_verdict(without)[0]
    assert sentence.rule == "gap_grows"
    assert "cannot be told" in sentence.text


def test_a_negative_share_reads_as_more_variance(published: Analysis) -> None:
    text = draw_verdict(_with_share(published, -0.5, -1.0, 0.1))[0].text
    assert "1.5 times as large (explained share \u221250% (95% interval \u2212100% to 10%); among" in text


@pytest.mark.parametrize(("low", "wide"), [(0.39, True), (0.41, False)])
def test_a_wide_interval_is_called_wide(published: Analysis, low: float, wide: bool) -> None:
    text = draw_verdict(_with_share(published, 0.88, low, 0.9))[0].text
    assert ("The intervals are wide" in text) == wide


def _with_interval(analysis: Analysis, low: float, high: float) -> Analysis:
    """Moves the interval of the gap's difference at batch size 128."""
    changed = tuple(
        dataclasses.replace(found, low=low, high=high)
        if (found.quantity, found.batch_size) == ("gap", 128)
        else found
        for found in analysis.comparisons
    )
    return dataclasses.replace(analysis, comparisons=changed)


@pytest.mark.parametrize(
    ("largest", "low", "high", "rule"),
    [
        (0.3, 1e-6, 0.4, "gap_follows_updates"),
        (0.3, 0.0, 0.4, "gap_undecided"),
        (0.3, -1e-6, 0.4, "gap_undecided"),
        (0.05, -0.1, -1e-6, "gap_shrinks"),
        (0.05, -0.1, 0.0, "gap_undecided"),
        (0.101, -0.0049, 0.0049, "gap_steady"),
        (0.101, -0.0049, 0.005, "gap_undecided"),
        (0.099, -0.005, 0.0049, "gap_undecided"),
        (0.104, 1e-6, 0.008, "gap_steady"),
        (0.3, math.nan, math.nan, "gap_follows_updates"),
    ],
)
def test_edges_of_a_difference_that_may_be_chance(
    published: Analysis, largest: float, low: float, high: float, rule: str
) -> None:
    changed = _with_interval(_with_gaps(published, 0.1, largest), low, high)
    sentence = draw_verdict(changed)[0]
    assert sentence.rule == rule
    undecided = sentence.text.startswith(
        "These data cannot tell whether the observed gap depends on batch size"
    )
    assert undecided == (rule == "gap_undecided")
    assert ("chance cannot be ruled out" in sentence.text) == math.isnan(low)


def test_an_undecided_gap_word_for_word(published: Analysis) -> None:
    changed = _with_interval(_with_gaps(published, 0.089, 0.015), -0.17, 0.022)
    bare = dataclasses.replace(changed, updates_share=())
    told = (
        "These data cannot tell whether the observed gap depends on batch size: at epoch 20 it is 0.089 at "
        "batch size 16 and 0.015 at batch size 128, a difference of \u22120.074 (95% interval "
        "\u22120.170 to 0.022)."
    )
    assert draw_verdict(bare)[0].text == told
    sentence = draw_verdict(changed)[0]
    assert sentence.text.startswith(f"{told} In feature_extraction, 88% (95% interval ")
    assert dict(sentence.figures)["share"] == published.updates_share[0].share


def test_the_stage_with_the_largest_differences_is_in_the_headline(published: Analysis) -> None:
    first, second = published.updates_share
    swapped = (dataclasses.replace(first, variance_at_matched_epochs=1e-6), second)
    changed = dataclasses.replace(published, updates_share=swapped)
    assert dict(draw_verdict(changed)[0].figures)["stage"] == "fine_tuning"
    assert dict(_sentence(changed, "stage_share").figures)["stage"] == "feature_extraction"


def test_without_training_accuracy_the_metric_takes_the_gaps_place() -> None:
    sentence = analyze(load_source("published").drop(columns="train_accuracy")).verdict[0]
    assert sentence.rule == "metric_follows_updates"
    assert (
        "validation accuracy at epoch 20 is 0.980 at batch size 16 and 0.736 at batch size 128"
        in sentence.text
    )
    loss = analyze(load_source("published"), Settings(metric="val_loss"))
    assert loss.verdict[0].rule.startswith("gap_")


def test_no_gap_is_said_and_what_is_not_excluded() -> None:
    sentence = analyze(made_history(replicates=3, epochs=4)).verdict[0]
    assert sentence.rule == "gap_steady"
    assert "less than the margin of 0.005" in sentence.text
    noisy_history = made_history(epochs=4, val=lambda b, r, e, u: 0.8 + noisy(b, r, e, 0.02))
    noisy_history["train_accuracy"] = noisy_history.val_accuracy
    spread = noisy_history.batch_size == 128
    noisy_history.loc[spread, "val_accuracy"] += 0.03 * (noisy_history.replicate[spread] - 2)
    assert analyze(noisy_history).verdict[0].rule == "gap_undecided"


def test_an_undecided_metric_gives_its_own_difference() -> None:
    """Accuracy falls where larger batches do harm: the interval is not the harm's."""
    history = made_history(replicates=4, epochs=1, val=lambda b, r, *_: 0.8 + 0.01 * (b == 128) * (2 * r - 7))
    analysis = analyze(history.drop(columns="train_accuracy"))
    found = next(row for row in analysis.comparisons if row.batch_size == 128)
    assert (found.difference, found.low < 0 < found.high) == (pytest.approx(-0.02), True)
    sentence = analysis.verdict[0]
    assert sentence.rule == "metric_undecided"
    ends = f"\u2212{-found.low:.3f} to {found.high:.3f}"
    assert f"a difference of \u22120.020 (95% interval {ends})." in sentence.text
    assert dict(sentence.figures)["harm_low"] == pytest.approx(-found.high)


def test_a_small_sure_difference_tells_what_is_not_excluded(published: Analysis) -> None:
    changed = _with_interval(_with_gaps(published, 0.1, 0.104), 0.001, 0.008)
    sentence = draw_verdict(changed)[0]
    assert sentence.rule == "gap_steady"
    assert "may still be worse by as much as 0.008 (95% interval 0.001 to 0.008)" in sentence.text


def test_a_gap_that_shrinks_is_said() -> None:
    history = made_history(epochs=4, val=lambda b, r, e, u: 0.7 + 0.02 * math.log2(b) + noisy(b, r, e, 1e-3))
    sentence = analyze(history).verdict[0]
    assert sentence.rule == "gap_shrinks"
    assert "narrower at larger batches" in sentence.text


def test_one_batch_size_and_nothing_finite() -> None:
    history = made_history(epochs=3)
    alone = analyze(history[history.batch_size == 32])
    assert alone.verdict[0].rule == "one_batch_size"
    assert alone.comparisons == ()
    lost = analyze(history.assign(val_loss=np.nan))
    assert lost.verdict[0].rule == "nothing_finite"
    assert "12 trials of 12 diverged" in _sentence(lost, "diverged").text


def test_one_replicate_says_that_chance_is_not_ruled_out() -> None:
    analysis = analyze(load_source("published").query("replicate == 2"))
    assert analysis.verdict[0].rule == "gap_may_follow_updates"
    assert "(no interval)" in analysis.verdict[0].text
    assert "chance cannot be ruled out" in analysis.verdict[0].text
    assert "one replicate" in _sentence(analysis, "few_replicates").text


@pytest.mark.parametrize(("p", "rule"), [(0.0499, "trend_found"), (0.05, "trend_not_shown")])
def test_edges_of_the_trend(published: Analysis, p: float, rule: str) -> None:
    changed = tuple(dataclasses.replace(trend, p=p) for trend in published.trend)
    assert _rules(dataclasses.replace(published, trend=changed)).count(rule) == 2


@pytest.mark.parametrize(("p", "rule"), [(0.0499, "comparison_different"), (0.05, "comparison_none")])
def test_edges_of_the_comparisons(published: Analysis, p: float, rule: str) -> None:
    changed = tuple(dataclasses.replace(found, p_holm=p) for found in published.comparisons)
    assert _rules(dataclasses.replace(published, comparisons=changed)).count(rule) == 2


@pytest.mark.parametrize(
    ("p", "factor", "rule"),
    [
        (0.0499, 1.2, "spread_grows"),
        (0.0499, 0.8, "spread_shrinks"),
        (0.05, 1.2, "spread_not_shown"),
    ],
)
def test_edges_of_the_spread(published: Analysis, p: float, factor: float, rule: str) -> None:
    spread = dataclasses.replace(published.spread, p=p, factor_per_doubling=factor)
    assert rule in _rules(dataclasses.replace(published, spread=spread))


@pytest.mark.parametrize(("replicates", "few"), [(4, True), (5, False)])
def test_edges_of_few_replicates(replicates: int, few: bool) -> None:
    analysis = analyze(made_history(replicates=replicates, epochs=2))
    assert ("few_replicates" in _rules(analysis)) == few


def test_few_replicates_gives_the_half_width_that_scipy_gives(published: Analysis) -> None:
    figures = dict(_sentence(published, "few_replicates").figures)
    row = published.final[-1].val_accuracy
    assert row is not None
    assert figures["half_width"] == pytest.approx((row.high - row.low) / 2, rel=1e-12)
    # 2.2622 is the 97.5% quantile of Student's t with 9 degrees of freedom.
    assert figures["half_width_with_10"] == pytest.approx(2.2622 * row.sd / math.sqrt(10), rel=1e-4)


@pytest.mark.parametrize(("margin", "wide"), [(0.088, True), (0.09, False)])
def test_intervals_within_the_margin_are_not_called_wide(margin: float, wide: bool) -> None:
    text = _sentence(analyze(load_source("published"), Settings(margin=margin)), "few_replicates").text
    opening = "intervals are wide" if wide else "the widest interval is within the margin of 0.09"
    assert text.startswith(f"With 3 replicates {opening}: the mean validation accuracy at batch size 128 is")


def test_alike_replicates_are_said_to_be_alike() -> None:
    assert "12 trials compared" in _sentence(analyze(made_history(epochs=4)), "replicates_alike").text


def test_a_recommendation_names_the_cheapest_by_each_cost() -> None:
    def history_of(behind: float) -> pd.DataFrame:
        """Batch size 32 ends that far behind 16."""
        return made_history(
            (16, 32), 4, 8, val=lambda b, r, e, u: 0.9 - behind * (b == 32) + noisy(b, r, e, 1e-4)
        )

    history = history_of(0.001)
    assert _sentence(analyze(history), "recommended").text.endswith(
        "Batch size 32 gets there with the fewest updates (437; the best one took 875), examples (13,984; "
        "the best one took 14,000) and seconds (4.12; the best one took 7.25)."
    )
    # Where batch size 32 takes twice the examples, 16 is the cheapest by these.
    dear = history.assign(examples=history["examples"] * (1 + (history["batch_size"] == 32)))
    assert (
        "); batch size 16 gets there with the fewest examples (14,000)."
        in _sentence(analyze(dear), "recommended").text
    )
    # Where the best is the cheapest too, it is not held against itself.
    assert _sentence(analyze(history_of(-0.001)), "recommended").text.endswith(
        "Batch size 32 gets there with the fewest updates (437), examples (13,984) and seconds (4.12)."
    )
    bare = history.drop(columns=["updates", "examples", "seconds"])
    assert "none of them is known to be cheaper" in _sentence(analyze(bare), "recommended").text


@pytest.mark.parametrize(("most", "told"), [(8, "1, 2, 3, 4, 5, 6, 7 and 8"), (9, "1 to 9 (9 of them)")])
def test_many_batch_sizes_are_told_as_a_range(most: int, told: str) -> None:
    history = made_history(tuple(range(1, most + 1)), 2, 4, val=lambda b, r, e, u: 0.9)
    text = _sentence(analyze(history), "cannot_tell").text
    assert f"batch size {told} have as few as 2" in text


def test_long_lists_are_cut() -> None:
    history = made_history(tuple(range(8, 24)), 2, 2)
    history["val_loss"] = np.where(history.batch_size > 9, np.nan, history.val_loss)
    assert "and 9 more" in _sentence(analyze(history), "diverged").text


def test_the_verdict_changes_with_the_data_not_with_the_study() -> None:
    history = load_source("published")
    mended = history.assign(val_accuracy=history.train_accuracy - 0.01)
    first = analyze(mended).verdict[0]
    assert first.rule == "gap_steady"
    assert "0.010 at batch size 16 and 0.010 at batch size 128" in first.text


def test_unused_frames_do_not_change(published: Analysis) -> None:
    history = load_source("published")
    before = history.copy()
    analyze(history)
    pd.testing.assert_frame_equal(history, before)
