"""Figures, tables and page where batch sizes end at different epochs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from batchscope.analysis import Analysis, Settings, analyze
from batchscope.report.by_batch_size import by_batch_size_chart, by_batch_size_info
from batchscope.report.content import PageContent
from batchscope.report.curves import stage_starts
from batchscope.report.figures import all_figures
from batchscope.report.gap import gap_info
from batchscope.report.means import means_info
from batchscope.report.moments import end_moment, late_moments
from batchscope.report.page import page_html
from batchscope.report.replicates import replicates_info
from batchscope.report.spread import spread_info
from batchscope.report.tables import analysis_tables
from batchscope.report.together import together_info
from batchscope.report.updates import updates_chart, updates_figure, updates_info
from budgeted import budgeted_history, follows_updates

FEW = Settings(resamples=100)
OWN = {16: 7, 32: 12, 64: 24, 128: 47}
END = "each batch size's end, 5,000 updates"


@pytest.fixture(scope="module")
def history() -> pd.DataFrame:
    """Validation falls by 0.01 with each doubling of the batch size."""
    return budgeted_history(val=lambda b, r, u: follows_updates(b, r, u) - 0.01 * float(np.log2(b / 16)))


@pytest.fixture(scope="module")
def known(history: pd.DataFrame) -> Analysis:
    return analyze(history, FEW)


def expected(size: int) -> float:
    return follows_updates(size, 2, 5000) - 0.01 * float(np.log2(size / 16))


def test_figures_compare_each_batch_size_at_its_end(history: pd.DataFrame, known: Analysis) -> None:
    means = means_info(history, "accuracy", known.facts)
    assert {level.batch_size: level.value for level in means.ends} == pytest.approx(
        {size: expected(size) for size in OWN}
    )
    assert means.title == (
        f"Mean validation accuracy falls from 0.949 at batch 16 to 0.919 at batch 128 ({END})"
    )
    together = together_info(history, "accuracy", known.facts)
    assert {size: train - val for size, (train, val) in together.ends.items()} == pytest.approx(
        {16: 0.01, 32: 0.02, 64: 0.03, 128: 0.04}
    )
    assert together.title.endswith(f"at batch 128: 0.959 against 0.919 ({END})")
    replicates = replicates_info(history, "accuracy", known.facts)
    assert replicates.spread == pytest.approx(dict.fromkeys(OWN, 0.001))
    assert replicates.title == (
        f"Replicates agree to within 0.001 in validation accuracy at every batch size ({END})"
    )


def test_without_facts_figures_compare_at_the_last_common_epoch(
    history: pd.DataFrame, known: Analysis
) -> None:
    assert end_moment(history, None).epochs == dict.fromkeys(OWN, 7)
    assert end_moment(history, known.facts).epochs == OWN
    assert [moment.epochs for moment in late_moments(history, known.facts)] == [
        {16: 6, 32: 9, 64: 18, 128: 36},
        OWN,
    ]


def test_by_batch_size_shows_all_of_them_at_both_moments(history: pd.DataFrame, known: Analysis) -> None:
    info = by_batch_size_info(history, "accuracy", known.facts)
    assert info.points.groupby("moment").size().to_dict() == {1: 4 * 3 * 2, 2: 4 * 3 * 2}
    assert [level.value for level in info.levels[1]] == pytest.approx([expected(size) for size in OWN])
    titles = [panel["title"] for panel in by_batch_size_chart(info).to_dict()["concat"]]
    assert titles == ["three quarters of the way", END]
    assert info.title.endswith(f"and at {END} (0.949 to 0.919)")


def test_figures_of_the_analysis_tell_its_ends(history: pd.DataFrame, known: Analysis) -> None:
    gap, spread = gap_info(known), spread_info(known)
    assert gap is not None
    assert spread is not None
    assert gap.points["gap"].tolist() == pytest.approx([0.01, 0.02, 0.03, 0.04])
    assert gap.title == f"The observed gap rises from 0.010 at batch 16 to 0.040 at batch 128 ({END})"
    assert spread.points["replicates"].tolist() == [3] * 4
    assert spread.title.endswith(f"({END})")


def test_the_figure_of_updates_does_not_match_what_was_given_alike(
    history: pd.DataFrame, known: Analysis
) -> None:
    info = updates_info(history, known)
    assert info is not None
    assert info.title == f"Validation accuracy falls from 0.949 at batch 16 to 0.919 at batch 128 ({END})"
    titles = [panel["title"] for panel in updates_chart(info).to_dict()["concat"]]
    assert {title["text"] for title in titles[1::2]} == {"By updates"}
    assert "Like for like" not in updates_figure(info).caption
    mixed = budgeted_history((("one", "epochs", 4), ("two", "updates", 3000)))
    both = updates_info(mixed, analyze(mixed, FEW))
    assert both is not None
    assert both.title.startswith("In one, most of the variance between batch sizes follows the number of")
    titles = [panel["title"]["text"] for panel in updates_chart(both).to_dict()["concat"][1::2]]
    assert titles == ["Updates explain most", "By updates"]
    assert "Like for like" in updates_figure(both).caption


def test_a_stage_that_starts_at_different_epochs_is_not_marked(history: pd.DataFrame) -> None:
    assert stage_starts(history) == ()
    mixed = budgeted_history((("one", "epochs", 4), ("two", "updates", 3000), ("three", "epochs", 1)))
    assert [(start.stage, start.epoch) for start in stage_starts(mixed)] == [("two", 5)]


def test_tables_and_page_have_no_empty_end(history: pd.DataFrame, known: Analysis) -> None:
    tables = {table.key: table for table in analysis_tables(known)}
    when = "each batch size's end (5,000 updates)"
    assert tables["summary"].note.endswith(f"t-interval. Marked: {when}.")
    ends = tables["summary"].rows[-4:]
    assert [(row[1].value, row[0].value, row[2].text) for row in ends] == [
        (size, epoch, "3") for size, epoch in OWN.items()
    ]
    assert [row[0].detail for row in tables["summary"].rows] == [""] * 4 + ["end"] * 4
    for key in ("comparisons", "trend", "spread"):
        assert when in tables[key].note
    assert [row[3].text for row in tables["comparisons"].rows] == ["3"] * 6
    remarks = [row[-1].text for row in tables["updates-share"].rows]
    assert [remark.rpartition(": ")[2] for remark in remarks] == [
        "equal epochs are the 3 that all have",
        "equal epochs are the 4 that all have",
    ]
    page = page_html(PageContent("budgeted", history, known))
    assert "12 trials · 5,000 updates</p>" in page
    assert "at epoch 47" not in page
    for figure in all_figures(history, known):
        assert "finite" not in figure.title
