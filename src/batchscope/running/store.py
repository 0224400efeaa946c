"""The store: a run's results in SQLite. SQL stands here and in `schema` and nowhere else.

One process writes. A record is committed before the next epoch starts, so whatever happens to the
run, what was reported is there.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from batchscope.errors import HistoryError, RunFolderError
from batchscope.history import COLUMNS, GRID, METRICS, check_history
from batchscope.masking import masked
from batchscope.records import EpochRecord, Trial, TrialState
from batchscope.running.entries import DataSummary, LastEpoch, SampleImage, TrialStatus
from batchscope.running.schema import SCHEMA_VERSION, open_for_reading, open_for_writing, transaction

__all__ = ["SCHEMA_VERSION", "DataSummary", "LastEpoch", "SampleImage", "Store", "TrialStatus"]


_NO_RATE = 0.0
"""Stands in the table where the run's records tell no learning rate, and is never read."""


class Store:
    """A run's database, of this version or an older one.

    Args:
        path: The file.
        create: Open it for a run to write: make it where there is none yet, and bring it up to date.
            Otherwise it must be there, may lie where nothing can be written, and stays as it is.

    Raises:
        RunFolderError: The file is not there, is no batchscope database, or is of a newer version.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if not create and not path.exists():
            raise RunFolderError(f"{path.parent}: holds no run (there is no {path.name})")
        self._path = path
        with self._translated():
            self._db = open_for_writing(path) if create else open_for_reading(path)
        # Not before: an older database may have been brought up to date by rebuilding tables.
        self._db.execute("PRAGMA foreign_keys = ON")

    def close(self) -> None:
        """Closes the database; nothing is left to write."""
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def plan(self, trials: Sequence[Trial]) -> None:
        """Adds the trials that are not there yet, waiting, in this order behind those that are."""
        with self._writing():
            [first] = self._db.execute("SELECT coalesce(max(position) + 1, 0) FROM trial").fetchone()
            rows = [
                (
                    trial.name,
                    position,
                    trial.batch_size,
                    trial.replicate,
                    trial.learning_rate,
                    TrialState.WAITING,
                )
                for position, trial in enumerate(trials, first)
            ]
            self._db.executemany("INSERT OR IGNORE INTO trial VALUES (?, ?, ?, ?, ?, ?, NULL)", rows)

    def trials(self) -> list[TrialStatus]:
        """All trials in the order of the plan."""
        with self._translated():
            rows = self._db.execute(
                "SELECT name, batch_size, replicate, learning_rate, state, error, "
                "(SELECT count(*) FROM epoch WHERE trial = name) FROM trial ORDER BY position"
            )
            return [
                TrialStatus(
                    _named(name, Trial(batch_size, replicate, rate)), TrialState(state), epochs, error
                )
                for name, batch_size, replicate, rate, state, error, epochs in rows
            ]

    def set_state(self, trial: Trial, state: TrialState, error: str | None = None) -> None:
        """Moves a trial to a state."""
        with self._writing():
            self._db.execute(
                "UPDATE trial SET state = ?, error = ? WHERE name = ?", (state, error, trial.name)
            )

    def add(self, trial: Trial, record: EpochRecord) -> None:
        """Stores an epoch's record with its probes as the trial's last.

        One that is there already is replaced, and those of later epochs are deleted: the trial began
        anew, and where seconds decide it may end earlier than before.

        Raises:
            HistoryError: It leaves out other figures than the records that are stored do.
        """
        with self._writing():
            self._agree_on(record.unreported)
            self._db.execute("DELETE FROM epoch WHERE trial = ? AND epoch > ?", (trial.name, record.epoch))
            self._db.execute(
                "INSERT OR REPLACE INTO epoch VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    trial.name,
                    record.epoch,
                    record.stage,
                    record.updates,
                    record.examples,
                    record.seconds,
                    _NO_RATE if "learning_rate" in record.unreported else record.learning_rate,
                    record.train_loss,
                    record.train_accuracy,
                    record.val_loss,
                    record.val_accuracy,
                ),
            )
            self._db.executemany(
                "INSERT INTO probe VALUES (?, ?, ?, ?)",
                [(trial.name, record.epoch, name, value) for name, value in record.probes.items()],
            )

    def discard(self, trial: Trial, epoch: int) -> None:
        """Deletes a trial's records from an epoch on."""
        with self._writing():
            self._db.execute("DELETE FROM epoch WHERE trial = ? AND epoch >= ?", (trial.name, epoch))

    def records(self, trial: Trial) -> tuple[EpochRecord, ...]:
        """A trial's records in the order of their epochs, as they were added."""
        with self._translated():
            probes: dict[int, dict[str, float]] = {}
            for epoch, name, value in self._db.execute(
                "SELECT epoch, name, value FROM probe WHERE trial = ?", (trial.name,)
            ):
                probes.setdefault(epoch, {})[name] = math.nan if value is None else value
            unreported = self._unreported() or ()
            rows = self._db.execute(
                "SELECT stage, epoch, updates, examples, seconds, learning_rate, train_loss, train_accuracy, "
                "val_loss, val_accuracy FROM epoch WHERE trial = ? ORDER BY epoch",
                (trial.name,),
            ).fetchall()
        return tuple(_record(row, probes.get(row[1], {}), unreported) for row in rows)

    def history(self, study: str) -> pd.DataFrame:
        """The history of all trials, finished or not.

        SQLite keeps NaN as NULL; it comes back as NaN.

        Args:
            study: The study's name, for its column.

        Returns:
            Columns `COLUMNS`, but for those that are not reported in this run, `GRID` where trials have
            a learning rate of a grid, and one for each
            probe; no rows where nothing is stored yet.
        """
        with self._translated():
            self._db.execute("BEGIN")  # so that rows and probes are those of one moment
            try:
                table = pd.read_sql_query(
                    "SELECT epoch.*, batch_size, replicate, trial.learning_rate AS of_grid "
                    "FROM epoch JOIN trial ON trial.name = epoch.trial",
                    self._db,
                )
                probes = pd.read_sql_query("SELECT * FROM probe", self._db, dtype={"value": np.float64})
                unreported = self._unreported() or ()
            finally:
                self._db.execute("COMMIT")
        table["study"] = study
        of_grid = table.pop("of_grid").astype(np.float64)
        if of_grid.notna().any():
            table[GRID] = of_grid
        if not probes.empty:
            wide = probes.pivot_table(
                index=["trial", "epoch"], columns="name", values="value", sort=False, dropna=False
            )
            table = table.merge(wide.reset_index(), on=["trial", "epoch"], how="left")
        if table.empty:
            return table[list(COLUMNS)]
        return check_history(table.drop(columns=list(unreported)))

    def last_epoch(self, trial: Trial) -> LastEpoch | None:
        """Where a trial's stored history ends; None where nothing is stored."""
        with self._translated():
            row = self._db.execute(
                f"SELECT epoch, examples, seconds, {', '.join(METRICS)} FROM epoch WHERE trial = ? "  # noqa: S608
                "ORDER BY epoch DESC LIMIT 1",
                (trial.name,),
            ).fetchone()
            unreported = self._unreported() or ()
        if row is None:
            return None
        epoch, examples, seconds, *metrics = row
        told = [value for name, value in zip(METRICS, metrics, strict=True) if name not in unreported]
        finite = all(value is not None and math.isfinite(value) for value in told)
        return LastEpoch(epoch, examples, seconds, finite)

    def unreported(self) -> tuple[str, ...] | None:
        """Figures that this run's records leave out; None where nothing is stored yet."""
        with self._translated():
            return self._unreported()

    def _unreported(self) -> tuple[str, ...] | None:
        """Figures that this run's records leave out; None where no record is stored that tells."""
        if self._db.execute("SELECT 1 FROM epoch LIMIT 1").fetchone() is None:
            return None
        kept = self._db.execute("SELECT value FROM fact WHERE name = 'unreported'").fetchone()
        left_out = [] if kept is None else json.loads(kept[0])
        return tuple(name for name in (*METRICS, "learning_rate") if name in left_out)

    def _agree_on(self, unreported: tuple[str, ...]) -> None:
        """Lets the first record decide which figures this run has, for NaN is to mean divergence."""
        known = self._unreported()
        if known is None:
            self._db.execute("DELETE FROM fact WHERE name = 'unreported'")
            if unreported:
                self._db.execute("INSERT INTO fact VALUES ('unreported', ?)", (json.dumps(unreported),))
        elif set(known) != set(unreported):
            told = [
                ", ".join(name for name in (*METRICS, "learning_rate") if name not in left_out)
                for left_out in (known, unreported)
            ]
            raise HistoryError(
                f"every epoch of a run must report the same figures: the first had {told[0]}, but this one "
                f"has {told[1]}; give others names of their own"
            )

    def identity(self) -> str | None:
        """What tells this run from all others, wherever its folder is moved to; None ahead of a session.

        32 hexadecimal digits, drawn when the first session starts. Of a run that began before runs
        were given one, they are a digest of when and by which command that was.
        """
        with self._translated():
            kept = self._db.execute("SELECT value FROM fact WHERE name = 'identity'").fetchone()
        if kept is not None:
            return str(kept[0])
        sessions = self.sessions()
        if not sessions:
            return None
        started, _, facts = sessions[0]
        return hashlib.sha256(f"{started} {facts.get('command')}".encode()).hexdigest()[:32]

    def start_session(self, started: str, facts: Mapping[str, str]) -> int:
        """Notes that a process began to write, with what it knows of its surroundings, secrets masked."""
        with self._writing():
            self._db.execute(
                "INSERT OR IGNORE INTO fact SELECT 'identity', ? WHERE NOT EXISTS (SELECT * FROM session)",
                (uuid.uuid4().hex,),
            )
            cursor = self._db.execute(
                "INSERT INTO session (started, facts) VALUES (?, ?)", (started, _encoded(facts))
            )
        return int(cursor.lastrowid or 0)

    def update_session(self, session: int, facts: Mapping[str, str], ended: str | None = None) -> None:
        """Adds facts to a session and, at its end, the time."""
        with self._writing():
            self._db.execute(
                "UPDATE session SET facts = json_patch(facts, ?), ended = ? WHERE id = ?",
                (_encoded(facts), ended, session),
            )

    def sessions(self) -> list[tuple[str, str | None, Mapping[str, str]]]:
        """Start, end and facts of all sessions, oldest first."""
        with self._translated():
            rows = self._db.execute("SELECT started, ended, facts FROM session ORDER BY id")
            return [(started, ended, _decoded(facts)) for started, ended, facts in rows]

    def keep_data(self, summary: DataSummary, samples: Sequence[SampleImage]) -> None:
        """Keeps what the page tells of the data, replacing what was there."""
        rows = [(index, image.id, image.label, image.png) for index, image in enumerate(samples)]
        with self._writing():
            self._db.execute("INSERT OR REPLACE INTO fact VALUES ('data', ?)", (json.dumps(vars(summary)),))
            self._db.execute("DELETE FROM sample")
            self._db.executemany("INSERT INTO sample VALUES (?, ?, ?, ?)", rows)

    def data(self) -> tuple[DataSummary, list[SampleImage]] | None:
        """What `keep_data` kept, or None."""
        with self._translated():
            kept = self._db.execute("SELECT value FROM fact WHERE name = 'data'").fetchone()
            if kept is None:
                return None
            raw = json.loads(kept[0])
            summary = DataSummary(
                source=raw["source"],
                fingerprint=raw["fingerprint"],
                classes=tuple(raw["classes"]),
                training=tuple(raw["training"]),
                validation=tuple(raw["validation"]),
                skipped=tuple((str(name), str(reason)) for name, reason in raw["skipped"]),
                shape=tuple(map(int, raw.get("shape", ()))),  # runs before there were tables have none
                notes=tuple(map(str, raw.get("notes", ()))),
            )
            rows = self._db.execute("SELECT id, class, png FROM sample ORDER BY position")
            return summary, [SampleImage(*row) for row in rows]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with transaction(self._db):
                yield
        except sqlite3.Error as error:
            raise RunFolderError(
                f"{self._path}: the record could not be written: {error}; what was stored before is safe, "
                "the same command goes on from there once the cause is mended"
            ) from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Tells in one error of what cannot be read, and of what can but is nothing that `Store` wrote."""
        try:
            yield
        except (
            *(sqlite3.Error, pd.errors.DatabaseError, OSError, ValueError, KeyError, TypeError),
            RecursionError,  # of JSON that is nested too deeply
        ) as error:
            raise RunFolderError(f"{self._path}: cannot be used as a run's database: {error}") from error


def _record(row: Sequence[Any], probes: Mapping[str, float], unreported: tuple[str, ...]) -> EpochRecord:
    """From a row of stage, epoch, counts, learning rate and metrics; NULL stands for NaN."""
    stage, epoch, updates, examples, seconds, *figures = row
    rate, *metrics = (math.nan if figure is None else figure for figure in figures)
    return EpochRecord(
        stage=stage,
        epoch=epoch,
        updates=updates,
        examples=examples,
        seconds=seconds,
        learning_rate=math.nan if "learning_rate" in unreported else rate,
        **dict(zip(METRICS, metrics, strict=True)),
        probes=probes,
        unreported=unreported,
    )


def _named(name: str, trial: Trial) -> Trial:
    """A trial, if it is the one that its row is of; rows of other values could be of one trial twice."""
    if trial.name != name:
        raise ValueError(f"the row of trial {name} must be of it, but tells of {trial.name}")
    return trial


def _encoded(facts: Mapping[str, str]) -> str:
    return json.dumps({name: masked(fact) for name, fact in facts.items()})


def _decoded(facts: str) -> dict[str, str]:
    found = json.loads(facts)
    if not isinstance(found, dict) or not all(isinstance(fact, str) for fact in found.values()):
        raise TypeError("a session's facts must be texts by name")
    return found
