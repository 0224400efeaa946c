"""The noise scale and the critical batch size in one figure."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from batchscope.analysis import Analysis, Settings, TargetSpec, analyze
from batchscope.analysis.noise_scale import NoiseScales
from batchscope.history import check_history
from batchscope.report.content import PageContent
from batchscope.report.critical_lines import critical_lines
from batchscope.report.figure import Figure
from batchscope.report.figures import all_figures
from batchscope.report.noise_scale import (
    noise_course_figure,
    noise_course_info,
    noise_scale_figure,
    noise_scale_info,
)
from batchscope.report.notebook import RunCard, card_html
from batchscope.report.page import page_html
from batchscope.report.render import svg
from batchscope.report.terminal import print_analysis
from batchscope.report.theme import LIGHT
from probed import with_noise_scale
from to_target_samples import SIZES, planted_history

ACCURACY = TargetSpec(metric="val_accuracy", value=0.7)
EASIER = TargetSpec(metric="val_accuracy", value=0.6)
LOSS = TargetSpec(metric="val_loss", value=0.2)
NEVER = TargetSpec(metric="val_accuracy", value=0.99999)
NAME = "a validation accuracy of 0.700"


SETTINGS = Settings(resamples=100, targets=(ACCURACY, EASIER, LOSS, NEVER))


@pytest.fixture(scope="module")
def history() -> pd.DataFrame:
    planted = planted_history(rates=(0.1, 1.0), parts=4)
    return check_history(with_noise_scale(planted, lambda size: 150.0 + size))


@pytest.fixture(scope="module")
def every(history: pd.DataFrame) -> Analysis:
    """With all targets."""
    return analyze(history, SETTINGS)


@pytest.fixture(scope="module")
def analysis(every: Analysis) -> Analysis:
    return asked(every, ACCURACY)


def asked(analysis: Analysis, *targets: TargetSpec) -> Analysis:
    """With some of its targets alone."""
    found = {(one.metric, one.value): one for one in analysis.updates_to_target}
    return replace(
        analysis, updates_to_target=tuple(found[target.metric, target.value] for target in targets)
    )


def drawn(analysis: Analysis) -> Figure:
    info = noise_scale_info(analysis)
    assert info is not None
    return noise_scale_figure(info, "I")


def layers(figure: Figure) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = figure.spec()["spec"]["layer"]
    return found


def rows(figure: Figure, layer: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = figure.spec()["datasets"][layer["data"]["name"]]
    return found


def test_the_chart_holds_planted_noise_scales_and_the_critical_batch_size_on_one_axis(
    analysis: Analysis,
) -> None:
    figure = drawn(analysis)
    band, line, *others = layers(figure)
    assert [layer["mark"]["type"] for layer in (band, line, *others)] == [
        *("rect", "rule"),
        *("line", "rule", "point", "circle"),
    ]
    [found] = analysis.updates_to_target
    assert found.critical is not None
    critical = found.critical.batch_size
    [held] = rows(figure, band)
    assert rows(figure, line) == [held]
    assert held["target"] == NAME
    assert (held["low"], held["critical_batch_size"], held["high"]) == pytest.approx(
        (critical.low, critical.value, critical.high), abs=1e-5
    )
    assert 150 < critical.low < 200 < critical.high < 300
    assert (band["encoding"]["y"]["field"], band["encoding"]["y2"]["field"]) == ("low", "high")
    assert line["encoding"]["y"]["field"] == "critical_batch_size"
    spec = figure.spec()
    points = spec["datasets"][spec["data"]["name"]]
    assert {row["batch_size"]: row["noise_scale"] for row in points} == pytest.approx(
        {size: 150.0 + size for size in SIZES}
    )
    assert line["encoding"]["y"]["scale"] == others[-1]["encoding"]["y"]["scale"]
    assert figure.title == (
        "The gradient noise scale is 160 at batch 8 and 1,200 at batch 1024; the critical batch size for "
        f"{NAME} is {critical.value:.0f}"
    )
    assert spec["description"] == figure.title
    assert figure.caption.endswith(
        f"Line and band: the critical batch size and its interval, {critical.value:.0f} (95% interval "
        f"{critical.low:.0f} to {critical.high:.0f}) for {NAME}."
    )


@pytest.mark.parametrize("scale", [0.5, 300.0, 60_000.0])
def test_the_axis_covers_both_however_far_they_are_apart(analysis: Analysis, scale: float) -> None:
    rows = [
        replace(row, noise_scale=scale, low=0.8 * scale, high=1.2 * scale)
        for row in analysis.noise_scale.ends
    ]
    found = replace(analysis, noise_scale=NoiseScales(tuple(rows), None))
    info = noise_scale_info(found)
    assert info is not None
    [line] = info.critical.drawn
    low, high = info.domain
    assert low < min(0.8 * scale, line.low)
    assert high > max(1.2 * scale, line.high)
    assert "NaN" not in svg(drawn(found), len(SIZES))


def test_each_target_has_a_line_of_its_own_and_the_legend_its_name(every: Analysis) -> None:
    found = asked(every, ACCURACY, EASIER, LOSS)
    figure = drawn(found)
    band, line = layers(figure)[:2]
    values = [row["critical_batch_size"] for row in rows(figure, line)]
    fits = [one.critical.batch_size.value for one in found.updates_to_target if one.critical is not None]
    assert values == pytest.approx(fits, abs=1e-5)
    names = [NAME, "a validation accuracy of 0.600", "a validation loss of 0.200"]
    for encoding in (band["encoding"]["fill"], line["encoding"]["stroke"], line["encoding"]["strokeDash"]):
        assert encoding["scale"]["domain"] == names
        assert encoding["legend"]["title"] == "Critical batch size for"
    assert len({tuple(dash) for dash in line["encoding"]["strokeDash"]["scale"]["range"]}) == 3
    assert "range" not in line["encoding"]["stroke"]["scale"]  # the theme's, on light and on dark ground
    picture = svg(figure, len(SIZES))
    assert [picture.count(f">{name}<") for name in names] == [1, 1, 1]
    for colour in LIGHT.terms[:3]:
        assert picture.count(f'stroke="{colour}"') == 2  # line and legend
        assert picture.count(f'fill="{colour}"') >= 1
    ends = f"{min(fits):.0f} to {max(fits):.0f}"
    assert figure.title.endswith(f"; critical batch sizes for 3 targets are {ends}")
    one = drawn(asked(every, ACCURACY))
    opacities = [layers(made)[0]["mark"]["fillOpacity"] for made in (one, figure)]
    assert opacities[1] == pytest.approx(opacities[0] / 3**0.5)


def test_what_is_not_determined_has_no_line_and_the_caption_says_why() -> None:
    made = with_noise_scale(planted_history(sizes=(2, 4, 8), rates=(0.1,), parts=4), lambda _: 300.0)
    found = analyze(check_history(made), Settings(resamples=100, targets=(EASIER, NEVER)))
    critical = found.updates_to_target[0].critical
    assert critical is not None
    assert critical.batch_size.low == pytest.approx(16.5, abs=0.1)  # one end is known
    figure = drawn(found)
    assert [layer["mark"]["type"] for layer in layers(figure)] == ["line", "rule", "point", "circle"]
    assert figure.title == "The gradient noise scale is 300 at batch 2 and 300 at batch 8"
    assert "Line and band" not in figure.caption
    assert figure.caption.endswith(
        "No line: the critical batch size for a validation accuracy of 0.600 is not determined (95% interval "
        "from 16.5): no batch size is measurably beyond perfect scaling; larger ones would tell. No line: "
        "the critical batch size for a validation accuracy of 1.000 is not determined: it needs at least 3 "
        "batch sizes at which a trial reached the target, but there are none."
    )


def test_a_target_whose_column_is_missing_is_told(analysis: Analysis) -> None:
    [found] = analysis.updates_to_target
    lost = replace(
        found, reason="it needs the column updates", trials=(), rates=(), scaling=None, critical=None
    )
    assert drawn(replace(analysis, updates_to_target=(lost,))).caption.endswith(
        f"No line: the critical batch size for {NAME} is not determined: it needs the column updates."
    )


def test_drawn_and_undrawn_targets_stand_in_one_figure(every: Analysis) -> None:
    found = critical_lines(asked(every, NEVER, ACCURACY))
    assert [line.target for line in found.drawn] == [NAME]
    told = found.caption(1)
    assert told[0].startswith("Line and band: ")
    assert told[1].startswith("No line: the critical batch size for a validation accuracy of 1.000 is not")
    assert len(told) == 2


def test_a_curve_that_fits_badly_is_told(analysis: Analysis) -> None:
    [found] = analysis.updates_to_target
    assert found.critical is not None
    badly = replace(found, critical=replace(found.critical, lack_of_fit_p=0.01))
    bent = replace(analysis, updates_to_target=(badly,))
    assert drawn(bent).caption.endswith(f" for {NAME}, from a curve that fits badly.")
    assert "fits badly" not in drawn(analysis).caption


def test_each_stage_has_the_line(analysis: Analysis) -> None:
    ends = analysis.noise_scale.ends
    staged = [replace(row, stage=stage) for stage in ("one", "two") for row in ends]
    figure = drawn(replace(analysis, noise_scale=NoiseScales(tuple(staged), None)))
    picture = svg(figure, len(SIZES))
    assert picture.count(f'stroke="{LIGHT.terms[0]}"') == 3  # a line in each panel, and the legend
    assert figure.caption.endswith(
        f" for {NAME}. Its updates count from the start of training, so it is the same in each stage."
    )
    assert "(end of two); the critical batch size for" in figure.title
    assert "the same in each" not in drawn(analysis).caption


def test_the_course_of_training_has_no_line(analysis: Analysis) -> None:
    ends = analysis.noise_scale.ends
    early = [replace(row, epoch=8, ends_stage=False, noise_scale=30.0) for row in ends]
    info = noise_course_info(replace(analysis, noise_scale=NoiseScales((*early, *ends), None)))
    assert info is not None
    figure = noise_course_figure(info, "J")
    assert "ritical" not in figure.title + figure.caption + svg(figure, len(SIZES))


def test_without_a_noise_scale_there_is_no_figure(history: pd.DataFrame, analysis: Analysis) -> None:
    found = replace(analysis, noise_scale=NoiseScales((), "not measured"))
    assert critical_lines(found).drawn
    assert noise_scale_info(found) is None
    keys = {figure.key for figure in all_figures(history, found)}
    assert "updates-to-target-1" in keys
    assert "noise-scale" not in keys


def test_without_a_target_there_is_no_word_of_it(analysis: Analysis) -> None:
    plain = drawn(asked(analysis))
    assert "ritical batch size" not in plain.title + plain.caption
    assert [layer["mark"]["type"] for layer in layers(plain)] == ["line", "rule", "point", "circle"]


def test_page_notebook_and_terminal_have_the_comparison(history: pd.DataFrame, every: Analysis) -> None:
    sentences = [one.text for one in every.verdict if one.rule == "noise_scale_against_critical"]
    assert len(sentences) == 3
    content = PageContent("planted", history, every)
    page = page_html(content)
    assert page.count(f'aria-label="{drawn(every).title}"') == 1
    card = card_html(RunCard("planted", (("complete", 1),), (), content, "", None))
    told = io.StringIO()
    print_analysis(every, Console(file=told, width=2_000))
    for sentence in sentences:
        assert [text.count(sentence) for text in (page, card, told.getvalue())] == [1, 1, 1]
