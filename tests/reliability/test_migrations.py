"""Folders of older versions open with every figure; what cannot be brought up to date is left as it was."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType

import full_disk
import pandas as pd
import pytest

from batchscope import load
from batchscope.analysis import Settings
from batchscope.errors import RunFolderError
from batchscope.loading import dump_study
from batchscope.records import TrialState
from batchscope.run_report import content_of
from batchscope.running import schema
from batchscope.running.folder import RunFolder
from batchscope.running.store import Store, TrialStatus
from run_samples import record as made_record
from run_samples import small_study

DATABASES = Path(__file__).with_name("databases")
V1 = DATABASES / "v1.sqlite"
OPEN_FILES = Path("/proc/self/fd")
NOW, STEPS = schema.SCHEMA_VERSION, schema._STEPS
BOTH = f"has schema version {NOW + 1}, but this batchscope knows up to {NOW}; install"


def generator(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DATABASES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_v1, make_v2 = generator("make_v1"), generator("make_v2")
FIRST, SECOND, DIVERGED, WAITING = make_v1.TRIALS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder whose database is of version 1."""
    place = tmp_path / "run"
    place.mkdir()
    (place / "study.toml").write_text(dump_study(small_study(replicates=2)), encoding="utf-8")
    shutil.copyfile(V1, place / "results.sqlite")
    return place


def rename(db: sqlite3.Connection) -> None:
    """A step as a later version might have one: a column gets another name, and a table is rebuilt."""
    db.execute("ALTER TABLE trial RENAME COLUMN error TO traceback")
    db.execute("CREATE TABLE new (name TEXT PRIMARY KEY, value TEXT NOT NULL, note TEXT) STRICT")
    db.execute("INSERT INTO new SELECT name, value, 'moved' FROM fact")
    db.execute("DROP TABLE fact")
    db.execute("ALTER TABLE new RENAME TO fact")


def break_off(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM probe")
    db.execute("DROP TABLE sample")
    db.execute("INSERT INTO nowhere VALUES (1)")


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes this version one that has further steps."""

    def has(*steps: Callable[[sqlite3.Connection], None]) -> None:
        monkeypatch.setattr(schema, "_STEPS", (*STEPS, *steps))
        monkeypatch.setattr(schema, "SCHEMA_VERSION", NOW + len(steps))

    return has


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def expected() -> pd.DataFrame:
    rows = []
    for trial, epochs in ((FIRST, 2), (DIVERGED, 2), (SECOND, 1)):
        for epoch in range(1, epochs + 1):
            row = vars(make_v1.record(trial, epoch)).copy()
            probes = row.pop("probes")
            assert row.pop("unreported") == ()
            rows.append(
                {
                    "study": "tiny",
                    "trial": trial.name,
                    "batch_size": trial.batch_size,
                    "replicate": trial.replicate,
                }
                | row
                | probes
            )
    return pd.DataFrame(rows)


def test_a_database_of_version_1_opens_with_every_figure(folder: Path):
    assert version(folder / "results.sqlite") == 1
    opened = load(folder)
    pd.testing.assert_frame_equal(opened.history, expected(), check_like=True, check_exact=True)
    assert opened.trials == [
        TrialStatus(FIRST, TrialState.COMPLETE, 2, None),
        TrialStatus(SECOND, TrialState.FAILED, 1, make_v1.TRACEBACK),
        TrialStatus(DIVERGED, TrialState.DIVERGED, 2, None),
        TrialStatus(WAITING, TrialState.WAITING, 0, None),
    ]
    with Store(folder / "results.sqlite") as store:
        assert store.data() == (make_v1.SUMMARY, make_v1.SAMPLES)
        assert store.sessions() == [
            (
                "2026-01-01T00:00:00+00:00",
                "2026-01-01T01:00:00+00:00",
                {"command": "batchscope run x", "cores": "2", "keras": "3.12"},
            )
        ]


def test_a_run_goes_on_in_a_database_of_version_1(folder: Path):
    with RunFolder(folder).claim(small_study(replicates=2)) as store:
        store.add(WAITING, make_v1.record(WAITING, 1))
    assert len(load(folder).history) == 6


def test_the_tables_of_today_are_those_that_version_1_becomes(folder: Path, tmp_path: Path):
    """Fails where tables were changed without a step that changes those of old databases."""
    with (
        Store(folder / "results.sqlite", create=True) as old,
        Store(tmp_path / "new.sqlite", create=True) as new,
    ):
        tables = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name"
        assert old._db.execute(tables).fetchall() == new._db.execute(tables).fetchall()


@pytest.mark.parametrize("number", range(1, NOW + 1))
def test_what_made_the_database_tells_what_is_in_it(tmp_path: Path, number: int):
    """So that the expected figures are those of the file and not of a generator that moved on."""
    kept = DATABASES / f"v{number}.sqlite"
    assert version(kept) == number
    with Store(tmp_path / "made.sqlite", create=True) as store:
        generator(f"make_v{number}").fill(store)
        made, trials = store.history("tiny"), store.trials()
    with Store(kept) as opened:
        pd.testing.assert_frame_equal(opened.history("tiny"), made, check_exact=True)
        assert opened.trials() == trials


def test_a_grid_may_follow_in_a_database_of_version_1(folder: Path):
    """Its trials have one batch size and replicate in common, which version 1 refused."""
    with Store(folder / "results.sqlite", create=True) as store:
        store.plan(make_v2.TRIALS)
        store.add(make_v2.TRIALS[1], make_v2.record(make_v2.TRIALS[1], 1))
        found = store.history("tiny").set_index("trial")["grid_learning_rate"]
    assert found["b8-lr0.1-r1"] == 0.1
    assert found.drop("b8-lr0.1-r1").isna().all()


def test_a_run_brings_its_database_up_to_date(folder: Path, newer: Callable[..., None]):
    newer(rename)
    with RunFolder(folder).claim(small_study(replicates=2)) as store:
        assert store._db.execute("SELECT note FROM fact").fetchall() == [("moved",)]
        assert store._db.execute("SELECT count(traceback) FROM trial").fetchone() == (1,)
        pd.testing.assert_frame_equal(store.history("tiny"), expected(), check_like=True, check_exact=True)
    assert version(folder / "results.sqlite") == NOW + 1
    with RunFolder(folder).claim(small_study(replicates=2)) as store:
        assert store.data() == (make_v1.SUMMARY, make_v1.SAMPLES)


def test_reading_an_older_database_leaves_the_file_as_it_is(folder: Path, newer: Callable[..., None]):
    before = digest(folder / "results.sqlite")
    newer(rename)
    with Store(folder / "results.sqlite") as store:
        assert store._db.execute("SELECT note FROM fact").fetchall() == [("moved",)]
        pd.testing.assert_frame_equal(store.history("tiny"), expected(), check_like=True, check_exact=True)
    assert (version(folder / "results.sqlite"), digest(folder / "results.sqlite")) == (1, before)
    assert [entry.name for entry in folder.iterdir() if "sqlite" in entry.name] == ["results.sqlite"]


def test_a_step_that_fails_leaves_the_version_before_it(folder: Path, newer: Callable[..., None]):
    newer(rename, break_off)
    with (
        pytest.raises(
            RunFolderError, match=f"from schema version {NOW + 1} to {NOW + 2}, but: no such table"
        ) as caught,
        RunFolder(folder).claim(small_study(replicates=2)),
    ):
        pass
    assert "it is left as it was" in str(caught.value)
    assert version(folder / "results.sqlite") == NOW + 1
    newer(break_off)
    shutil.copyfile(V1, folder / "results.sqlite")
    with pytest.raises(RunFolderError, match=f"from schema version {NOW} to {NOW + 1}"):
        Store(folder / "results.sqlite", create=True)
    newer()
    pd.testing.assert_frame_equal(load(folder).history, expected(), check_like=True, check_exact=True)


KILLED = """
import os, signal, sqlite3, sys
sys.path[:0] = {path!r}
from pathlib import Path
from batchscope.running import schema
from batchscope.running.store import Store
class Killed(sqlite3.Connection):
    def execute(self, statement, *values):
        if statement == {at!r}:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(statement, *values)
def step(db):
    db.execute("ALTER TABLE trial RENAME COLUMN error TO traceback")
    db.execute("DELETE FROM epoch")
schema._connect = lambda path: sqlite3.connect(path, isolation_level=None, factory=Killed)
schema._STEPS, schema.SCHEMA_VERSION = (*schema._STEPS[:{steps}], *[step] * {own}), {steps} + {own} + 1
Store(Path({database!r}), create=True)
"""


@pytest.mark.parametrize(
    ("steps", "own", "at", "left"),
    [
        (NOW - 1, 1, "DELETE FROM epoch", NOW),
        (NOW - 1, 1, f"PRAGMA user_version = {NOW + 1}", NOW),
        (1, 0, "DROP TABLE trial", 1),
        (1, 0, "DROP TABLE kept", 1),
        (1, 0, "PRAGMA user_version = 2", 1),
        (1, 0, "COMMIT", 1),
    ],
)
def test_a_kill_within_a_step_leaves_the_version_before_it(
    folder: Path, steps: int, own: int, at: str, left: int
):
    database = folder / "results.sqlite"
    script = KILLED.format(path=sys.path, database=str(database), at=at, steps=steps, own=own)
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert version(database) == left
    pd.testing.assert_frame_equal(load(folder).history, expected(), check_like=True, check_exact=True)
    assert version(database) == left


@pytest.mark.parametrize("key", ["", "tomorrow = 1\n"])
def test_a_newer_folder_is_refused_with_both_versions(folder: Path, newer: Callable[..., None], key: str):
    study = folder / "study.toml"
    study.write_text(key + study.read_text(encoding="utf-8"), encoding="utf-8")
    newer(rename)
    with Store(folder / "results.sqlite", create=True):
        pass
    newer()
    before = digest(folder / "results.sqlite")
    for opens in (
        lambda: load(folder),
        lambda: Store(folder / "results.sqlite", create=True),
        lambda: content_of(str(folder), Settings()),
    ):
        with pytest.raises(RunFolderError, match=BOTH):
            opens()
    assert digest(folder / "results.sqlite") == before


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("mark", ["user_version = 0", "user_version = -1", "application_id = 1"])
def test_what_bears_no_version_of_ours_is_refused(folder: Path, mark: str, create: bool):
    with closing(sqlite3.connect(folder / "results.sqlite")) as db:
        db.execute(f"PRAGMA {mark}")
    before = digest(folder / "results.sqlite")
    with pytest.raises(RunFolderError, match="must be a database that batchscope wrote, but is not"):
        Store(folder / "results.sqlite", create=create)
    assert digest(folder / "results.sqlite") == before


LEFT = """
import os, signal, sys
sys.path[:0] = {path!r}
from pathlib import Path
from batchscope.running.store import Store
from run_samples import FIRST, record
store = Store(Path({database!r}), create=True)
store.plan([FIRST])
for epoch in (1, 2, 3):
    store.add(FIRST, record(epoch))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("left", ["closed", "killed", "killed, copied without the log's index"])
def test_reading_from_a_medium_that_cannot_be_written(tmp_path: Path, left: str, newer: Callable[..., None]):
    """The last records of a killed run stand in the log only, which nobody can take into the file there."""
    with full_disk.medium(tmp_path) as folder:
        database = folder / "results.sqlite"
        script = LEFT.format(path=sys.path, database=str(database))
        subprocess.run([sys.executable, "-c", script], check=False)
        if left == "closed":
            Store(database, create=True).close()
        elif left != "killed":
            Path(f"{database}-shm").unlink()
        logs = {entry.name: entry.stat().st_size for entry in folder.iterdir()}
        assert bool(logs.get("results.sqlite-wal")) == (left != "closed")
        full_disk.lock(folder)
        for steps in ((), (rename,)):
            newer(*steps)
            with Store(database) as store:
                assert store.history("tiny")["epoch"].tolist() == [1, 2, 3]
                assert store.history("tiny")["val_loss"].tolist() == [
                    made_record(at).val_loss for at in (1, 2, 3)
                ]
        newer()
        with pytest.raises(RunFolderError, match=r"(?i)writ"), Store(database, create=True) as store:
            store.plan([FIRST])
        full_disk.unlock(folder)
        with Store(database, create=True) as store:
            assert store.trials()[0].epochs == 3


@pytest.mark.skipif(not OPEN_FILES.exists(), reason="only Linux lists a process's open files")
def test_reading_leaves_nothing_open(folder: Path, newer: Callable[..., None]):
    newer(rename)
    before = set(OPEN_FILES.iterdir())
    Store(folder / "results.sqlite").close()
    newer(break_off)
    with pytest.raises(RunFolderError):
        Store(folder / "results.sqlite")
    assert set(OPEN_FILES.iterdir()) == before
