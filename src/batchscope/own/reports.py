"""One report of an epoch, checked against what the history may hold."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from batchscope.errors import HistoryError
from batchscope.history import COLUMNS, GRID, METRICS, SELECTION, WITHIN

__all__ = ["Report", "check_report"]

STAGE = "training"
"""The stage of a report that names none."""
_TRIALS_OWN = ("study", "trial", "batch_size", "replicate", GRID)
_VALIDATION = ("val_accuracy", "val_loss")
# Begin further columns that the analysis reads as figures of training.
_MEASURED = ("probe_", SELECTION, WITHIN)
_LARGEST = float(np.finfo(np.float32).max)  # what training computes with holds nothing larger
_MOST = 2**53  # beyond it neighbouring counts are one and the same number to float64
_STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_COLUMN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True)
class Report:
    """An epoch's figures as they were told, each of its column's kind.

    Attributes:
        epoch: None where it was not told.
        stage: Name of the stage.
        updates: Since the trial's start.
        examples: Likewise.
        seconds: Likewise; None where it was not told.
        learning_rate: None where it was not told.
        metrics: Of the history's losses and accuracies those that were told.
        columns: Further ones.
    """

    epoch: int | None
    stage: str
    updates: int
    examples: int
    seconds: float | None
    learning_rate: float | None
    metrics: Mapping[str, float]
    columns: Mapping[str, float]


def check_report(fields: Mapping[str, object], batch_size: int) -> Report:
    """Checks what was told of an epoch.

    Of `updates` and `examples` one may be left out; it is then what whole batches make of the other.

    Args:
        fields: Figures by the history's names of columns; any other name is a further column.
        batch_size: The trial's.

    Raises:
        HistoryError: Something necessary is missing, or a figure is not of its column's kind.
    """
    for name in fields:
        _check_name(name)
    if not any(name in fields for name in _VALIDATION):
        raise HistoryError(f"a report must hold {' or '.join(_VALIDATION)}, but has {_listed(fields)}")
    updates, examples = _counts(fields, batch_size)
    stage = fields.get("stage", STAGE)
    if not isinstance(stage, str) or not _STAGE_NAME.fullmatch(stage):
        raise HistoryError(
            "stage must be a name of up to 64 letters, digits, dots, dashes and underscores, "
            f"but got {_shown(stage)}"
        )
    epoch = _whole("epoch", fields["epoch"]) if "epoch" in fields else None
    return Report(
        epoch=epoch,
        stage=stage,
        updates=updates,
        examples=examples,
        seconds=_at_least_zero("seconds", fields),
        learning_rate=_at_least_zero("learning_rate", fields),
        metrics={name: _figure(name, fields[name]) for name in METRICS if name in fields},
        columns={
            name: _figure(name, value) if name.startswith(_MEASURED) else _number(name, value)
            for name, value in fields.items()
            if name not in COLUMNS
        },
    )


def _check_name(name: str) -> None:
    if name in _TRIALS_OWN:
        raise HistoryError(f"a report must leave {name} out: the run knows it")
    if name not in COLUMNS and not _COLUMN_NAME.fullmatch(name):
        raise HistoryError(
            "a further column must have a name of up to 64 letters, digits and underscores, "
            f"but got {_shown(name)}"
        )


def _counts(fields: Mapping[str, object], batch_size: int) -> tuple[int, int]:
    given = {name: _whole(name, fields[name]) for name in ("updates", "examples") if name in fields}
    if not given:
        raise HistoryError(
            "a report must hold updates or examples since the trial's start, for batch sizes are compared "
            f"at equal numbers of them, but has {_listed(fields)}"
        )
    updates = given.get("updates", math.ceil(given.get("examples", 0) / batch_size))
    return updates, given.get("examples", updates * batch_size)


def _whole(name: str, value: object) -> int:
    number = _number(name, value)
    if not (1 <= number <= _MOST and number == math.floor(number)):
        raise HistoryError(f"{name} must be a whole number from 1 up, but got {_shown(value)}")
    return int(number)


def _at_least_zero(name: str, fields: Mapping[str, object]) -> float | None:
    if name not in fields:
        return None
    number = _figure(name, fields[name])
    if not (math.isfinite(number) and number >= 0):
        raise HistoryError(f"{name} must be a number from 0 up, but got {_shown(fields[name])}")
    return number


def _figure(name: str, value: object) -> float:
    """A figure of training, which the analysis is going to take; NaN and infinity are divergence."""
    number = _number(name, value)
    if math.isfinite(number) and abs(number) > _LARGEST:
        raise HistoryError(
            f"{name} must be a figure that float32 can hold, up to {_LARGEST:.3g}, but got {_shown(value)}"
        )
    if name.endswith("_accuracy") and math.isfinite(number) and not 0 <= number <= 1:
        raise HistoryError(
            f"{name} must lie between 0 and 1, but got {_shown(value)}; divide percentages by 100"
        )
    return number


def _number(name: str, value: object) -> float:
    """The value of a number, of an array or of a tensor with one element."""
    take = getattr(value, "item", None)  # NumPy, PyTorch and JAX
    try:
        single = take() if callable(take) else value
        if isinstance(single, str | bytes | bool | None):
            raise TypeError("it is none")  # noqa: TRY301  # as what float() itself refuses
        return float(single)  # type: ignore[arg-type]  # whatever has __float__
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise HistoryError(f"{name} must be one number, but got {_shown(value)}") from error


def _shown(value: object) -> str:
    return reprlib.repr(value)


def _listed(fields: Mapping[str, object]) -> str:
    return ", ".join(fields) or "nothing"
