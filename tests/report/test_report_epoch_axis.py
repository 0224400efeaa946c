"""Ticks of epochs are whole numbers, few epochs or many."""

from __future__ import annotations

import re

import pytest
from planted import planted

from batchscope.analysis import Settings, analyze
from batchscope.report.encodings import EPOCH_TICKS, whole_ticks
from batchscope.report.figures import all_figures
from batchscope.report.render import svg


@pytest.mark.parametrize(
    ("limits", "ticks"),
    [
        ((3, 5), [3, 4, 5]),
        ((2, 3), [2, 3]),
        ((0, 1), [0, 1]),
        ((0, 5), [0, 1, 2, 3, 4, 5]),
        ((0, 6), [0, 2, 4, 6]),
        ((0, 20), [0, 5, 10, 15, 20]),
        ((10, 20), [10, 12, 14, 16, 18, 20]),
        ((101, 113), [102, 104, 106, 108, 110, 112]),
        ((0, 300), [0, 100, 200, 300]),
    ],
)
def test_ticks_are_whole_round_and_few(limits: tuple[int, int], ticks: list[int]) -> None:
    assert whole_ticks(*limits) == ticks
    assert len(ticks) <= EPOCH_TICKS


def test_few_epochs_have_each_tick_once_in_every_figure() -> None:
    history = planted(lambda size, replicate, epoch: 0.7 + 0.01 * epoch + size / 1000, epochs=5)
    axes = {}
    for figure in all_figures(history, analyze(history, Settings(resamples=100))):
        text = svg(figure, 2)
        labels = re.findall(r"X-axis titled 'Epoch' for a linear scale with values from (\d+) to (\d+)", text)
        axes[figure.key] = labels
        for axis in re.findall(r"X-axis titled 'Epoch'.*?role-axis-title", text, flags=re.S):
            ticks = [int(tick) for tick in re.findall(r">(\d+)</text>", axis)]
            assert ticks == sorted(set(ticks)), figure.key
            assert len(ticks) >= 3
    assert axes["epochs-and-updates"] == [("0", "3"), ("3", "5")]
    assert axes["c-means-accuracy"] == [("0", "5")] * 2
    assert axes["a-replicates-accuracy"] == axes["b-together-accuracy"] == [("0", "5")] * 2
