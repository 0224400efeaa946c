"""The store: what is put in comes out, and nothing that goes wrong later takes it away."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from batchscope.errors import RunFolderError
from batchscope.history import COLUMNS
from batchscope.records import EpochRecord, Trial, TrialState
from batchscope.running.store import (
    SCHEMA_VERSION,
    DataSummary,
    LastEpoch,
    SampleImage,
    Store,
    TrialStatus,
)
from run_samples import FIRST, SECOND, record

NAN, INF = math.nan, math.inf


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(path, create=True) as opened:
        opened.plan([FIRST, SECOND])
        yield opened


def test_records_come_back_as_history_in_standard_order(store: Store):
    for trial, epoch in ((SECOND, 1), (FIRST, 1), (FIRST, 2)):
        store.add(trial, record(epoch))
    history = store.history("mine")
    assert list(history.columns) == list(COLUMNS)
    assert history[["trial", "epoch"]].to_numpy().tolist() == [["b8-r1", 1], ["b8-r1", 2], ["b16-r1", 1]]
    assert history.loc[1].to_dict() == {
        "study": "mine",
        "trial": "b8-r1",
        "batch_size": 8,
        "learning_rate": 1e-3,
        "replicate": 1,
        "stage": "one",
        "epoch": 2,
        "updates": 12,
        "examples": 96,
        "seconds": 4.0,
        "train_loss": 1 / 3,
        "train_accuracy": 0.8,
        "val_loss": 0.25,
        "val_accuracy": 0.7,
    }


def test_losses_that_are_not_finite_survive(store: Store):
    store.add(FIRST, record(1, train_loss=NAN, val_loss=INF))
    store.add(FIRST, record(2, train_loss=-INF, val_loss=NAN, val_accuracy=NAN))
    history = store.history("mine")
    np.testing.assert_array_equal(history["train_loss"], [NAN, -INF])
    np.testing.assert_array_equal(history["val_loss"], [INF, NAN])
    np.testing.assert_array_equal(history["val_accuracy"], [0.6, NAN])


def test_a_history_of_nothing_but_nan_keeps_its_types(store: Store):
    store.add(FIRST, record(1, train_loss=NAN, train_accuracy=NAN, val_loss=NAN, val_accuracy=NAN))
    history = store.history("mine")
    assert history["train_loss"].dtype == np.float64
    assert history[["train_loss", "train_accuracy", "val_loss", "val_accuracy"]].isna().all(axis=None)


def test_probes_become_columns_with_nan_where_there_is_none(store: Store):
    store.add(FIRST, record(1, probes={"norm": 2.5, "angle": NAN}))
    store.add(FIRST, record(2))
    store.add(SECOND, record(1, probes={"norm": INF, "lag": -0.25}))
    history = store.history("mine")
    assert list(history.columns) == [*COLUMNS, *history.columns[len(COLUMNS) :]]
    assert set(history.columns[len(COLUMNS) :]) == {"norm", "angle", "lag"}
    np.testing.assert_array_equal(history["norm"], [2.5, NAN, INF])
    np.testing.assert_array_equal(history["angle"], [NAN, NAN, NAN])
    np.testing.assert_array_equal(history["lag"], [NAN, NAN, -0.25])


def test_a_probe_that_is_never_a_number_keeps_its_column(store: Store):
    store.add(FIRST, record(1, probes={"norm": NAN}))
    history = store.history("mine")
    assert history["norm"].dtype == np.float64
    assert math.isnan(history["norm"][0])


def test_a_record_given_again_replaces_the_old_one_and_its_probes(store: Store, path: Path):
    store.add(FIRST, record(1, probes={"norm": 1.0, "angle": 2.0}))
    store.add(FIRST, record(1, val_loss=9.0, probes={"norm": 3.0}))
    history = store.history("mine")
    assert len(history) == 1
    assert history["val_loss"].tolist() == [9.0]
    assert history["norm"].tolist() == [3.0]
    assert "angle" not in history.columns
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM probe").fetchone() == (1,)


def test_a_trial_that_begins_anew_leaves_none_of_its_later_epochs(store: Store, path: Path):
    for epoch in (1, 2, 3):
        store.add(FIRST, record(epoch, probes={"norm": 1.0}))
        store.add(SECOND, record(epoch))
    store.add(FIRST, record(1, val_loss=9.0))
    history = store.history("mine")
    assert history[["trial", "epoch"]].to_numpy().tolist() == [
        ["b8-r1", 1],
        *(["b16-r1", epoch] for epoch in (1, 2, 3)),
    ]
    assert [status.epochs for status in store.trials()] == [1, 3]
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM probe").fetchone() == (0,)


def test_trials_of_a_grid_keep_their_learning_rates(path: Path):
    trials = [Trial(8, 1, 1e-5), Trial(8, 1, 0.1), Trial(8, 1, 10.0), Trial(8, 1)]
    with Store(path, create=True) as store:
        store.plan(trials[:3])
        assert [status.trial for status in store.trials()] == trials[:3]
        for trial in trials[:3]:
            store.add(trial, record(1, learning_rate=0.5, probes={"selection_loss": NAN}))
        history = store.history("mine")
        assert history["trial"].tolist() == ["b8-lr0.1-r1", "b8-lr10-r1", "b8-lr1e-05-r1"]
        assert history["grid_learning_rate"].tolist() == [0.1, 10.0, 1e-5]
        assert history["learning_rate"].tolist() == [0.5] * 3
        assert history["selection_loss"].isna().all()
        store.plan(trials[3:])
        store.add(trials[3], record(1))
        with_another = store.history("mine")
    assert with_another.set_index("trial")["grid_learning_rate"].isna().sum() == 1


def test_an_empty_history_has_the_columns(store: Store):
    history = store.history("mine")
    assert history.empty
    assert list(history.columns) == list(COLUMNS)


def test_planning_again_changes_nothing_and_keeps_the_order(store: Store):
    store.set_state(SECOND, TrialState.COMPLETE)
    store.plan([FIRST, SECOND])
    assert [status.trial for status in store.trials()] == [FIRST, SECOND]
    assert [status.state for status in store.trials()] == [TrialState.WAITING, TrialState.COMPLETE]


def test_states_counts_and_tracebacks_are_kept_after_closing(store: Store, path: Path):
    trace = 'Traceback:\n  File "x", line 1\nValueError: "ü" \x00 and \'quotes\''
    store.add(FIRST, record(1))
    store.add(FIRST, record(2))
    store.set_state(FIRST, TrialState.FAILED, trace)
    store.close()
    with Store(path) as again:
        assert again.trials() == [
            TrialStatus(FIRST, TrialState.FAILED, 2, trace),
            TrialStatus(SECOND, TrialState.WAITING, 0, None),
        ]
        again.set_state(FIRST, TrialState.RUNNING)
        assert again.trials()[0].error is None


@pytest.mark.parametrize(("loss", "finite"), [(0.5, True), (NAN, False), (INF, False), (-INF, False)])
def test_the_last_epoch_tells_whether_the_trial_diverged(store: Store, loss: float, finite: bool):
    assert store.last_epoch(FIRST) is None
    store.add(FIRST, record(1))
    store.add(FIRST, record(2, train_loss=loss))
    store.add(SECOND, record(3))
    assert store.last_epoch(FIRST) == LastEpoch(epoch=2, examples=96, seconds=4.0, finite=finite)


def test_sessions_gather_facts(store: Store):
    first = store.start_session("2026-01-01T00:00:00+00:00", {"cores": "2", "keras": "?"})
    second = store.start_session("2026-01-02T00:00:00+00:00", {})
    store.update_session(first, {"keras": "3.12"})
    store.update_session(second, {"python": "3.11"}, ended="2026-01-02T01:00:00+00:00")
    assert store.sessions() == [
        ("2026-01-01T00:00:00+00:00", None, {"cores": "2", "keras": "3.12"}),
        ("2026-01-02T00:00:00+00:00", "2026-01-02T01:00:00+00:00", {"python": "3.11"}),
    ]


def test_the_data_come_back_and_are_replaced_as_a_whole(store: Store):
    assert store.data() is None
    old = DataSummary("there", "f00", ("0", "1"), (3, 9), (1, 2), (("a.jpg", "is empty"), ("b", "ü")))
    store.keep_data(old, [SampleImage(str(n), "0", bytes([n, 0, 255])) for n in range(3)])
    assert store.data() == (old, [SampleImage(str(n), "0", bytes([n, 0, 255])) for n in range(3)])
    new = DataSummary("here", "ba5", ("cat",), (4,), (0,), (), (7,), ("a note",))
    store.keep_data(new, [SampleImage("z", "cat", b"png")])
    assert store.data() == (new, [SampleImage("z", "cat", b"png")])


def test_a_second_connection_reads_while_the_first_writes(store: Store, path: Path):
    store.add(FIRST, record(1))
    with Store(path) as reader:
        assert len(reader.history("mine")) == 1
        with closing(sqlite3.connect(path, isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("UPDATE epoch SET val_loss = 7")
            assert reader.history("mine")["val_loss"].tolist() == [pytest.approx(1 / 3)]
            writer.execute("COMMIT")
        assert reader.history("mine")["val_loss"].tolist() == [7.0]
        store.add(FIRST, record(2))
        assert reader.trials()[0].epochs == 2


def test_the_journal_is_a_write_ahead_log(store: Store, path: Path):
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def full(store: Store) -> None:
    """Lets the database grow no further."""
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")


def test_a_full_disk_stops_the_run_and_keeps_what_was_stored(store: Store, path: Path):
    store.add(FIRST, record(1))
    full(store)
    with pytest.raises(RunFolderError, match=r"results\.sqlite: the record could not be written: .*full"):
        store.set_state(SECOND, TrialState.FAILED, "x" * 100_000)
    assert not store._db.in_transaction
    assert store.trials()[1] == TrialStatus(SECOND, TrialState.WAITING, 0, None)
    store._db.execute("PRAGMA max_page_count = 100000")
    store.add(FIRST, record(2))
    store.close()
    with Store(path) as again:
        assert again.history("mine")["epoch"].tolist() == [1, 2]


def test_a_record_is_stored_whole_or_not_at_all(store: Store):
    store.add(FIRST, record(1, val_loss=3.0, probes={"norm": 1.0}))
    full(store)
    many = {f"probe {number} with a long name": float(number) for number in range(2_000)}
    with pytest.raises(RunFolderError, match="what was stored before is safe"):
        store.add(FIRST, record(1, val_loss=4.0, probes=many))
    history = store.history("mine")
    assert history["val_loss"].tolist() == [3.0]
    assert history["norm"].tolist() == [1.0]


def test_a_record_of_an_unknown_trial_is_refused(store: Store):
    with pytest.raises(RunFolderError, match="FOREIGN KEY"):
        store.add(Trial(batch_size=3, replicate=1), record(1))
    assert store.history("mine").empty


def test_an_error_from_outside_leaves_no_transaction_open(store: Store):
    class Broken(EpochRecord):
        @property
        def probes(self) -> object:  # type: ignore[override]
            raise KeyboardInterrupt

    values = {name: value for name, value in vars(record(1)).items() if name != "probes"}
    broken = object.__new__(Broken)
    broken.__dict__.update(values)
    with pytest.raises(KeyboardInterrupt):
        store.add(FIRST, broken)
    assert not store._db.in_transaction
    assert store.history("mine").empty


def test_a_database_that_another_program_keeps_locked_is_refused(store: Store, path: Path):
    store._db.execute("PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RunFolderError, match="locked"):
            store.add(FIRST, record(1))
    store.add(FIRST, record(1))


def test_without_a_database_there_is_no_run(path: Path):
    with pytest.raises(RunFolderError, match=r"holds no run \(there is no results\.sqlite\)"):
        Store(path)
    assert not path.exists()


def test_an_empty_file_is_a_database_about_to_be_made(path: Path):
    path.touch()
    with pytest.raises(RunFolderError, match="must be a database that batchscope wrote"):
        Store(path)
    with Store(path, create=True) as opened:
        opened.plan([FIRST])
        assert len(opened.trials()) == 1


def test_a_creation_that_was_interrupted_is_taken_up_again(path: Path):
    with closing(sqlite3.connect(path, isolation_level=None)) as started:
        started.execute("PRAGMA journal_mode = WAL")
        started.execute("BEGIN")
        started.execute("CREATE TABLE fact (name TEXT)")
    with Store(path, create=True) as opened:
        opened.plan([FIRST])
        assert len(opened.trials()) == 1


@pytest.mark.parametrize("create", [True, False])
def test_another_programs_database_is_refused_and_left_alone(path: Path, create: bool):
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(RunFolderError, match="must be a database that batchscope wrote, but is not"):
        Store(path, create=create)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(path: Path):
    path.write_text("not a database, " * 100)
    with pytest.raises(RunFolderError, match=r"results\.sqlite: cannot be used as a run's database"):
        Store(path, create=True)


def test_a_newer_schema_is_refused_with_both_versions(store: Store, path: Path):
    store._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(
        RunFolderError,
        match=f"has schema version {SCHEMA_VERSION + 1}, but this batchscope knows up to {SCHEMA_VERSION}",
    ):
        Store(path)


def test_damage_is_told_as_our_own_error(store: Store, path: Path):
    for epoch in range(1, 200):
        store.add(FIRST, record(epoch))
    store.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with Store(path) as damaged:
        for read in (damaged.trials, damaged.sessions, lambda: damaged.history("mine")):
            with pytest.raises(RunFolderError, match=r"results\.sqlite: cannot be used"):
                read()
