"""Throughput of a history: against a slow plain loop and SciPy's interval, on planted and bad input."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis_samples import made_history
from batchscope.analysis import RecipeFacts, WorkersUsed, analyze
from batchscope.analysis.throughput import Throughput
from batchscope.records import PEAK_MEMORY

STAGES = (("head", 3), ("tail", 1))


def timed_history(stages: tuple[tuple[str, int], ...] = STAGES) -> pd.DataFrame:
    """Epochs of random lengths, the first of each stage ten times as long."""
    history = made_history(stages=stages)
    rng = np.random.default_rng(5)
    steps = rng.uniform(1, 2, len(history))
    first = ~history.duplicated(["trial", "stage"])
    steps[first.to_numpy()] *= 10
    history["seconds"] = pd.Series(steps).groupby(history["trial"].to_numpy()).cumsum().to_numpy()
    history[PEAK_MEMORY] = 1e9 + 1e6 * history["batch_size"] + rng.uniform(0, 1e6, len(history))
    return history


def slow(history: pd.DataFrame, stage: str, batch_size: int) -> tuple[list[float], list[float], list[float]]:
    """Examples a second, seconds an update and peak of each trial, by a plain loop over its rows."""
    rates, updates, peaks = [], [], []
    for _, trial in history[history["batch_size"] == batch_size].groupby("replicate"):
        before = {"examples": 0.0, "seconds": 0.0, "updates": 0.0}
        steps = []
        most = 0.0
        for row in trial.sort_values("epoch").to_dict("records"):
            if row["stage"] == stage:
                steps.append({name: row[name] - value for name, value in before.items()})
                most = max(most, row[PEAK_MEMORY])
            before = {name: row[name] for name in before}
        counted = steps[1:] if len(steps) > 1 else steps
        sums = {name: sum(step[name] for step in counted) for name in before}
        rates.append(sums["examples"] / sums["seconds"])
        updates.append(sums["seconds"] / sums["updates"])
        peaks.append(most)
    return rates, updates, peaks


def test_figures_are_those_of_a_plain_loop_with_scipys_interval():
    history = timed_history()
    found = analyze(history).throughput
    assert [(row.stage, row.batch_size, row.n_epochs) for row in found.rows] == [
        (stage, size, epochs) for stage, epochs in (("head", 6), ("tail", 3)) for size in (16, 32, 64, 128)
    ]
    for row in found.rows:
        estimates = row.examples_per_second, row.seconds_per_update, row.peak_memory
        for estimate, values in zip(estimates, slow(history, row.stage, row.batch_size), strict=True):
            assert estimate is not None
            assert (estimate.n, estimate.mean) == (3, pytest.approx(np.mean(values), rel=1e-12))
            low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
            assert (estimate.low, estimate.high) == (pytest.approx(low), pytest.approx(high))


def test_the_first_epoch_of_a_stage_counts_where_it_is_the_only_one():
    found = analyze(timed_history((("head", 1), ("tail", 4)))).throughput
    assert [row.n_epochs for row in found.rows] == [3] * 4 + [9] * 4


def planted(seconds: list[float]) -> Throughput:
    """One trial of 100 examples an epoch in 10 updates, which ends after so many seconds each."""
    epochs = np.arange(1, len(seconds) + 1)
    history = pd.DataFrame(
        {
            "batch_size": 10,
            "replicate": 1,
            "epoch": epochs,
            "examples": 100 * epochs,
            "updates": 10 * epochs,
            "seconds": seconds,
            "val_loss": 1.0,
        }
    )
    return analyze(history).throughput


def test_planted_figures_are_found():
    [row] = planted([9.0, 11.0, 13.0]).rows
    assert (row.examples_per_second.mean, row.n_epochs, row.peak_memory) == (50.0, 2, None)
    assert row.seconds_per_update is not None
    assert row.seconds_per_update.mean == 0.2
    assert np.isnan(row.examples_per_second.low)


def test_a_clock_that_stands_still_tells_no_throughput():
    [row] = planted([5.0, 5.0, 5.0]).rows
    assert row.examples_per_second.n == 0
    assert np.isnan(row.examples_per_second.mean)


def test_epochs_whose_seconds_are_missing_are_left_out():
    [row] = planted([9.0, np.nan, 13.0, 15.0]).rows
    assert (row.n_epochs, row.examples_per_second.mean) == (1, 50.0)


@pytest.mark.parametrize("column", ["seconds", "examples"])
def test_without_its_columns_there_is_a_reason(column: str):
    found = analyze(made_history(epochs=2).drop(columns=column)).throughput
    assert (found.rows, found.reason) == ((), f"throughput needs the column {column}")


def test_without_updates_their_seconds_are_none():
    found = analyze(made_history(epochs=2).drop(columns="updates")).throughput
    assert {row.seconds_per_update for row in found.rows} == {None}


def test_trials_that_ended_early_count_with_what_they_have():
    history = timed_history((("one", 4),))
    short = history[(history["replicate"] != 2) | (history["epoch"] <= 2)]
    found = analyze(short).throughput
    for row in found.rows:
        values = slow(short, "one", row.batch_size)[0]
        assert row.examples_per_second.mean == pytest.approx(np.mean(values), rel=1e-12)
        assert row.n_epochs == 3 + 1 + 3


def notes(*workers: WorkersUsed) -> list[str]:
    analysis = analyze(made_history(epochs=2), recipe=RecipeFacts(workers=workers))
    return [note.text for note in analysis.notes if note.rule == "throughput"]


def test_how_trials_shared_the_machine_is_said():
    assert notes() == []
    assert notes(WorkersUsed(1, 8)) == ["Throughput is that of trials in 1 worker of 8 threads."]
    beside = "trials that ran side by side took cores and memory from each other."
    assert notes(WorkersUsed(2, 4)) == [f"Throughput is that of trials in 2 workers of 4 threads: {beside}"]
    several = (
        "1 worker of 8 threads and 8 workers of 1 thread, one after the other, and not told apart by these"
    )
    assert notes(WorkersUsed(1, 8), WorkersUsed(8, 1)) == [
        f"Throughput is that of trials in {several}: {beside}"
    ]


def test_memory_alone_makes_no_history_one_with_probes():
    history = timed_history()
    rules = [note.rule for note in analyze(history).notes]
    assert "decomposition_missing" not in rules
    probed = history.assign(probe_train_clean_accuracy=0.5)
    assert "decomposition_missing" in [note.rule for note in analyze(probed).notes]
