"""A trial's records, stored and to come: which epoch a report is of, and whether it agrees with them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from batchscope.errors import HistoryError
from batchscope.history import METRICS
from batchscope.own.reports import Report, check_report
from batchscope.records import EpochRecord

__all__ = ["Ledger", "Outlet", "TrialOverError"]


class TrialOverError(BaseException):
    """A metric is not finite, so the trial has diverged and is over; no error that code should catch."""


class Outlet(Protocol):
    """Where records go."""

    def store(self, record: EpochRecord) -> None:
        """Stores a record; when this returns, it is safe.

        Raises:
            HistoryError: It does not go with what is stored of other trials.
        """

    def discard(self, epoch: int, *, replaced: bool) -> None:
        """Gives up the trial's stored records from an epoch on.

        Args:
            epoch: The first of them.
            replaced: Whether others come in their place.
        """


class Ledger:
    """Takes the reports of one trial.

    Code that was interrupted and is called again either goes on from a state of its own or begins
    anew, and reports some epochs a second time. Those whose figures are the stored ones pass; the
    clock is not compared. Other figures mean

    - of code that began at epoch 1: another course of the whole trial. What is stored of the old
      one from that epoch on is discarded, and said, so that no history is put together of two;
    - of code that went on later: a mistake, for what came before is of the old course.

    Code that began at epoch 1 and ended before the stored ones is another course too: what is stored
    beyond its end is discarded.

    Args:
        batch_size: The trial's.
        learning_rate: In force where a report tells none.
        stored: Records that are stored already, in their order.
        outlet: Takes the others.
    """

    def __init__(
        self, batch_size: int, learning_rate: float | None, stored: Sequence[EpochRecord], outlet: Outlet
    ) -> None:
        self._batch_size, self._learning_rate, self._outlet = batch_size, learning_rate, outlet
        self._records = list(stored)
        self.begin()

    def begin(self) -> None:
        """The code begins, or begins again, to report; the clock starts."""
        self._first = self._last = 0
        self._since = time.monotonic()

    @property
    def records(self) -> tuple[EpochRecord, ...]:
        """All that is stored."""
        return tuple(self._records)

    def take(self, fields: Mapping[str, object]) -> None:
        """Takes a report, and returns when its record is safe.

        Args:
            fields: See `check_report`.

        Raises:
            HistoryError: It cannot be accepted; nothing has changed.
            TrialOverError: It is stored, and its trial has diverged.
        """
        report = check_report(fields, self._batch_size)
        epoch = self._epoch(report)
        record = self._record(report, epoch)
        if epoch > len(self._records):
            self._add(record)
        elif not _same(record, self._records[epoch - 1]):
            self._replace(record)
        self._first, self._last = self._first or epoch, epoch
        if record.diverged:
            raise TrialOverError
        self._since = time.monotonic()

    def end(self) -> None:
        """The code has ended by itself, and reports no more."""
        if self._first == 1 and self._last < len(self._records):
            self._outlet.discard(self._last + 1, replaced=False)
            del self._records[self._last :]

    def _add(self, record: EpochRecord) -> None:
        self._outlet.store(record)
        self._records.append(record)

    def _replace(self, record: EpochRecord) -> None:
        epoch = record.epoch
        if (self._first or epoch) != 1:
            changed = _differences(self._records[epoch - 1], record)
            raise HistoryError(
                f"epoch {epoch} is stored already, with other figures: {changed}; code that goes on must do "
                "so from the state, random streams included, in which the epoch before ended, or keep the "
                "figures of each epoch with its state and report them again; code that begins anew at "
                "epoch 1 replaces what is stored"
            )
        self._outlet.discard(epoch, replaced=True)
        del self._records[epoch - 1 :]
        self._add(record)

    def _epoch(self, report: Report) -> int:
        """Which epoch it is; of code that has just begun, if it does not say so, by its updates."""
        stored = len(self._records)
        if self._last:
            expected = self._last + 1
            if report.epoch not in (None, expected):
                raise HistoryError(f"after epoch {self._last} comes {expected}, but got epoch {report.epoch}")
            return expected
        if report.epoch is not None:
            if report.epoch > stored + 1:
                raise HistoryError(
                    f"epochs must be reported without a gap, and {stored} are stored, but got epoch "
                    f"{report.epoch} first; report those between again, kept with the state to go on from"
                )
            return report.epoch
        if not stored or report.updates > self._records[-1].updates:
            return stored + 1
        known = [record.epoch for record in self._records if record.updates == report.updates]
        if not known:
            raise HistoryError(
                f"{stored} epochs are stored, and none of them has {report.updates} updates; say with epoch= "
                "which one this is"
            )
        return known[0]

    def _record(self, report: Report, epoch: int) -> EpochRecord:
        before = self._records[epoch - 2] if epoch > 1 else None
        rate = self._learning_rate if report.learning_rate is None else report.learning_rate
        seconds = report.seconds
        if seconds is None:
            seconds = (before.seconds if before else 0.0) + time.monotonic() - self._since
        told = dict.fromkeys(METRICS, math.nan) | dict(report.metrics)
        record = EpochRecord(
            stage=report.stage,
            epoch=epoch,
            updates=report.updates,
            examples=report.examples,
            seconds=seconds,
            learning_rate=math.nan if rate is None else rate,
            **told,
            probes=report.columns,
            unreported=tuple(name for name in METRICS if name not in report.metrics)
            + (("learning_rate",) if rate is None else ()),
        )
        if before is not None:
            self._check_counts(before, record)
        return record

    def _check_counts(self, before: EpochRecord, record: EpochRecord) -> None:
        for name in ("updates", "examples", "seconds"):
            was, now = getattr(before, name), getattr(record, name)
            if now < was or (now == was and name != "seconds"):
                raise HistoryError(
                    f"{name} must count on from the trial's start, but epoch {before.epoch} has {was} and "
                    f"epoch {record.epoch} has {now}"
                )
        if record.stage != before.stage and record.stage in {
            known.stage for known in self._records[: record.epoch - 1]
        }:
            raise HistoryError(
                f"a stage must be reported in one piece, but {record.stage} comes again after {before.stage}"
            )


def _figures(record: EpochRecord) -> dict[str, object]:
    """All but the clock, NaN as a word: it equals nothing, itself included."""
    clock = {name for name in record.probes if name.endswith("seconds")}
    figures: dict[str, object] = {
        "stage": record.stage,
        "updates": record.updates,
        "examples": record.examples,
        "learning_rate": record.learning_rate,
        **record.metrics,
        **{name: value for name, value in record.probes.items() if name not in clock},
    }
    return {name: "NaN" if value != value else value for name, value in figures.items()}  # noqa: PLR0124


def _same(one: EpochRecord, other: EpochRecord) -> bool:
    return _figures(one) == _figures(other)


def _differences(stored: EpochRecord, record: EpochRecord) -> str:
    old, new = _figures(stored), _figures(record)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(f"{name} {old.get(name, 'absent')} and now {new.get(name, 'absent')}" for name in names)
