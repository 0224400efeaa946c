"""Figures and tables of the gradient noise scale and of sharpness."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from batchscope.analysis.analyze import analyze
from batchscope.analysis.gradient_findings import rounded
from batchscope.report.figures import all_figures
from batchscope.report.noise_scale import noise_course_info, noise_scale_figure, noise_scale_info
from batchscope.report.render import svg
from batchscope.report.sharpness import sharpness_figure, sharpness_info
from batchscope.report.tables import analysis_tables
from probed import ONE_TRIAL, probed_history, with_gradients

SIZES = (16, 64)


@pytest.fixture(scope="module")
def history() -> pd.DataFrame:
    return with_gradients(probed_history(batch_sizes=SIZES))


def test_the_noise_scales_points_are_the_analysis_at_the_ends(history: pd.DataFrame):
    analysis = analyze(history)
    info = noise_scale_info(analysis)
    assert info is not None
    ends = analysis.noise_scale.ends
    assert info.points["noise_scale"].tolist() == [row.noise_scale for row in ends]
    assert info.points["panel"].tolist() == ["feature extraction"] * 2 + ["fine tuning"] * 2
    assert not info.points["open"].any()
    low, high = info.domain
    assert low < min(SIZES)  # the dashed line is whole
    assert high > max(row.high for row in ends)
    first, last = (rounded(row.noise_scale) for row in ends[2:])
    assert info.title == (
        f"The gradient noise scale is {first} at batch 16 and {last} at batch 64 (end of fine_tuning)"
    )
    assert noise_course_info(analysis) is None


def test_an_interval_without_an_upper_end_goes_to_the_axis_end_and_is_marked():
    wide = with_gradients(probed_history(batch_sizes=SIZES), norm2=0.2, seed=5)
    wide.loc[(wide.batch_size == 16) & (wide.replicate == 1), "probe_gradient_norm2"] = 0.9
    analysis = analyze(wide)
    info = noise_scale_info(analysis)
    assert info is not None
    unbounded = [row.unbounded for row in analysis.noise_scale.ends]
    assert info.points["open"].tolist() == unbounded
    assert True in unbounded
    assert (info.points.loc[info.points["open"], "high"] == info.domain[1]).all()
    assert "without an upper end" in noise_scale_figure(info, "I").caption


def test_a_noise_scale_that_cannot_be_told_has_no_point_and_is_named(history: pd.DataFrame):
    lost = history.copy()
    lost.loc[lost.batch_size == 64, "probe_gradient_norm2"] -= 2.3
    info = noise_scale_info(analyze(lost))
    assert info is not None
    assert set(info.points.dropna(subset=["noise_scale"])["batch_size"]) == {16}
    assert info.notes == ("At batch 64 the gradient is not told from none somewhere: no point there.",)


def test_the_course_has_every_probed_epoch_and_its_title_the_last():
    analysis = analyze(with_gradients(probed_history(batch_sizes=SIZES, every=True)))
    info = noise_course_info(analysis)
    assert info is not None
    assert info.points.groupby("batch_size")["epoch"].apply(list).tolist() == [[1, 2, 3, 4, 5, 6]] * 2
    last = [row for row in analysis.noise_scale.rows if row.epoch == 6]
    assert f"is {rounded(last[0].noise_scale)} at batch 16" in info.title


def test_sharpness_has_a_panel_for_each_stage_and_measure(history: pd.DataFrame):
    info = sharpness_info(analyze(history))
    assert info is not None
    found = info.points.set_index(["stage", "measure", "batch_size"])["value"]
    assert found["fine_tuning", "hessian_top", 64] == pytest.approx(130)
    assert found["fine_tuning", "box", 16] == pytest.approx(3.6)
    assert (
        info.title == "The loss' largest curvature is 34 at batch 16 and 130 at batch 64 (end of fine_tuning)"
    )
    drawn = svg(sharpness_figure(info, "J"), 2)
    assert drawn.count("Largest eigenvalue of the Hessian") >= 2
    assert drawn.count("percent)") >= 2


def test_where_no_eigenvalue_was_found_keskars_measure_is_told(history: pd.DataFrame):
    info = sharpness_info(analyze(history.assign(probe_hessian_top=np.nan)))
    assert info is not None
    assert info.unconverged == 12
    assert info.title == "The loss' sharpness is 3.6 at batch 16 and 8.4 at batch 64 (end of fine_tuning)"


def test_figures_and_tables_are_there_where_their_columns_are(history: pd.DataFrame):
    keys = {"noise-scale", "noise-scale-course", "sharpness"}
    every = with_gradients(probed_history(batch_sizes=SIZES, every=True))
    for table, expected in (
        (history, keys - {"noise-scale-course"}),
        (every, keys),
        (probed_history(), set()),
    ):
        analysis = analyze(table)
        figures = [figure for figure in all_figures(table, analysis) if figure.key in keys]
        assert {figure.key for figure in figures} == expected
        for figure in figures:
            assert "NaN" not in svg(figure, 2)
        assert {made.key for made in analysis_tables(analysis)} & keys == expected - {"noise-scale-course"}


def test_tables_write_intervals_and_say_what_they_are_over():
    one = analyze(with_gradients(probed_history(batch_sizes=SIZES, replicates=1)))
    table = next(made for made in analysis_tables(one) if made.key == "noise-scale")
    row = one.noise_scale.ends[0]
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    assert cells["Noise scale"].text == rounded(row.noise_scale)
    assert cells["Noise scale"].detail == f"{rounded(row.low)} to {rounded(row.high)}"
    assert cells["Remark"].text == "interval over batches of its only replicate"
    info = noise_scale_info(one)
    assert info is not None
    caption = noise_scale_figure(info, "I").caption
    assert "with Fieller's 95% interval over batches of its only replicate;" in caption
    bare = noise_scale_info(
        analyze(with_gradients(probed_history(replicates=1)).drop(columns=list(ONE_TRIAL)))
    )
    assert bare is not None
    assert "Fieller" not in noise_scale_figure(bare, "I").caption
    assert cells["Batch size"].detail == "n = 1"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0342, "0.034"), (3.42, "3.4"), (9.96, "10"), (34.2, "34"), (3_420, "3,400"), (-12.3, "\u221212")],
)
def test_figures_are_rounded_to_two_digits(value: float, text: str):
    assert rounded(value) == text
