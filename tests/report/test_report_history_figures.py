from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from planted import planted

from batchscope.errors import HistoryError
from batchscope.report.by_batch_size import by_batch_size_chart, by_batch_size_info
from batchscope.report.curves import even_choice, last_common_epoch, measures, stage_starts, thin_epochs
from batchscope.report.encodings import value_domain
from batchscope.report.figures import history_figures
from batchscope.report.means import means_chart, means_info
from batchscope.report.replicates import replicates_chart, replicates_info
from batchscope.report.together import together_chart, together_info

ENDS = {16: 0.9804, 32: 0.9670, 64: 0.8329, 128: 0.7356}


def test_means_of_the_published_study(published: pd.DataFrame) -> None:
    info = means_info(published, "accuracy")
    assert {level.batch_size: round(level.value, 4) for level in info.ends} == ENDS
    assert (
        info.title == "Mean validation accuracy falls from 0.980 at batch 16 to 0.736 at batch 128 (epoch 20)"
    )
    assert [(start.stage, start.epoch) for start in info.starts] == [("fine_tuning", 11)]
    assert len(info.points) == 4 * 20 * 2
    assert set(info.points["replicates"]) == {3}
    assert info.notes == ()


def test_every_point_of_the_published_means(published: pd.DataFrame) -> None:
    info = means_info(published, "loss")
    for row in info.points.itertuples():
        column = {"training": "train_loss", "validation": "val_loss"}[row.part]
        here = (published["batch_size"] == row.batch_size) & (published["epoch"] == row.epoch)
        assert row.value == pytest.approx(sum(published.loc[here, column]) / 3, abs=1e-15)


def test_by_batch_size_of_the_published_study(published: pd.DataFrame) -> None:
    info = by_batch_size_info(published, "accuracy")
    assert [moment.when for moment in info.moments] == ["epoch 15", "epoch 20"]
    assert {level.batch_size: round(level.value, 4) for level in info.levels[1]} == ENDS
    assert len(info.points) == 2 * 4 * 3 * 2
    assert info.title == (
        "Validation accuracy falls with batch size at epoch 15 (0.975 to 0.732) "
        "and at epoch 20 (0.980 to 0.736)"
    )


def test_replicates_of_the_published_study(published: pd.DataFrame) -> None:
    info = replicates_info(published, "accuracy")
    at_end = published[published["epoch"] == 20].groupby("batch_size")["val_accuracy"]
    assert info.spread == pytest.approx((at_end.max() - at_end.min()).to_dict())
    assert (
        info.title
        == "Replicates of batch 128 end 0.069 apart in validation accuracy, the most of all (epoch 20)"
    )
    panels = list(dict.fromkeys(info.points.sort_values("order")["panel"]))
    assert len(panels) == 12
    assert panels[:5] == [f"batch {size}, rep. 1" for size in (16, 32, 64, 128)] + ["batch 16, rep. 2"]
    assert len(info.points) == 480


def test_together_of_the_published_study(published: pd.DataFrame) -> None:
    info = together_info(published, "accuracy")
    gaps = {size: train - val for size, (train, val) in info.ends.items()}
    assert gaps == pytest.approx({16: 0.0081, 32: 0.0085, 64: 0.1436, 128: 0.2561}, abs=1e-4)
    assert info.title == (
        "Training and validation accuracy are furthest apart at batch 128: 0.992 against 0.736 (epoch 20)"
    )
    assert not info.banded


def test_titles_change_with_the_data() -> None:
    flat = planted(lambda size, replicate, epoch: 0.899 + replicate / 1000)
    assert replicates_info(flat, "accuracy").title == (
        "Replicates agree to within 0.001 in validation accuracy at every batch size (epoch 4)"
    )
    assert together_info(flat, "accuracy").title == (
        "Training and validation accuracy stay within 0.001 of each other at every batch size (epoch 4)"
    )
    one = planted(lambda size, replicate, epoch: 0.9, replicates=1)
    assert replicates_info(one, "accuracy").title.startswith("With one replicate per batch size")
    turning = planted(lambda size, replicate, epoch: 0.9 + (0.02 if (size == 32) == (epoch == 4) else 0.0))
    assert by_batch_size_info(turning, "accuracy").title == (
        "Validation accuracy falls with batch size at epoch 3 (0.920 to 0.900) "
        "but rises with batch size at epoch 4 (0.900 to 0.920)"
    )


def test_diverged_trials_are_told_and_not_averaged_away() -> None:
    history = planted(
        lambda size, replicate, epoch: math.nan if (size, replicate, epoch) == (32, 2, 4) else 0.8
    )
    history.loc[(history["batch_size"] == 16) & (history["epoch"] == 3), "train_accuracy"] = math.inf
    info = means_info(history, "accuracy")
    assert info.notes[0].startswith("3 trials diverged (batch 16, 32)")
    last = info.points[(info.points["part"] == "validation") & (info.points["epoch"] == 4)]
    assert last["replicates"].tolist() == [2, 1]
    drawn = replicates_chart(replicates_info(history, "accuracy")).to_dict()
    rows = json.loads(drawn["datasets"][drawn["data"]["name"]])
    assert sum(row["value"] is None for row in rows) == 6  # both parts: what stands beside it means nothing


def test_a_batch_size_without_any_finite_figure_has_no_level() -> None:
    history = planted(lambda size, replicate, epoch: math.nan if size == 32 else 0.8)
    assert means_info(history, "accuracy").title == "Mean validation accuracy is 0.800 at batch 16 (epoch 4)"
    nothing = planted(lambda size, replicate, epoch: math.nan)
    assert means_info(nothing, "accuracy").title == "Mean validation accuracy has no finite figure at epoch 4"
    assert (
        by_batch_size_info(nothing, "accuracy").title == "Validation accuracy has no finite figure at epoch 4"
    )
    for figure in history_figures(nothing):
        figure.spec()


def test_missing_columns_leave_figures_that_can_be_drawn(published: pd.DataFrame) -> None:
    only_loss = published[["batch_size", "replicate", "epoch", "val_loss"]]
    assert measures(only_loss) == ("loss",)
    figures = history_figures(only_loss)
    assert [figure.key for figure in figures] == [
        "a-replicates-loss",
        "b-together-loss",
        "c-means-loss",
        "d-by-batch-size-loss",
    ]
    assert figures[1].title == "Validation loss of all replicates of each batch size"
    only_training = published[["batch_size", "replicate", "epoch", "train_accuracy"]]
    assert means_info(only_training, "accuracy").title == (
        "Mean training accuracy is highest at batch 128 (0.992) and lowest at batch 32 (0.976) (epoch 20)"
    )
    with pytest.raises(HistoryError, match="neither"):
        history_figures(published[["batch_size", "replicate", "epoch"]])


def test_trials_that_share_batch_size_and_replicate_keep_apart(published: pd.DataFrame) -> None:
    twice = pd.concat(
        [published.assign(trial="slow-" + published["replicate"].astype(str)), published.assign(trial="fast")]
    ).query("replicate == 1")
    names = set(replicates_info(twice, "accuracy").points["replicate"])
    assert names == {"slow-1", "fast"}


def test_the_end_is_where_every_batch_size_has_been() -> None:
    history = planted(lambda size, replicate, epoch: 0.5)
    shorter = history[~((history["batch_size"] == 32) & (history["epoch"] > 3))]
    assert last_common_epoch(shorter) == 3
    assert [(start.stage, start.epoch) for start in stage_starts(shorter)] == [("tail", 3)]
    assert stage_starts(shorter.drop(columns="stage")) == ()


def test_many_trials_are_thinned_and_it_is_told() -> None:
    history = planted(
        lambda size, replicate, epoch: 0.5 + replicate / 100,
        batch_sizes=[2**power for power in range(10)],
        replicates=40,
        epochs=300,
        images=1024,
    )
    small, together = replicates_info(history, "accuracy"), together_info(history, "accuracy")
    assert small.points["panel"].nunique() == 8 * 6
    assert any("6 of 40 replicates, 8 of 10 batch sizes" in note for note in small.notes)
    assert together.banded
    assert any("mean over up to 40 replicates" in note for note in together.notes)
    first = together.points.iloc[0]
    assert (first["low"], first["value"], first["high"]) == pytest.approx((0.9, 0.9, 0.9))
    validation = together.points[together.points["part"] == "validation"].iloc[0]
    assert (validation["low"], validation["value"], validation["high"]) == pytest.approx((0.51, 0.705, 0.9))
    assert by_batch_size_info(history, "accuracy").ranged
    for info in (small, together, means_info(history, "accuracy")):
        assert len(info.points) <= 2400
        assert info.points["epoch"].min() == 1
        assert info.points["epoch"].max() == 300
        assert any("of 300 epochs drawn" in note for note in info.notes)


def test_even_choice_keeps_the_ends_and_order() -> None:
    assert even_choice(list(range(101)), 5) == [0, 25, 50, 75, 100]
    assert even_choice([3, 1], 5) == [3, 1]


def test_thinning_leaves_what_fits() -> None:
    points = pd.DataFrame({"epoch": range(1, 151)})
    assert thin_epochs(points, 10)[1] == ""
    kept, note = thin_epochs(points, 40)
    assert (len(kept), note) == (60, "60 of 150 epochs drawn.")


@pytest.mark.parametrize(
    ("values", "measure", "domain"),
    [
        ([0.47, 0.99], "accuracy", (0.4, 1.0)),
        ([0.981, 0.984], "accuracy", (0.981, 0.984)),
        ([0.02, 1.39], "loss", (0.0, 1.5)),
        ([0.75, 0.75], "accuracy", (0.7, 0.8)),
        ([math.nan, math.inf], "loss", (0.0, 1.0)),
        ([0.0, 0.0], "accuracy", (0.0, 1.0)),
        ([1.0, 1.0], "accuracy", (0.9, 1.0)),
        ([-0.1, 0.3], "gap", (-0.1, 0.3)),
    ],
)
def test_value_domain_holds_the_data_in_round_limits(
    values: list[float], measure: str, domain: tuple[float, float]
) -> None:
    low, high = value_domain(pd.Series(values), measure)
    finite = [value for value in values if np.isfinite(value)]
    assert all(low <= value <= high for value in finite)
    assert low < high
    assert (low, high) == pytest.approx(domain)


def test_axes_name_what_they_show(published: pd.DataFrame) -> None:
    chart = means_chart(means_info(published, "accuracy")).to_dict()
    assert [panel["layer"][2]["encoding"]["y"]["title"] for panel in chart["concat"]] == [
        "Training accuracy",
        "Validation accuracy",
    ]
    domains = [panel["layer"][2]["encoding"]["y"]["scale"]["domain"] for panel in chart["concat"]]
    assert domains[0] == domains[1]
    assert all(panel["layer"][2]["encoding"]["x"]["title"] == "Epoch" for panel in chart["concat"])
    assert chart["concat"][0]["layer"][2]["encoding"]["color"]["scale"]["domain"] == [16, 32, 64, 128]
    [start] = json.loads(chart["datasets"][chart["concat"][0]["layer"][0]["data"]["name"]])
    assert start == {"start": 10.5, "stage": "fine tuning starts"}


def test_batch_sizes_are_the_ticks_of_a_base_two_axis(published: pd.DataFrame) -> None:
    chart = by_batch_size_chart(by_batch_size_info(published, "accuracy")).to_dict()
    assert [panel["title"] for panel in chart["concat"]] == ["epoch 15", "epoch 20"]
    x = chart["concat"][0]["layer"][0]["encoding"]["x"]
    assert (x["scale"]["type"], x["scale"]["base"]) == ("log", 2)
    assert x["axis"]["values"] == [16, 32, 64, 128]
    assert x["title"] == "Batch size (examples)"


def test_facets_keep_the_order_of_batch_sizes(published: pd.DataFrame) -> None:
    chart = together_chart(together_info(published, "accuracy")).to_dict()
    assert chart["facet"]["sort"] == {"field": "order", "op": "min"}
    rows = json.loads(chart["datasets"][chart["data"]["name"]])
    titles = [row["panel"] for row in sorted(rows, key=lambda row: row["order"])]
    assert list(dict.fromkeys(titles)) == ["batch 16", "batch 32", "batch 64", "batch 128"]
    assert chart["columns"] == 2
