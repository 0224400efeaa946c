"""Run folders whose study file or database is damaged: what is left of them, or what is wrong."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tomllib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import tomli_w
from fuzz_attempts import FUZZED, Attempts
from fuzz_mutations import NASTY_TEXTS, damaged_bytes, damaged_lines, mutate_values
from fuzz_pictures import picture
from hypothesis import given
from hypothesis import strategies as st

from batchscope import load
from batchscope.analysis import Settings, to_json
from batchscope.errors import RunFolderError
from batchscope.loading import dump_study
from batchscope.records import TrialState
from batchscope.report.sample import class_rows, thumbnails
from batchscope.report.tables import analysis_tables
from batchscope.run_report import content_of
from batchscope.running.folder import RunFolder
from batchscope.running.store import DataSummary, SampleImage
from run_samples import FIRST, SECOND, record, small_study

STUDY = small_study(description="Why.")
TEXT = dump_study(STUDY)
SUMMARY = DataSummary("there", "f00d", ("cat", "dog"), (3, 41), (1, 15), (("a.jpg", "is empty"),))
COLUMNS = {
    "fact": ("name", "value"),
    "trial": ("name", "position", "batch_size", "replicate", "state", "error"),
    "epoch": (
        *("trial", "epoch", "stage", "updates", "examples", "seconds", "learning_rate"),
        *("train_loss", "train_accuracy", "val_loss", "val_accuracy"),
    ),
    "probe": ("trial", "epoch", "name", "value"),
    "session": ("id", "started", "ended", "facts"),
    "sample": ("position", "id", "class", "png"),
}
CELLS = (
    None,
    0,
    1,
    -1,
    2,
    2**62,
    2**63 - 1,
    -(2**63),
    0.5,
    1e308,
    float("inf"),
    float("nan"),
    b"",
    b"\xff\xfe",
    picture(9),
    "failed",
    "b16-r1",
    "one",
    "{}",
    "[]",
    "null",
    "1",
    '"x"',
    '{"classes": []}',
    "[" * 2_000,
    *NASTY_TEXTS[:16],
)
STATEMENTS = (
    *(f"DROP TABLE {table}" for table in COLUMNS),
    *(f"DELETE FROM {table}" for table in COLUMNS),
    *(f"ALTER TABLE {table} RENAME TO other" for table in COLUMNS),
    *(f"ALTER TABLE {table} DROP COLUMN {columns[-1]}" for table, columns in COLUMNS.items()),
    *(f"ALTER TABLE {table} ADD COLUMN more TEXT" for table in COLUMNS),
    *(f"DELETE FROM {table} WHERE rowid = 1" for table in COLUMNS),
    *(f"PRAGMA user_version = {number}" for number in (0, 2, 2**31 - 1, -1)),
    *("PRAGMA application_id = 0", "PRAGMA journal_mode = DELETE", "VACUUM", "PRAGMA encoding = 'UTF-16'"),
    "INSERT INTO epoch SELECT trial, epoch + 1, stage, updates, examples, seconds, 1, 2, 3, 4, 5 FROM epoch",
    "INSERT INTO trial VALUES ('x', 9, 4, 1, 'complete', NULL)",
    "INSERT INTO probe SELECT trial, epoch, 'probe_x', NULL FROM epoch",
    "INSERT INTO probe SELECT trial, epoch, 'val_loss', 1 FROM epoch",
    "CREATE VIEW more AS SELECT * FROM more",
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A whole run of two trials, one of them diverged."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with RunFolder(folder).claim(STUDY) as store:
        store.plan([FIRST, SECOND])
        for trial in (FIRST, SECOND):
            for epoch in (1, 2):
                store.add(trial, record(epoch, probes={"probe_seconds": 1.0}))
        store.add(SECOND, record(2, train_loss=float("nan")))
        store.set_state(FIRST, TrialState.COMPLETE)
        store.set_state(SECOND, TrialState.DIVERGED, "Traceback")
        store.update_session(
            store.start_session("2026-01-01", {"command": "batchscope run x"}), {"cores": "2"}
        )
        store.keep_data(
            SUMMARY, [SampleImage("x.png", "cat", picture(0)), SampleImage("y.png", "dog", picture(1))]
        )
    assert [path.name for path in folder.glob("results.sqlite*")] == ["results.sqlite"]
    return (folder / "results.sqlite").read_bytes()


@st.composite
def queries(draw: st.DrawFn) -> list[tuple[str, tuple[object, ...]]]:
    """Statements that no version of the store would ever run."""
    chosen: list[tuple[str, tuple[object, ...]]] = []
    for _ in range(draw(st.integers(0, 3))):
        if draw(st.integers(0, 3)) == 0:
            chosen.append((draw(st.sampled_from(STATEMENTS)), ()))
            continue
        table = draw(st.sampled_from(tuple(COLUMNS)))
        column = draw(st.sampled_from(COLUMNS[table]))
        where = draw(st.sampled_from(("", " WHERE rowid = 1")))
        chosen.append((f"UPDATE {table} SET {column} = ?{where}", (draw(st.sampled_from(CELLS)),)))
    if draw(st.booleans()):
        key, table = draw(st.sampled_from((("value", "fact"), ("facts", "session"))))
        whole = {"fact": vars(SUMMARY), "session": {"command": "x", "cores": "2"}}[table]
        value = mutate_values(draw, json.loads(json.dumps(whole)), ("", "x", "classes", "command"))
        chosen.append((f"UPDATE {table} SET {key} = ?", (json.dumps(value, default=str),)))
    return chosen


def queried(content: bytes, chosen: list[tuple[str, tuple[object, ...]]], path: Path) -> bytes:
    """The database after these statements, as far as SQLite accepts them."""
    path.write_bytes(content)
    with closing(sqlite3.connect(path, isolation_level=None)) as opened:
        for statement, values in chosen:
            try:
                opened.execute(statement, values)
            except (sqlite3.Error, OverflowError):
                continue
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.read_bytes()


@st.composite
def study_files(draw: st.DrawFn) -> bytes:
    if draw(st.booleans()):
        return TEXT.encode()
    raw = mutate_values(draw, tomllib.loads(TEXT), ("", "x", "stages", "epochs", "batch_sizes"))
    texts = (st.just(tomli_w.dumps(raw)), damaged_lines(TEXT, ("[[stages]]", "x = 1", "[data]")))
    return draw(
        st.one_of(
            *(text.map(str.encode) for text in texts), damaged_bytes(TEXT.encode()), st.binary(max_size=50)
        )
    )


Damage = Callable[[bytes, Path], bytes]
DAMAGES: st.SearchStrategy[Damage] = st.one_of(
    queries().map(lambda chosen: lambda content, path: queried(content, chosen, path)),
    queries().map(lambda chosen: lambda content, path: queried(content, chosen, path)),
    st.lists(st.tuples(st.integers(0, 2**16), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6).map(
        lambda edits: lambda content, path: overwritten(content, edits)
    ),
    st.lists(st.tuples(st.integers(0, 99), st.binary(min_size=1, max_size=4)), min_size=1, max_size=3).map(
        lambda edits: lambda content, path: overwritten(content, edits)
    ),
    st.integers(0, 2**16).map(lambda end: lambda content, path: content[:end]),
    st.binary(max_size=200).map(lambda made: lambda content, path: made),
)


def overwritten(content: bytes, edits: list[tuple[int, bytes]]) -> bytes:
    for place, new in edits:
        start = place % len(content)
        content = content[:start] + new + content[start + len(new) :]
    return content


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("UPDATE trial SET state = 'odd'", id="a state that there is not"),
        pytest.param("UPDATE trial SET batch_size = 0", id="trials that are not those of their names"),
        pytest.param("UPDATE fact SET value = '{'", id="no JSON"),
        pytest.param("UPDATE fact SET value = '{}'", id="a key is missing"),
        pytest.param("UPDATE fact SET value = '1'", id="no table"),
        pytest.param("UPDATE session SET facts = '[]'", id="a list for a table"),
        pytest.param(f"UPDATE fact SET value = '{'[' * 5_000}'", id="JSON nested too deeply"),
    ],
)
def test_damaged_databases_are_refused(tmp_path: Path, database: bytes, statement: str) -> None:
    (tmp_path / "study.toml").write_text(TEXT)
    (tmp_path / "results.sqlite").write_bytes(queried(database, [(statement, ())], tmp_path / "draft.sqlite"))
    with pytest.raises(RunFolderError):
        read(tmp_path)


@FUZZED
@given(study=study_files(), damage=DAMAGES)
def test_run_folders(
    attempt: Attempts, tmp_path: Path, database: bytes, study: bytes, damage: Damage
) -> None:
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "study.toml").write_bytes(study)
    damaged = damage(database, tmp_path / "draft.sqlite")
    (folder / "results.sqlite").write_bytes(damaged)
    attempt(lambda: read(folder), tmp_path, str(folder), "history", "column", "must", "needs")
    assert {path.name for path in folder.iterdir()} <= {
        "study.toml",
        *(f"results.sqlite{end}" for end in ("", "-wal", "-shm")),
    }


def read(folder: Path) -> None:
    """All that a page shows but the drawings."""
    run = load(folder)
    assert len({status.trial for status in run.trials}) == len(run.trials)
    content = content_of(str(folder), Settings(resamples=100))
    json.loads(to_json(content.analysis))
    assert analysis_tables(content.analysis)
    assert all(isinstance(text, str) for text in content.notices)
    if content.data is not None:
        assert len(thumbnails(content.data)) == len(content.data.ids)
        assert class_rows(content.data)
