"""What it does to the critical batch size that the trials it is fitted to have chosen the learning rates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from batchscope.analysis import Settings, TargetSpec, analyze
from batchscope.analysis.critical import _spans
from batchscope.analysis.critical_likelihood import least_deviance
from batchscope.analysis.to_target import rates_to_target
from batchscope.analysis.to_target_results import TrialToTarget
from to_target_samples import B_CRIT, S_MIN, TARGET, drawn_trials, planted_history

TOLD = "target_learning_rate_optimism"
SMALL, LARGE = (8, 16, 32, 64), (128, 256, 512, 1024)
Tried = Mapping[int, int]


def estimated(rates: Tried, replicates: Tried, sd: float, seeds: int = 25) -> tuple[float, float]:
    """The curve's height and B_crit as shares of the truth, with so many equally good rates a batch size.

    The height is the geometric mean of S_min and E_min; both are geometric means over the seeds.
    """
    found = []
    for seed in range(seeds):
        trials: list[TrialToTarget] = []
        for place in range(max(rates.values())):
            drawn = [
                one
                for size in rates
                if place < rates[size]
                for one in drawn_trials(
                    1_000_000 * seed + 10_000 * place + size,
                    sizes=(size,),
                    replicates=replicates[size],
                    sd=sd,
                )
            ]
            trials += [dataclasses.replace(one, learning_rate=0.1 * 2**place) for one in drawn]
        best = {row.batch_size: row.learning_rate for row in rates_to_target(trials, 0.95) if row.best}
        fit = least_deviance(_spans([one for one in trials if one.learning_rate == best[one.batch_size]]))
        found.append(((fit.log_updates + fit.log_examples) / 2, fit.log_critical))
    height, critical = (math.exp(value) for value in np.mean(found, axis=0))
    return height / (S_MIN * math.sqrt(B_CRIT)), critical / B_CRIT


def alike(number: int) -> Tried:
    return dict.fromkeys((*SMALL, *LARGE), number)


def unlike(small: int, large: int) -> Tried:
    return dict.fromkeys(SMALL, small) | dict.fromkeys(LARGE, large)


def test_luck_grows_with_scatter_and_rates_and_falls_with_replicates() -> None:
    chosen, _ = estimated(alike(3), alike(3), 0.2)
    single, _ = estimated(alike(1), alike(3), 0.2)
    assert single == pytest.approx(1, abs=0.02)
    assert chosen < single - 0.05
    assert estimated(alike(3), alike(3), 0.4)[0] < chosen - 0.02
    assert estimated(alike(8), alike(3), 0.2)[0] < chosen - 0.02
    assert estimated(alike(3), alike(1), 0.2)[0] < chosen - 0.02


def test_unequal_luck_shifts_the_critical_batch_size_as_the_note_says() -> None:
    _, same = estimated(alike(5), alike(1), 0.2)
    assert same == pytest.approx(1, abs=0.1)
    assert estimated(unlike(5, 2), alike(1), 0.2)[1] < same - 0.05
    assert estimated(alike(5), unlike(1, 5), 0.2)[1] < same - 0.05
    assert estimated(unlike(2, 5), alike(1), 0.2)[1] > same + 0.05
    assert estimated(alike(5), unlike(5, 1), 0.2)[1] > same + 0.05


def note(history: pd.DataFrame) -> str:
    target = TargetSpec(metric="val_accuracy", value=TARGET)
    analysis = analyze(history, Settings(resamples=100, targets=(target,)))
    return next(sentence.text for sentence in analysis.notes if sentence.rule == TOLD)


def test_the_note_tells_equal_from_unequal_numbers_of_rates_and_trials() -> None:
    history = planted_history(parts=4)
    shifted = "the critical batch size is shifted too: it comes out too small where the smaller ones"
    assert shifted not in note(history)
    assert "is shifted only where at some of them more rates are about equally good" in note(history)
    fewer_rates = history[(history["batch_size"] > 64) | (history["grid_learning_rate"] > 0.01)]
    fewer_trials = history[(history["batch_size"] > 64) | (history["replicate"] < 3)]
    for unequal in (fewer_rates, fewer_trials):
        assert shifted in note(unequal)
        assert "is shifted only where" not in note(unequal)
