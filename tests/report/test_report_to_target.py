"""Figure, tables and page of updates to a target."""

from __future__ import annotations

import itertools

import pandas as pd
import pytest
from planted import planted

from batchscope.analysis import Analysis, Settings, TargetSpec, analyze
from batchscope.history import check_history
from batchscope.report.content import PageContent
from batchscope.report.figures import _labels, all_figures
from batchscope.report.page import page_html
from batchscope.report.render import svg
from batchscope.report.table import NOTHING, Table
from batchscope.report.tables import analysis_tables
from batchscope.report.to_target import to_target_figure, to_target_infos
from to_target_samples import SIZES, planted_history

ACCURACY = TargetSpec(metric="val_accuracy", value=0.85)


@pytest.fixture(scope="module")
def history() -> pd.DataFrame:
    return check_history(planted_history(parts=4))


@pytest.fixture(scope="module")
def analysis(history: pd.DataFrame) -> Analysis:
    return analyze(history, Settings(resamples=100, targets=(ACCURACY,)))


def tables(analysis: Analysis) -> dict[str, Table]:
    return {table.key: table for table in analysis_tables(analysis)}


def test_the_figure_has_every_trial_at_the_best_rates_and_three_lines(analysis: Analysis) -> None:
    [info] = to_target_infos(analysis)
    [found] = analysis.updates_to_target
    updates = info.points[info.points["cost"] == "updates"]
    assert updates["value"].tolist() == [trial.updates for trial in found.best_trials]
    assert len(updates) == 3 * len(SIZES)
    examples = info.points[info.points["cost"] == "examples"]
    assert examples["value"].tolist() == (updates["value"] * updates["batch_size"]).tolist()
    lines = info.lines[info.lines["cost"] == "updates"].groupby("line")
    assert lines.get_group("medians")["value"].tolist() == [
        row.updates.value for row in found.best if row.updates.value > 0
    ]
    start = found.best[0].updates.value
    assert lines.get_group("perfect scaling")["value"].tolist() == [start, start * SIZES[0] / SIZES[-1]]
    fitted = lines.get_group("fitted curve")
    assert found.critical is not None
    critical = found.critical.batch_size.value
    expected = found.critical.updates_min.value * (1 + critical / fitted["batch_size"])
    assert fitted["value"].to_numpy() == pytest.approx(expected.to_numpy())
    assert info.title == (
        "Updates to a validation accuracy of 0.850 are more than 20% above perfect scaling at batch size 256"
        f"; the critical batch size is {critical:.0f} (95% interval "
        f"{found.critical.batch_size.low:.0f} to {found.critical.batch_size.high:.0f})"
    )


def test_the_chart_marks_censored_trials_and_the_critical_batch_size(analysis: Analysis) -> None:
    [info] = to_target_infos(analysis)
    figure = to_target_figure(info, 1, "H")
    panels = figure.spec()["concat"]
    assert [panel["layer"][3]["encoding"]["y"]["title"] for panel in panels] == [
        "Updates to the target (log scale)",
        "Examples to the target (log scale)",
    ]
    for panel in panels:
        kinds = [layer["mark"]["type"] for layer in panel["layer"]]
        assert kinds == ["rect", "rule", "text", "line", "point", "point"]
        reached, censored = panel["layer"][4:]
        assert (reached["mark"]["filled"], reached["mark"]["shape"]) == (True, "circle")
        assert (censored["mark"]["filled"], censored["mark"]["shape"]) == (False, "triangle-up")
        assert {"filter": {"field": "outcome", "equal": "censored"}} in censored["transform"]
        low, high = panel["layer"][3]["encoding"]["y"]["scale"]["domain"]
        assert 0 < low < high
    assert "have not got there, ended or still running" in figure.caption
    assert "<svg" in svg(figure, len(SIZES))


def test_without_a_curve_the_caption_says_why_and_nothing_is_marked() -> None:
    history = planted(lambda size, replicate, epoch: 0.8 + 0.05 * epoch)
    analysis = analyze(history, Settings(resamples=100, targets=(ACCURACY,)))
    [info] = to_target_infos(analysis)
    figure = to_target_figure(info, 1, "H")
    assert "is not determined: it needs at least 3 batch sizes" in figure.caption
    assert {layer["mark"]["type"] for layer in figure.spec()["concat"][0]["layer"]} == {"line", "point"}
    assert "<svg" in svg(figure, 2)
    lower = history.assign(val_accuracy=history["val_accuracy"] - 0.3)
    never = analyze(lower, Settings(resamples=100, targets=(ACCURACY,)))
    [info] = to_target_infos(never)
    assert (
        info.title == "At no batch size did enough trials reach a validation accuracy of 0.850 for a median"
    )
    assert set(info.points["outcome"]) == {"censored"}
    assert "<svg" in svg(to_target_figure(info, 1, "H"), 2)


def test_the_tables_tell_medians_bounds_and_the_best(analysis: Analysis) -> None:
    found = tables(analysis)
    rows = {
        (row[0].text, row[1].text): [cell.text for cell in row] for row in found["updates-to-target-1"].rows
    }
    assert rows["8", "0.1"] == ["8", "0.1", "3 of 3", "14,000", "112,000", "151", "400", "100%", "best"]
    assert rows["1,024", "1"] == ["1,024", "1", "0 of 3", "> 192", "> 196,608", "> 21.6", NOTHING, "", ""]
    assert rows["128", "1"][-1] == "best, at the edge"
    assert sum(row[-1].startswith("best") for row in rows.values()) == 6
    [row] = found["critical-batch-size"].rows
    assert row[0].text == "validation accuracy of 0.850"
    assert row[4].detail == "7 not there"
    assert "from 6 trials on an interval of at least 95%" in found["updates-to-target-1"].note


def test_several_targets_have_a_figure_each_and_none_has_none(history: pd.DataFrame) -> None:
    targets = (ACCURACY, TargetSpec(metric="val_loss", value=0.3))
    analysis = analyze(history, Settings(resamples=100, targets=targets))
    figures = all_figures(history, analysis)
    assert [figure.key for figure in figures if "target" in figure.key] == [
        "updates-to-target-1",
        "updates-to-target-2",
    ]
    page = page_html(PageContent("planted", history, analysis))
    assert page.count('id="table-updates-to-target-') == 2 * 2
    assert "The critical batch size for a validation loss of 0.300" in page
    plain = analyze(history, Settings(resamples=100))
    assert not [figure for figure in all_figures(history, plain) if "target" in figure.key]
    assert not {"critical-batch-size", "updates-to-target-1"} & set(tables(plain))
    assert "critical batch size" not in page_html(PageContent("planted", history, plain))


def test_labels_go_on_behind_z() -> None:
    labels = list(itertools.islice(_labels(), 24))
    assert (labels[0], labels[21:]) == ("E", ["Z", "AA", "AB"])
