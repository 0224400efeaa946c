"""A run's database: its tables, their version, and how a file of any version is opened.

A run brings an older database up to date where it lies. Whoever only reads one takes a copy in
memory up to date instead, so that reading changes nothing and needs no right to write.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from batchscope.errors import RunFolderError

__all__ = ["APPLICATION_ID", "SCHEMA_VERSION", "open_for_reading", "open_for_writing", "transaction"]

APPLICATION_ID = 0x62736370
"""``bscp``: tells a batchscope database from any other."""

Step = Callable[[sqlite3.Connection], None]


def _to_2(db: sqlite3.Connection) -> None:
    """Trials get the learning rate of a grid, and may have one batch size and replicate in common.

    The table is dropped and made again, not renamed, so that what refers to it stays as it is.
    """
    db.execute("CREATE TEMPORARY TABLE kept AS SELECT * FROM trial")
    db.execute("DROP TABLE trial")
    db.execute("""CREATE TABLE trial (
    name TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    batch_size INTEGER NOT NULL,
    replicate INTEGER NOT NULL,
    learning_rate REAL,
    state TEXT NOT NULL,
    error TEXT,
    UNIQUE (batch_size, replicate, learning_rate)
) STRICT""")
    db.execute("INSERT INTO trial SELECT name, position, batch_size, replicate, NULL, state, error FROM kept")
    db.execute("DROP TABLE kept")


_STEPS: tuple[Step, ...] = (_to_2,)
"""The first takes a database from version 1 to 2, and so on; `_TABLES` are those after the last.

A step is called within a transaction and must not end it, as ``executescript`` would. It may
rebuild tables: foreign keys are not enforced meanwhile.
"""

SCHEMA_VERSION = 1 + len(_STEPS)

_TABLES = """
CREATE TABLE fact (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
CREATE TABLE trial (
    name TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    batch_size INTEGER NOT NULL,
    replicate INTEGER NOT NULL,
    learning_rate REAL,
    state TEXT NOT NULL,
    error TEXT,
    UNIQUE (batch_size, replicate, learning_rate)
) STRICT;
CREATE TABLE epoch (
    trial TEXT NOT NULL REFERENCES trial (name),
    epoch INTEGER NOT NULL,
    stage TEXT NOT NULL,
    updates INTEGER NOT NULL,
    examples INTEGER NOT NULL,
    seconds REAL NOT NULL,
    learning_rate REAL NOT NULL,
    train_loss REAL,
    train_accuracy REAL,
    val_loss REAL,
    val_accuracy REAL,
    PRIMARY KEY (trial, epoch)
) STRICT;
CREATE TABLE probe (
    trial TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    name TEXT NOT NULL,
    value REAL,
    PRIMARY KEY (trial, epoch, name),
    FOREIGN KEY (trial, epoch) REFERENCES epoch (trial, epoch) ON DELETE CASCADE
) STRICT;
CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    started TEXT NOT NULL,
    ended TEXT,
    facts TEXT NOT NULL
) STRICT;
CREATE TABLE sample (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    class TEXT NOT NULL,
    png BLOB NOT NULL
) STRICT;
"""


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Opens a database for the run that writes it, new or of any version up to this one's.

    Raises:
        RunFolderError: It is no batchscope database, of a newer version, or cannot be brought up to date.
        sqlite3.Error: It cannot be opened or made.
    """
    with _closed_on_error(_connect(path)) as db:
        if not _has_its_log(db):
            raise RunFolderError(f"{path.parent}: must be a folder that can be written, to keep a log there")
        if db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(
                f"BEGIN; {_TABLES} PRAGMA application_id = {APPLICATION_ID}; "
                f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
        _bring_up_to_date(db, path)
        return db


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Opens a database of any version up to this one's, on any medium, leaving it as it is.

    Raises:
        RunFolderError: It is no batchscope database, or of a newer version.
        sqlite3.Error: It cannot be opened.
        OSError: It lies where nothing can be written, and cannot be copied from there.
    """
    with _closed_on_error(_connect(path)) as there:
        has_its_log = _has_its_log(there)
        if has_its_log and _version(there, path) == SCHEMA_VERSION:
            return there
    with closing(there):
        db = _copy(there) if has_its_log else _copy_of_files(path)
    with _closed_on_error(db):
        _bring_up_to_date(db, path)
        return db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Makes all that is written within it safe together, or none of it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # where there is no room, SQLite has rolled back already
            db.execute("ROLLBACK")
        raise


def _connect(path: Path | str) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


@contextmanager
def _closed_on_error(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        yield db
    except BaseException:
        db.close()
        raise


def _bring_up_to_date(db: sqlite3.Connection, path: Path) -> None:
    """Takes the steps that are missing, each in a transaction of its own."""
    while (version := _version(db, path)) < SCHEMA_VERSION:
        try:
            with transaction(db):
                if _version(db, path) == version:  # else another process was faster
                    _STEPS[version - 1](db)
                    db.execute(f"PRAGMA user_version = {version + 1}")
        except sqlite3.Error as error:
            raise RunFolderError(
                f"{path}: must be brought from schema version {version} to {version + 1}, but: {error}; "
                "it is left as it was, mend the cause and try again"
            ) from error


def _version(db: sqlite3.Connection, path: Path) -> int:
    application = db.execute("PRAGMA application_id").fetchone()[0]
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID or version < 1:
        raise RunFolderError(f"{path}: must be a database that batchscope wrote, but is not")
    if version > SCHEMA_VERSION:
        raise RunFolderError(
            f"{path}: has schema version {version}, but this batchscope knows up to "
            f"{SCHEMA_VERSION}; install a newer batchscope"
        )
    return version


def _has_its_log(db: sqlite3.Connection) -> bool:
    """Whether SQLite can open the log beside the file, which it must even to read.

    Where nothing may be written it can only if an earlier process left the log's files behind.
    """
    try:
        db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            return False
        raise
    return True


def _copy_of_files(path: Path) -> sqlite3.Connection:
    """A copy in memory by way of a folder that can be written, with what is in the log only.

    Simplified: that no process writes the file meanwhile is taken from there being no index of its
    log, without which nobody writes.
    """
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal"):
            source = path.with_name(f"{path.name}{suffix}")
            if suffix == "" or source.exists():
                shutil.copyfile(source, Path(folder) / source.name)
        with closing(_connect(Path(folder) / path.name)) as db:
            return _copy(db)


def _copy(db: sqlite3.Connection) -> sqlite3.Connection:
    memory = _connect(":memory:")
    with _closed_on_error(memory):
        db.backup(memory)
        return memory
