"""Which batch size for what, and what a budget in epochs can show."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis_samples import made_history
from batchscope.analysis import Analysis, Settings, analyze
from batchscope.analysis.practical import PracticalRow
from batchscope.analysis.settings import RecipeFacts, WorkersUsed
from batchscope.errors import HistoryError
from batchscope.report.practical_table import practical_table
from budgeted import budgeted_history

FINAL = {16: 0.90, 64: 0.898, 256: 0.80}
SECONDS = {16: 100.0, 64: 40.0, 256: 20.0}
PEAK = {16: 2e9, 64: 3e9, 256: 6e9}


def planted(**keep: object) -> pd.DataFrame:
    """Each batch size gets to its final accuracy at the third of four epochs, 2 replicates apart by 0.002."""

    def val(size: int, replicate: int, epoch: int, _: float) -> float:
        return FINAL[size] + 0.002 * (replicate - 1.5) - 0.1 * max(3 - epoch, 0)

    history = made_history(batch_sizes=tuple(FINAL), replicates=2, epochs=4, val=val)
    history["seconds"] = history["epoch"] * history["batch_size"].map(SECONDS)
    return history.assign(probe_peak_memory=history["batch_size"].map(PEAK)).drop(
        columns=keep.get("drop", [])
    )


def rows(history: pd.DataFrame, **settings: object) -> dict[int, PracticalRow]:
    return {row.batch_size: row for row in analyze(history, Settings(**settings)).practical}


def test_each_batch_size_has_its_seconds_price_and_memory():
    found = rows(planted(), price_per_hour=36.0, memory_limit=4_000_000_000)
    assert [found[size].metric for size in FINAL] == pytest.approx(list(FINAL.values()))
    assert [found[size].within_margin for size in FINAL] == [True, True, False]
    assert [found[size].seconds for size in FINAL] == [300.0, 120.0, None]
    assert [found[size].price for size in FINAL] == pytest.approx([3.0, 1.2, None])
    assert [found[size].peak_memory for size in FINAL] == [2e9, 3e9, 6e9]
    assert [found[size].fits for size in FINAL] == [True, True, False]
    assert [found[size].purposes for size in FINAL] == [("most_accurate",), ("fastest",), ()]


def test_the_replicate_that_took_most_decides_what_fits():
    history = planted()
    last = history["epoch"] == 4
    history.loc[last & (history["batch_size"] == 64) & (history["replicate"] == 2), "probe_peak_memory"] = 5e9
    found = rows(history, memory_limit=4_500_000_000)  # the mean of both, 4e9, would fit
    assert (found[64].peak_memory, found[64].fits, found[64].purposes) == (5e9, False, ())
    assert found[16].purposes == ("most_accurate", "fastest")
    assert rows(history.drop(columns="seconds"))[64].peak_memory == 5e9


@pytest.mark.parametrize(
    ("workers", "said"),
    [
        ((), "without evaluation and probes. Whether"),
        ((WorkersUsed(1, 4),), "without evaluation and probes. Whether"),
        (
            (WorkersUsed(3, 2), WorkersUsed(2, 2)),
            "up to 3 trials ran side by side on it, so it is up to 3 times a trial's share. Whether",
        ),
    ],
)
def test_the_note_tells_what_a_price_holds(workers: tuple[WorkersUsed, ...], said: str):
    recipe = RecipeFacts(workers=workers)
    assert said in practical_table(analyze(planted(), Settings(price_per_hour=36.0), recipe)).note
    assert "price" not in practical_table(analyze(planted(), Settings(), recipe)).note


def test_what_does_not_fit_is_the_best_for_nothing():
    found = rows(planted(), memory_limit=1_999_999_999)
    assert [found[size].purposes for size in FINAL] == [(), (), ()]
    found = rows(planted(), memory_limit=2_000_000_000)
    assert found[16].purposes == ("most_accurate", "fastest")


def test_without_time_and_memory_nothing_is_made_up():
    analysis = analyze(planted(drop=["seconds", "probe_peak_memory"]), Settings(price_per_hour=1.0))
    assert {(row.seconds, row.price, row.peak_memory, row.fits) for row in analysis.practical} == {
        (None, None, None, None)
    }
    assert practical_table(analysis).rows == ()


def test_a_batch_size_with_a_diverged_trial_is_left_out():
    history = planted()
    history.loc[(history["batch_size"] == 16) & (history["replicate"] == 1), "val_loss"] = np.nan
    assert list(rows(history)) == [64, 256]


def test_the_table_shows_prices_where_one_was_given():
    table = practical_table(analyze(planted(), Settings(price_per_hour=36.0, memory_limit=4_000_000_000)))
    assert table.columns == ("Batch size", "Validation accuracy", "Seconds", "Price", "Peak memory", "Remark")
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["16", "0.900", "300", "3", "2.00 GB", "ends best"],
        ["64", "0.898", "120", "1.2", "3.00 GB", "fastest to the margin"],
        [
            "256",
            "0.800",
            "\u2013",
            "\u2013",
            "6.00 GB",
            "not within the margin, takes more memory than allowed",
        ],
    ]
    assert "Price" not in practical_table(analyze(planted())).columns


@pytest.mark.parametrize(
    "settings", [{"price_per_hour": 0.0}, {"price_per_hour": float("nan")}, {"memory_limit": 0}]
)
def test_bad_settings_are_refused(settings: dict[str, float]):
    with pytest.raises(HistoryError, match="must be above 0"):
        Settings(**settings)


def note(analysis: Analysis) -> dict[str, object] | None:
    return next((dict(each.figures) for each in analysis.notes if each.rule == "epoch_budget"), None)


def test_a_budget_in_epochs_is_told_with_the_updates_it_gives():
    assert note(analyze(planted())) == {"batch_size": 16, "largest": 256, "ratio": pytest.approx(875 / 54)}
    assert note(analyze(planted(drop=["updates"]))) is None
    assert note(analyze(made_history(batch_sizes=(16,), epochs=2))) is None
    assert note(analyze(budgeted_history())) is None
