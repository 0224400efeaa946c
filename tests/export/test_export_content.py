"""What is exported: names that sort, every figure once, and an identity that stays with the run."""

from __future__ import annotations

import math
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from export_samples import NAMES, STUDY, TRIALS, Told, expected, stored, whole

from batchscope.errors import HistoryError, RunFolderError
from batchscope.export.content import read_run
from batchscope.records import Trial, TrialState
from batchscope.running.folder import RunFolder
from batchscope.running.store import Store
from run_samples import record, small_study


def test_every_figure_is_there_once_and_what_was_not_measured_is_not(tmp_path: Path):
    run = stored(tmp_path / "run")
    content = read_run(run.folder)
    assert [series.name for series in content.trials] == ["b0008-r01", "b0016-r01", "b0008-r02"]
    for series in content.trials:
        told = run.told[series.status.trial.name]
        found = [(name, p.epoch, value) for p in series.points for name, value in p.figures.items()]
        assert sorted(map(repr, found)) == sorted(map(repr, expected(told)))
        assert [point.seconds for point in series.points] == [entry.seconds for entry in told.records]
        assert (series.status.state, series.status.error) == (told.state, told.error)
    assert content.planned == 4
    assert (content.started, content.ended) == (1767323045.0, 1767326645.0)


@pytest.mark.parametrize(
    ("sizes", "replicates"), [([8, 16], 2), ([9, 10, 1000, 131_072], 12), ([10_000], 101)]
)
def test_names_sort_as_batch_sizes_and_replicates_do(tmp_path: Path, sizes: list[int], replicates: int):
    study = small_study(batch_sizes=sizes, replicates=replicates, probes="none")
    trials = [Trial(size, replicate) for size in sizes for replicate in range(1, replicates + 1)]
    with RunFolder(tmp_path / "run").claim(study) as store:
        store.start_session("2026-01-01T00:00:00+00:00", {})
        store.plan(trials)
        for trial in trials:
            store.add(trial, record(1))
    by_name = sorted(read_run(RunFolder(tmp_path / "run")).trials, key=lambda series: series.name)
    keys = [(series.status.trial.batch_size, series.status.trial.replicate) for series in by_name]
    assert keys == sorted(keys)
    assert len({len(series.name) for series in by_name}) == 1


def test_names_stay_when_replicates_are_added(tmp_path: Path):
    search = {"half_width": 0.1, "max_replicates": 100}
    study = small_study(replicates=3, until_ci=search, probes="none")
    names = []
    with RunFolder(tmp_path / "run").claim(study) as store:
        store.start_session("2026-01-01T00:00:00+00:00", {})
        for replicate in (1, 99, 100):
            store.plan([Trial(8, replicate)])
            store.add(Trial(8, replicate), record(1))
            names.append([series.name for series in read_run(RunFolder(tmp_path / "run")).trials])
    assert names == [["b0008-r001", "b0008-r099", "b0008-r100"][:count] for count in (1, 2, 3)]


def test_parameters_are_the_study_by_dotted_key(tmp_path: Path):
    parameters = read_run(stored(tmp_path / "run").folder).parameters
    assert parameters["batch_sizes"] == "[8, 16]"
    assert parameters["stages.one.learning_rate"] == 1e-3
    assert parameters["data.source"] == "synthetic-cactus"
    assert parameters["replicates"] == 2
    assert "description" not in parameters
    assert "data.limit" not in parameters


def test_a_run_keeps_its_identity_when_it_moves_and_goes_on(tmp_path: Path):
    first, second = stored(tmp_path / "one").folder, stored(tmp_path / "two").folder
    identity = read_run(first).identity
    assert identity != read_run(second).identity
    assert len(identity) == 32
    moved = RunFolder(Path(shutil.move(first.path, tmp_path / "three")))
    with moved.claim(STUDY) as store:
        store.start_session("2026-02-02T00:00:00+00:00", {})
    assert read_run(moved).identity == identity


def test_a_run_of_an_older_version_gets_one_identity_for_good(tmp_path: Path):
    place = stored(tmp_path / "run").folder
    with closing(sqlite3.connect(place.database)) as database, database:
        database.execute("DELETE FROM fact WHERE name = 'identity'")
    before = read_run(place).identity
    with place.claim(STUDY) as store:
        store.start_session("2026-02-02T00:00:00+00:00", {"command": "other"})
    assert read_run(place).identity == before
    other = stored(tmp_path / "other").folder
    with closing(sqlite3.connect(other.database)) as database, database:
        database.execute("DELETE FROM fact WHERE name = 'identity'")
        database.execute("UPDATE session SET started = '2026-01-02T03:04:06+00:00'")
    assert read_run(other).identity != before


def test_a_run_ahead_of_its_first_session_has_none(tmp_path: Path):
    with RunFolder(tmp_path / "run").claim(STUDY) as store:
        assert store.identity() is None


def test_a_run_with_nothing_stored_is_refused(tmp_path: Path):
    place = stored(tmp_path / "run", {trial.name: Told(TrialState.WAITING) for trial in TRIALS}).folder
    with pytest.raises(HistoryError, match="at least one epoch must be stored, but none is yet"):
        read_run(place)


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        ("DELETE FROM fact; DELETE FROM session", "must tell when the run began, but holds no session"),
        ("UPDATE session SET started = 'once'", "a session's start and end must be times: .*'once'"),
    ],
)
def test_a_database_that_does_not_tell_when_is_refused(tmp_path: Path, spoil: str, rule: str):
    place = stored(tmp_path / "run").folder
    with closing(sqlite3.connect(place.database)) as database:
        database.executescript(spoil)
    with pytest.raises(RunFolderError, match=rule):
        read_run(place)


def test_a_session_that_goes_on_has_no_end(tmp_path: Path):
    place = stored(tmp_path / "run").folder
    with place.claim(STUDY) as store:
        store.start_session("2026-02-02T00:00:00+00:00", {})
        assert read_run(place).ended is None


def test_a_probe_that_is_nan_is_taken_as_not_measured(tmp_path: Path):
    told = {trial.name: whole(trial) for trial in TRIALS}
    told["b8-r1"] = Told(TrialState.COMPLETE, (record(1, probes={"probe_x": math.nan, "probe_y": math.inf}),))
    first = read_run(stored(tmp_path / "run", told).folder).trials[0]
    assert "probe_x" not in first.points[0].figures
    assert first.points[0].figures["probe_y"] == math.inf
    assert first.name == NAMES["b8-r1"]
    with Store(tmp_path / "run" / "results.sqlite") as store:
        assert "probe_x" in store.history("sorting").columns
