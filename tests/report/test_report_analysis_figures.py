from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from planted import planted
from scipy import stats

from batchscope.analysis import Analysis, Settings, analyze
from batchscope.analysis.results import UpdatesShare
from batchscope.report.figures import all_figures
from batchscope.report.gap import gap_chart, gap_figure, gap_info
from batchscope.report.spread import spread_figure, spread_info
from batchscope.report.updates import share_sentence, updates_chart, updates_info

FEW = Settings(resamples=100)
MATCHING = "matching updates instead of epochs"
OF_VARIANCE = "of the variance between batch sizes"


def test_gap_of_the_published_study(analysis: Analysis, published: pd.DataFrame) -> None:
    info = gap_info(analysis)
    assert info is not None
    assert info.epoch == 20
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
    assert info.epoch == 6
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
    assert [panel["title"].split(":")[0] for panel in chart["concat"]] == ["All epochs", "All epochs"]
    assert updates_info(plain.drop(columns="updates"), analyze(plain, FEW)) is None


def test_updates_title_tells_the_share(analysis: Analysis, published: pd.DataFrame) -> None:
    info = updates_info(published, analysis)
    assert info is not None
    assert info.title.startswith(f"In feature extraction, {MATCHING} removes 88% {OF_VARIANCE} (95%")
    unknown = replace(info, shares=tuple(replace(share, share=math.nan) for share in info.shares))
    assert unknown.title == "Validation accuracy against epochs and against updates"


def test_updates_axis_has_round_ticks_within_the_data(analysis: Analysis, published: pd.DataFrame) -> None:
    info = updates_info(published, analysis)
    assert info is not None
    x = updates_chart(info).to_dict()["concat"][1]["layer"][0]["encoding"]["x"]
    assert x["axis"]["values"] == [100, 200, 500, 1000, 2000, 5000, 10000]
    assert x["scale"]["type"] == "log"
    assert x["title"] == "Updates since the stage's start (log scale)"


def test_share_sentence_at_its_edges(analysis: Analysis) -> None:
    share: UpdatesShare = replace(analysis.updates_share[0], low=math.nan, high=math.nan)
    say = [share_sentence(replace(share, share=value), 0.95) for value in (0.0, -0.25, 1.0)]
    assert say == [
        f"In feature extraction, {MATCHING} removes 0% {OF_VARIANCE}",
        f"In feature extraction, {MATCHING} makes the variance between batch sizes 25% larger",
        f"In feature extraction, {MATCHING} removes 100% {OF_VARIANCE}",
    ]
    assert share_sentence(replace(share, stage="", share=0.5, low=0.4, high=0.6), 0.9) == (
        f"{MATCHING.capitalize()} removes 50% {OF_VARIANCE} (90% interval 40% to 60%)"
    )


def test_every_figure_of_every_history_can_be_specified(published: pd.DataFrame) -> None:
    rng = np.random.default_rng(3)
    for columns in (["val_loss"], ["train_accuracy", "val_accuracy"], ["val_accuracy", "updates"]):
        history = published[["batch_size", "replicate", "epoch", *columns]].sample(frac=0.7, random_state=rng)
        for figure in all_figures(history, analyze(history, FEW)):
            assert figure.title
            assert figure.spec()["datasets"]
