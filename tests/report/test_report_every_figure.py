"""Every figure there is has what the page's script needs of it."""

from __future__ import annotations

from every_figure import EVERY_FIGURE, KINDS

from batchscope.analysis import analyze
from batchscope.report.figure import Figure
from batchscope.report.figures import all_figures
from batchscope.report.render import svg


def found() -> list[Figure]:
    figures = []
    for history, settings in KINDS.values():
        made = history()
        figures += all_figures(made, analyze(made, settings))
    return figures


def test_every_figure_can_save_its_data() -> None:
    figures = found()
    assert {figure.key for figure in figures} == EVERY_FIGURE
    for figure in figures:
        spec = figure.spec()
        assert spec["datasets"][spec["data"]["name"]], figure.key


def test_a_drawing_is_the_same_whatever_was_drawn_before() -> None:
    figure = next(figure for figure in found() if figure.key == "throughput")
    first, second = svg(figure, 4), svg(figure, 4)
    assert "#clip0" in first
    assert first == second
