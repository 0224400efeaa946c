from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from planted import planted
from scipy import stats

from batchscope.analysis import Analysis, Settings, analyze
from batchscope.report.figures import all_figures
from batchscope.report.gap import gap_chart, gap_figure, gap_info
from batchscope.report.spread import spread_figure, spread_info
from batchscope.report.updates import panel_finding, share_sentence, updates_chart, updates_info

FEW = Settings(resamples=100)
FOLLOWS = "most of the variance between batch sizes follows the number of updates"
BEYOND = "the number of updates does not explain most of the variance between batch sizes"
OPEN = "these data cannot tell how much of the variance between batch sizes follows the number of updates"
MATCHING = "matching updates instead of epochs"


def test_gap_of_the_published_study(analysis: Analysis, published: pd.DataFrame) -> None:
    info = gap_info(analysis)
    assert info is not None
    assert info.when == "epoch 20"
    assert info.title == "The observed gap rises from 0.008 at batch 16 to 0.256 at batch 128 (epoch 20)"
    for row in info.points.itertuples():
        here = published[(published["batch_size"] == row.batch_size) & (published["epoch"] == 20)]
        gaps = here["train_accuracy"] - here["val_accuracy"]
        expected = stats.ttest_1samp(gaps, 0.0).confidence_interval(0.95)
        assert (row.low, row.high) == pytest.approx((expected.low, expected.high))
        assert row.replicates == 3


def test_gap_says_when_there_is_no_interval_and_what_diverged() -> None:
    history = planted(
        lambda size, replicate, epoch: math.nan if (size, replicate, epoch) == (32, 2, 4) else 0.8,
        train=lambda size, replicate, epoch: 0.9,
    )
    info = gap_info(analyze(history, FEW))
    assert info is not None
    assert info.notes == (
        "1 trial diverged and cannot be averaged.",
        "No interval from one replicate: batch 32.",
    )
    assert info.points["gap"].tolist() == pytest.approx([0.1, 0.1])
    figure = gap_figure(info)
    rows = figure.spec()["datasets"][figure.spec()["data"]["name"]]
    assert rows[1]["low"] is None


def test_gap_is_taken_where_most_batch_sizes_have_been() -> None:
    history = planted(lambda size, replicate, epoch: 0.8, epochs=8)
    shorter = history[~((history["batch_size"] == 32) & (history["epoch"] > 6))]
    info = gap_info(analyze(shorter, FEW))
    assert info is not None
    assert info.when == "epoch 6"
    assert info.batch_sizes == (16, 32)


def test_no_gap_without_training_accuracy(published: pd.DataFrame) -> None:
    history = published.drop(columns=["train_accuracy"])
    assert gap_info(analyze(history, FEW)) is None
    keys = [figure.key for figure in all_figures(history, analyze(history, FEW))]
    assert "gap" not in keys
    assert "epochs-and-updates" in keys


def test_gap_axis_holds_every_interval(analysis: Analysis) -> None:
    info = gap_info(analysis)
    assert info is not None
    chart = gap_chart(info).to_dict()
    low, high = chart["layer"][1]["encoding"]["y"]["scale"]["domain"]
    assert low <= info.points["low"].min()
    assert high >= info.points["high"].max()
    assert chart["layer"][1]["encoding"]["y"]["title"] == "Training minus validation accuracy"


def test_spread_of_the_published_study(analysis: Analysis, published: pd.DataFrame) -> None:
    info = spread_info(analysis)
    assert info is not None
    groups = published[published["epoch"] == 20].groupby("batch_size")["val_accuracy"]
    assert info.points["sd"].tolist() == pytest.approx(groups.std().tolist())
    assert info.title.startswith(
        "The spread between replicates in validation accuracy rises "
        "from 0.005 at batch 16 to 0.036 at batch 128 (epoch 20)"
    )
    expected = stats.levene(*(values for _, values in groups), center="median").pvalue
    assert info.title.endswith(f"as chance alone could make it (p = {expected:.2g})")
    assert "1.86 when the batch size doubles" in spread_figure(info).caption


@pytest.mark.parametrize(("p", "doubted"), [(0.0499, False), (0.05, True), (math.nan, False)])
def test_spread_is_doubted_from_five_percent_on(analysis: Analysis, p: float, doubted: bool) -> None:
    info = spread_info(analysis)
    assert info is not None
    assert ("chance" in replace(info, p=p).title) is doubted


def test_no_spread_from_one_replicate() -> None:
    history = planted(lambda size, replicate, epoch: 0.8, replicates=1)
    assert spread_info(analyze(history, FEW)) is None


def test_updates_are_counted_from_the_stage_s_start(analysis: Analysis, published: pd.DataFrame) -> None:
    info = updates_info(published, analysis)
    assert info is not None
    for row in info.points.itertuples():
        epochs = row.epoch if row.stage == "feature_extraction" else row.epoch - 10
        assert row.updates == 14000 // row.batch_size * epochs
        here = published[(published["batch_size"] == row.batch_size) & (published["epoch"] == row.epoch)]
        assert row.value == pytest.approx(here["val_accuracy"].mean())
    assert info.points.groupby("stage")["stage_number"].unique().map(list).to_dict() == {
        "feature_extraction": [1],
        "fine_tuning": [2],
    }


def test_updates_of_unsorted_rows_and_without_stages(published: pd.DataFrame) -> None:
    plain = published.drop(columns="stage").sample(frac=1, random_state=1)
    info = updates_info(plain, analyze(plain, FEW))
    assert info is not None
    assert (info.points["updates"] == 14000 // info.points["batch_size"] * info.points["epoch"]).all()
    chart = updates_chart(info).to_dict()
    assert chart["concat"][0]["title"] == "All epochs"
    assert (chart["concat"][1]["title"]["text"], chart["concat"][1]["title"]["subtitle"]) == panel_finding(
        info.shares[0]
    )
    assert updates_info(plain.drop(columns="updates"), analyze(plain, FEW)) is None


def test_updates_title_tells_the_share(analysis: Analysis, published: pd.DataFrame) -> None:
    info = updates_info(published, analysis)
    assert info is not None
    assert info.title.startswith(f"In feature extraction, {FOLLOWS}: {MATCHING} removes 88% of it (95%")
    first, second = info.shares
    swapped = replace(info, shares=(replace(first, variance_at_matched_epochs=1e-6), second))
    assert swapped.title.startswith(f"In fine tuning, {BEYOND}: {MATCHING} removes 49% of it (95%")
    unknown = replace(info, shares=tuple(replace(share, share=math.nan) for share in info.shares))
    assert unknown.title == "Validation accuracy against epochs and against updates"


def test_updates_axis_has_round_ticks_within_the_data(analysis: Analysis, published: pd.DataFrame) -> None:
    info = updates_info(published, analysis)
    assert info is not None
    x = updates_chart(info).to_dict()["concat"][1]["layer"][0]["encoding"]["x"]
    assert x["axis"]["values"] == [100, 200, 500, 1000, 2000, 5000, 10000]
    assert x["scale"]["type"] == "log"
    assert x["title"] == "Updates since the stage's start (log scale)"


@pytest.mark.parametrize(
    ("share", "low", "alike", "high_alike", "finding", "short"),
    [
        (0.5, 0.01, 0.5, 0.9, FOLLOWS, ("Updates explain most", "50%, like for like 50%")),
        (0.93, 0.0, 0.9, 0.95, OPEN, ("Updates: cannot tell", "93%, like for like 90%")),
        (0.93, -2.23, 0.9, 0.93, OPEN, ("Updates: cannot tell", "93%, like for like 90%")),
        (0.93, 0.5, 0.49, 0.9, OPEN, ("Updates: cannot tell", "93%, like for like 49%")),
        (0.49, 0.3, 0.2, 0.5, OPEN, ("Updates: cannot tell", "49%, like for like 20%")),
        (0.49, 0.43, 0.01, 0.49, BEYOND, ("Updates do not explain most", "49%, like for like 1%")),
        (
            -0.25,
            -1.0,
            -0.5,
            0.1,
            BEYOND,
            ("Updates do not explain most", "\u221225%, like for like \u221250%"),
        ),
    ],
)
def test_titles_claim_no_more_than_the_intervals_support(
    analysis: Analysis,
    share: float,
    low: float,
    alike: float,
    high_alike: float,
    finding: str,
    short: tuple[str, str],
) -> None:
    found = replace(
        analysis.updates_share[0],
        share=share,
        low=low,
        high=0.95,
        share_alike=alike,
        low_alike=-0.6,
        high_alike=high_alike,
    )
    assert share_sentence(found, 0.95).startswith(f"In feature extraction, {finding}: {MATCHING} ")
    assert panel_finding(found) == short


def test_share_sentence_gives_both_shares_with_their_intervals(analysis: Analysis) -> None:
    found = replace(
        analysis.updates_share[0], stage="", share=0.6, low=0.4, high=0.7, share_alike=0.5, low_alike=-0.2
    )
    assert share_sentence(replace(found, high_alike=0.8), 0.9) == (
        f"{FOLLOWS.capitalize()}: {MATCHING} removes 60% of it (90% interval 40% to 70%), "
        "like for like 50% (\u221220% to 80%)"
    )
    nan = math.nan
    alone = replace(found, share=-0.25, low=nan, high=nan, low_alike=nan, high_alike=nan, share_alike=-0.004)
    assert share_sentence(alone, 0.9) == (
        f"{OPEN.capitalize()}: {MATCHING} makes it 25% larger, like for like 0%"
    )
    assert panel_finding(replace(found, share=nan)) == ("By updates", "no share")
    lone = replace(found, share=0.9, share_alike=nan, low_alike=nan, high_alike=nan)
    assert panel_finding(lone)[1] == "90%, like for like not known"
    assert share_sentence(lone, 0.95).endswith(", like for like not known")


def test_every_figure_of_every_history_can_be_specified(published: pd.DataFrame) -> None:
    rng = np.random.default_rng(3)
    for columns in (["val_loss"], ["train_accuracy", "val_accuracy"], ["val_accuracy", "updates"]):
        history = published[["batch_size", "replicate", "epoch", *columns]].sample(frac=0.7, random_state=rng)
        for figure in all_figures(history, analyze(history, FEW)):
            assert figure.title
            assert figure.spec()["datasets"]
            figure.chart.to_dict(validate=True)  # reports are written without
