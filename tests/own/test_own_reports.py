"""What may be reported of an epoch, and which epoch it is taken for."""

from __future__ import annotations

import math
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from batchscope.analysis.panel import check_figures
from batchscope.errors import HistoryError
from batchscope.own import ledger as ledgers
from batchscope.own.ledger import Ledger, TrialOverError
from batchscope.own.reports import check_report
from batchscope.records import EpochRecord

BATCH = 16
GOOD = {"updates": 10, "val_accuracy": 0.5}


class Tensor:
    """One element, as PyTorch has it: no number, but with a way to one."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def item(self) -> float:
        [value] = self.values
        return value


@pytest.mark.parametrize(
    "value",
    [0.25, np.float32(0.25), np.array(0.25), np.array([0.25]), Tensor(0.25), Decimal("0.25")],
    ids=lambda value: type(value).__name__,
)
def test_a_figure_may_be_whatever_is_one_number(value: object):
    report = check_report({"updates": np.int64(10), "val_accuracy": value, "norm": value}, BATCH)
    assert (report.updates, report.metrics, report.columns) == (10, {"val_accuracy": 0.25}, {"norm": 0.25})
    assert type(report.updates) is int
    assert type(report.metrics["val_accuracy"]) is float


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_accuracy": "0.5"}, "val_accuracy must be one number, but got '0.5'"),
        ({"val_accuracy": True}, "val_accuracy must be one number, but got True"),
        ({"val_accuracy": None}, "val_accuracy must be one number, but got None"),
        ({"val_accuracy": np.ones(2)}, r"val_accuracy must be one number, but got array\(\[1., 1.\]\)"),
        ({"val_accuracy": np.array("0.5")}, "val_accuracy must be one number"),
        ({"val_accuracy": Tensor(0.1, 0.2)}, "val_accuracy must be one number"),
        ({"val_accuracy": [0.5]}, "val_accuracy must be one number"),
        ({"val_accuracy": 1j}, "val_accuracy must be one number"),
        ({"norm": {}}, r"norm must be one number, but got \{\}"),
        ({"val_accuracy": 93.5}, "val_accuracy must lie between 0 and 1, but got 93.5; divide percentages"),
        ({"train_accuracy": -0.1}, "train_accuracy must lie between 0 and 1, but got -0.1"),
        ({"updates": 0}, "updates must be a whole number from 1 up, but got 0"),
        ({"updates": 2.5}, "updates must be a whole number from 1 up, but got 2.5"),
        ({"updates": math.nan}, "updates must be a whole number from 1 up, but got nan"),
        ({"examples": 10**400}, "examples must be one number"),
        ({"examples": 2**54}, "examples must be a whole number"),
        ({"epoch": 0}, "epoch must be a whole number from 1 up, but got 0"),
        ({"seconds": -1.0}, "seconds must be a number from 0 up, but got -1.0"),
        ({"seconds": math.inf}, "seconds must be a number from 0 up, but got inf"),
        (
            {"seconds": 1e39},
            "seconds must be a figure that float32 can hold, up to 3.4e\\+38, but got 1e\\+39",
        ),
        ({"val_loss": 1e39}, "val_loss must be a figure that float32 can hold"),
        ({"probe_norm": -1e39}, "probe_norm must be a figure that float32 can hold"),
        ({"selection_accuracy": 50}, "selection_accuracy must lie between 0 and 1, but got 50"),
        ({"within_1_val_accuracy": 1.1}, "within_1_val_accuracy must lie between 0 and 1, but got 1.1"),
        ({"learning_rate": -0.1}, "learning_rate must be a number from 0 up, but got -0.1"),
        ({"stage": ""}, "stage must be a name .* but got ''"),
        ({"stage": 1}, "stage must be a name .* but got 1"),
        ({"batch_size": 16}, "a report must leave batch_size out: the run knows it"),
        ({"trial": "b16-r1"}, "a report must leave trial out"),
        ({"grid_learning_rate": 0.1}, "a report must leave grid_learning_rate out"),
        ({"two words": 1}, "a further column must have a name .* but got 'two words'"),
    ],
)
def test_what_is_no_figure_of_its_column_is_refused(changes: dict[str, object], message: str):
    with pytest.raises(HistoryError, match=f"^{message}"):
        check_report(GOOD | changes, BATCH)


@pytest.mark.parametrize("value", [1e39, -1e39, 1.5, -0.5, 0.5, math.nan, math.inf, 3e38])
@pytest.mark.parametrize(
    "name",
    ["val_accuracy", "val_loss", "probe_clean_accuracy", "selection_accuracy", "within_1_val_loss", "norm"],
)
def test_what_the_analysis_refuses_is_refused_when_it_is_reported(name: str, value: float):
    """Else one such figure would stand in the way of a whole history."""
    refused = []
    for check in (
        lambda: check_figures(pd.DataFrame({"val_accuracy": [0.5]} | {name: [value]})),
        lambda: check_report(GOOD | {name: value}, BATCH),
    ):
        try:
            check()
        except HistoryError:
            refused.append(check)
    assert len(refused) in (0, 2)
    assert bool(refused) == (name != "norm" and math.isfinite(value) and is_absurd(name, value))


def is_absurd(name: str, value: float) -> bool:
    return not 0 <= value <= 1 if name.endswith("_accuracy") else abs(value) > 3.5e38


def test_what_a_report_needs_is_told():
    with pytest.raises(HistoryError, match=r"must hold val_accuracy or val_loss, but has updates$"):
        check_report({"updates": 10}, BATCH)
    with pytest.raises(HistoryError, match=r"must hold updates or examples .* but has val_loss$"):
        check_report({"val_loss": 1.0}, BATCH)


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        ({"updates": 10}, (10, 160)),
        ({"examples": 160}, (10, 160)),
        ({"examples": 161}, (11, 161)),
        ({"updates": 12, "examples": 161}, (12, 161)),
    ],
)
def test_one_of_updates_and_examples_tells_the_other(given: dict[str, object], counts: tuple[int, int]):
    report = check_report({"val_loss": 1.0} | given, BATCH)
    assert (report.updates, report.examples) == counts


def test_nan_and_infinity_are_kept():
    report = check_report({"updates": 1, "val_loss": math.inf, "train_accuracy": math.nan}, BATCH)
    assert report.metrics["val_loss"] == math.inf
    assert math.isnan(report.metrics["train_accuracy"])


class Kept:
    """An outlet that keeps what it is given, and takes its time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.records: list[EpochRecord] = []
        self.discards: list[tuple[int, bool]] = []

    def store(self, record: EpochRecord) -> None:
        self.records.append(record)
        self.now += 5

    def discard(self, epoch: int, *, replaced: bool) -> None:
        self.discards.append((epoch, replaced))
        self.records = [record for record in self.records if record.epoch < epoch]


class Trial:
    """A trial whose code is called, and called again, with a clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kept = Kept()
        monkeypatch.setattr(ledgers, "time", SimpleNamespace(monotonic=lambda: self.kept.now))
        self.call()

    def call(self) -> None:
        self.ledger = Ledger(BATCH, None, self.kept.records, self.kept)

    def report(self, updates: int, accuracy: float = 0.5, **more: object) -> None:
        self.kept.now += 2
        self.ledger.take({"updates": updates, "val_accuracy": accuracy, **more})

    @property
    def rows(self) -> list[tuple[int, int, float]]:
        return [(record.epoch, record.updates, record.val_accuracy) for record in self.kept.records]


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Trial:
    return Trial(monkeypatch)


def test_epochs_and_seconds_count_on_through_an_interruption(trial: Trial):
    trial.report(10, 0.1)
    trial.report(20, 0.2)
    trial.call()
    trial.report(30, 0.3)
    trial.report(40, 0.4, seconds=50.5)
    assert trial.rows == [(1, 10, 0.1), (2, 20, 0.2), (3, 30, 0.3), (4, 40, 0.4)]
    # The clock stands still while a record is stored.
    assert [record.seconds for record in trial.kept.records] == [2, 4, 6, 50.5]
    assert trial.ledger.records == tuple(trial.kept.records)
    assert trial.kept.records[0].unreported == ("train_loss", "train_accuracy", "val_loss", "learning_rate")


@pytest.mark.parametrize("epoch", [{}, {"epoch": 2}])
def test_an_epoch_that_is_reported_again_passes_with_the_same_figures(trial: Trial, epoch: dict[str, int]):
    """As when a kill came between the record and the checkpoint."""
    trial.report(10, 0.1)
    trial.report(20, 0.2, norm=math.nan, step_seconds=1.0)
    before = list(trial.kept.records)
    trial.call()
    trial.report(20, 0.2, norm=math.nan, step_seconds=3.0, **epoch)
    trial.report(30, 0.3)
    assert trial.kept.records[:2] == before
    assert trial.rows[2:] == [(3, 30, 0.3)]
    assert trial.kept.records[2].seconds == 4 + 2
    assert trial.kept.discards == []


def test_code_that_begins_anew_passes_as_long_as_it_repeats_itself(trial: Trial):
    for epoch in (1, 2):
        trial.report(10 * epoch, 0.1 * epoch)
    trial.call()
    for epoch in (1, 2, 3):
        trial.report(10 * epoch, 0.1 * epoch)
    assert [row[0] for row in trial.rows] == [1, 2, 3]
    assert trial.kept.discards == []


def test_code_that_begins_anew_and_comes_to_other_figures_replaces_what_is_stored_from_there_on(trial: Trial):
    for epoch in (1, 2, 3):
        trial.report(10 * epoch, 0.1 * epoch)
    trial.call()
    trial.report(10, 0.1)
    trial.report(20, 0.7)
    assert trial.kept.discards == [(2, True)]
    assert trial.rows == [(1, 10, 0.1), (2, 20, 0.7)]
    trial.report(30, 0.8)
    assert trial.rows[2] == (3, 30, 0.8)


@pytest.mark.parametrize(
    ("epochs", "discards", "left"),
    [
        ([1, 2], [(3, False)], 2),
        ([1], [(2, False)], 1),
        ([1, 2, 3], [], 3),
        ([2], [], 3),  # it goes on, from before the last
        ([], [], 3),  # its state is that of the end
    ],
)
def test_what_is_stored_beyond_the_end_of_code_that_began_anew_is_discarded(
    trial: Trial, epochs: list[int], discards: list[tuple[int, bool]], left: int
):
    for epoch in (1, 2, 3):
        trial.report(10 * epoch, 0.1 * epoch)
    trial.call()
    for epoch in epochs:
        trial.report(10 * epoch, 0.1 * epoch)
    trial.ledger.end()
    assert trial.kept.discards == discards
    assert [row[0] for row in trial.rows] == list(range(1, left + 1))
    assert trial.ledger.records == tuple(trial.kept.records)


def test_code_that_goes_on_from_another_state_than_the_stored_one_is_refused(trial: Trial):
    for epoch in (1, 2, 3):
        trial.report(10 * epoch, 0.1 * epoch)
    trial.call()
    with pytest.raises(HistoryError) as caught:
        trial.report(20, 0.7)
    assert str(caught.value).startswith(
        "epoch 2 is stored already, with other figures: val_accuracy 0.2 and now 0.7; code that goes on must"
    )
    assert (trial.kept.discards, len(trial.rows)) == ([], 3)


@pytest.mark.parametrize(
    ("call_again", "report", "message"),
    [
        (True, {"updates": 50, "epoch": 4}, "without a gap, and 2 are stored, but got epoch 4 first"),
        (True, {"updates": 15}, "2 epochs are stored, and none of them has 15 updates; say with epoch="),
        (False, {"updates": 30, "epoch": 4}, "after epoch 2 comes 3, but got epoch 4"),
        (False, {"updates": 30, "epoch": 2}, "after epoch 2 comes 3, but got epoch 2"),
        (False, {"updates": 20}, "updates must count on .* epoch 2 has 20 and epoch 3 has 20"),
        (False, {"updates": 30, "examples": 320}, "examples must count on"),
        (
            False,
            {"updates": 30, "seconds": 1.0},
            "seconds must count on .* epoch 2 has 4.0 and epoch 3 has 1",
        ),
    ],
)
def test_what_leaves_a_hole_or_does_not_count_on_is_refused_and_changes_nothing(
    trial: Trial, call_again: bool, report: dict[str, int], message: str
):
    trial.report(10)
    trial.report(20)
    if call_again:
        trial.call()
    with pytest.raises(HistoryError, match=message):
        trial.report(accuracy=0.9, **report)
    trial.report(30, 0.3)
    assert trial.rows[2] == (3, 30, 0.3)


def test_a_stage_comes_in_one_piece(trial: Trial):
    trial.report(10, stage="head")
    trial.report(20, stage="tail")
    with pytest.raises(HistoryError, match="in one piece, but head comes again after tail"):
        trial.report(30, stage="head")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_figure_that_is_not_finite_is_stored_and_ends_the_trial(trial: Trial, value: float):
    trial.report(10)
    with pytest.raises(TrialOverError):
        trial.report(20, value)
    assert [record.diverged for record in trial.kept.records] == [False, True]
    assert not issubclass(TrialOverError, Exception)  # which code may catch by mistake


def test_further_columns_may_be_nan(trial: Trial):
    trial.report(10, norm=math.nan)
    assert not trial.kept.records[0].diverged


def test_the_trials_learning_rate_is_that_of_reports_that_tell_none(trial: Trial):
    ledger = Ledger(BATCH, 0.1, [], trial.kept)
    ledger.take({"updates": 1, "val_loss": 1.0})
    ledger.take({"updates": 2, "val_loss": 1.0, "learning_rate": 0.01})
    assert [record.learning_rate for record in trial.kept.records] == [0.1, 0.01]
