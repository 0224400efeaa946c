"""The history: the tidy table of every (trial, epoch), and its files.

It is the contract between running, analysis, report and everybody who brings figures of their
own: CSV, Parquet, the database and the DataFrame have the same columns.
"""

from __future__ import annotations

import io
import re
import reprlib
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from batchscope.errors import HistoryError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "COLUMNS",
    "GRID",
    "METRICS",
    "REQUIRED",
    "SELECTION",
    "WITHIN",
    "check_history",
    "encode_history",
    "parts_measured",
    "probe_columns",
    "read_history",
    "require_columns",
]

METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
REQUIRED = ("batch_size", "replicate", "epoch")
_INTEGERS = ("batch_size", "replicate", "epoch", "updates", "examples")
_WORDS = ("study", "trial", "stage")
COLUMNS = (
    "study",
    "trial",
    "batch_size",
    "learning_rate",
    "replicate",
    "stage",
    "epoch",
    "updates",
    "examples",
    "seconds",
    *METRICS,
)
GRID = "grid_learning_rate"
"""Column of a study with a grid of learning rates: the one that the trial tries."""
SELECTION = "selection_"
"""Begins the names of columns measured on the images by which the best of a grid is chosen."""
WITHIN = "within_"
"""Begins the names of columns measured within an epoch, such as ``within_1_val_accuracy``."""
SUFFIXES = (".csv", ".parquet")
# What stands in a CSV file for a figure that is not there; pandas' own list but for words of its makers.
_NO_FIGURE = ("", "NaN", "nan", "-NaN", "-nan", "NA", "<NA>", "N/A", "n/a", "#N/A", "None", "NULL", "null")
# Beyond it neighbouring integers are one and the same number to float64, as which counts are computed.
_LARGEST = 2**53


def check_history(table: pd.DataFrame, source: str = "the history") -> pd.DataFrame:
    """Checks a table against the contract and brings it into standard form.

    Args:
        table: Rows of (trial, epoch); at least `REQUIRED` and one of `METRICS`.
        source: Names the table in error messages.

    Returns:
        A copy with counts as int64, figures as float64 (NaN kept), names as text, the known
        columns first in the order of `COLUMNS`, and rows sorted by batch size, replicate and epoch.
        Further columns are numbers (probes) or text. Optional columns that were missing stay missing.

    Raises:
        HistoryError: A required column is missing, a column or a (trial, epoch) stands there twice,
            or a value is not of its column's kind.
    """
    table = table.set_axis([str(name) for name in table.columns], axis=1)
    if not table.columns.is_unique:
        repeated = table.columns[table.columns.duplicated()].unique()
        raise HistoryError(f"{source}: each column must stand there once, but not so {_listed(repeated)}")
    missing = [name for name in REQUIRED if name not in table.columns]
    if missing:
        raise HistoryError(
            f"{source}: a history needs the columns {', '.join(REQUIRED)}, "
            f"but {', '.join(missing)} is missing (it has {_listed(table.columns)})"
        )
    if not any(name in table.columns for name in METRICS):
        raise HistoryError(
            f"{source}: a history needs at least one of {', '.join(METRICS)} "
            f"(it has {_listed(table.columns)})"
        )
    if table.empty:
        raise HistoryError(f"{source}: a history needs at least one row, but it has none")
    known = [name for name in COLUMNS if name in table.columns]
    extra = [name for name in table.columns if name not in COLUMNS]
    import pandas as pd

    # At once, for pandas warns of tables that grew by hundreds of columns.
    result = pd.DataFrame({name: _as_kind(table[name], name, source) for name in [*known, *extra]})
    keys = [key for key in ("study", *_trial_keys(result), "epoch") if key in result.columns]
    twice = result.duplicated(keys)
    if twice.any():
        where = result.loc[twice, keys].iloc[0].to_dict()
        described = ", ".join(f"{key}={value}" for key, value in where.items())
        raise HistoryError(
            f"{source}: each (trial, epoch) must stand there once, but {described} is repeated"
        )
    return result.sort_values(keys, kind="stable").reset_index(drop=True)


def require_columns(history: pd.DataFrame, names: tuple[str, ...], purpose: str) -> None:
    """Refuses a history that lacks a column an analysis needs.

    Raises:
        HistoryError: Names the columns and the purpose.
    """
    missing = [name for name in names if name not in history.columns]
    if missing:
        raise HistoryError(f"{purpose} needs the column {', '.join(missing)}, which this history lacks")


def probe_columns(history: pd.DataFrame) -> list[str]:
    """Names of the columns that probes added, in their order: further columns of numbers.

    Those that belong to a grid of learning rates, `GRID` and `SELECTION`, or that were measured `WITHIN` an
    epoch, are none of them.
    """
    numeric = map(str, history.select_dtypes("number").columns)
    known = (*COLUMNS, GRID)
    return [name for name in numeric if name not in known and not name.startswith((SELECTION, WITHIN))]


def parts_measured(history: pd.DataFrame) -> list[int]:
    """After which parts of an epoch validation was measured: K of columns ``within_K_updates``, ascending."""
    pattern = re.compile(rf"{WITHIN}(\d+)_updates")
    numeric = map(str, history.select_dtypes("number").columns)
    return sorted(int(match[1]) for name in numeric if (match := pattern.fullmatch(name)))


def read_history(path: Path) -> pd.DataFrame:
    """Reads a history from ``.csv`` or ``.parquet`` and checks it.

    Raises:
        HistoryError: The file cannot be read, or `check_history` refuses it.
    """
    if path.suffix not in SUFFIXES:
        raise HistoryError(f"{path}: a history must end in .csv or .parquet")
    try:
        table = _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)
    except HistoryError:
        raise
    except Exception as error:  # pandas and Arrow raise many kinds of error on malformed bytes
        reason = str(error) or type(error).__name__
        raise HistoryError(f"{path}: cannot be read as a history: {reason}") from error
    return check_history(table, str(path))


def encode_history(history: pd.DataFrame, suffix: str) -> bytes:
    """A history as the content of a ``.csv`` or ``.parquet`` file; figures survive exactly."""
    if suffix == ".csv":
        return history.to_csv(index=False).encode()
    if suffix == ".parquet":
        buffer = io.BytesIO()
        history.to_parquet(buffer, index=False)
        return buffer.getvalue()
    raise HistoryError(f"a history must be written as {' or '.join(SUFFIXES)}, but got {suffix!r}")


def _read_csv(path: Path) -> pd.DataFrame:
    """Reads names as they stand there, since a stage may be called NA or 007, and the rest as pandas does."""
    import pandas as pd

    header = _header(path)
    figures = [name for name in pd.read_csv(path, nrows=0).columns if name not in _WORDS]
    table = pd.read_csv(
        path,
        dtype=dict.fromkeys(_WORDS, str),
        keep_default_na=False,
        na_values=dict.fromkeys(figures, _NO_FIGURE),
        low_memory=False,
    )
    if header.duplicated().any():  # which pandas would have numbered, unseen by `check_history`
        table.columns = pd.Index(header)
    return table


def _read_parquet(path: Path) -> pd.DataFrame:
    """Reads and validates, for pandas takes text that is no UTF-8 and fails at it later on."""
    from pyarrow import parquet

    table = parquet.read_table(path)
    table.validate(full=True)
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _header(path: Path) -> pd.Series:
    """The first line's fields.

    Raises:
        HistoryError: The next line has more, of which pandas would take the first for an index.
    """
    import pandas as pd

    try:
        return pd.read_csv(path, header=None, nrows=2, dtype=str, keep_default_na=False).iloc[0]
    except pd.errors.ParserError as error:
        raise HistoryError(f"{path}: rows must have as many fields as the header, but have more") from error


def _trial_keys(table: pd.DataFrame) -> list[str]:
    """What identifies a trial: its name where it has one.

    `learning_rate` may change with the stage, so it identifies a trial only through its name.
    """
    names = ["batch_size", "replicate"]
    return [*names, "trial"] if "trial" in table.columns else names


def _as_kind(column: pd.Series, name: str, source: str) -> pd.Series:
    if name in _WORDS:
        return _words(column, name, source)
    numbers = _numbers(column)
    bad = numbers.isna() & column.notna()
    if bad.any() and name not in COLUMNS:
        return _texts(column, name, source)  # somebody's own remark, such as a host's name
    if bad.any():
        raise HistoryError(
            f"{source}: column {name} must hold numbers, but row {int(bad.to_numpy().argmax()) + 1} "
            f"has {reprlib.repr(column[bad].iloc[0])}"
        )
    if name not in _INTEGERS:
        return numbers
    values = numbers.to_numpy()
    least = 1 if name in REQUIRED else 0
    wrong = ~((values == np.floor(values)) & (values >= least) & (values <= _LARGEST))
    if wrong.any():
        raise HistoryError(
            f"{source}: column {name} must hold whole numbers from {least} up (to {_LARGEST:,}), "
            f"but row {int(wrong.argmax()) + 1} has {reprlib.repr(column.iloc[int(wrong.argmax())])}"
        )
    return numbers.astype(np.int64)


def _words(column: pd.Series, name: str, source: str) -> pd.Series:
    words = _texts(column, name, source)
    empty = (words == "").to_numpy()
    if empty.any() and not empty.all():
        raise HistoryError(
            f"{source}: column {name} must hold a name in every row or in none, but row "
            f"{int(empty.argmax()) + 1} has none; fill it in or leave the column out"
        )
    return words


def _texts(column: pd.Series, name: str, source: str) -> pd.Series:
    """The cells as text, empty where there is none."""
    try:
        return column.astype(object).where(column.notna(), "").map(str).astype(str)
    except UnicodeEncodeError as error:
        raise HistoryError(f"{source}: column {name} must hold text that UTF-8 can write: {error}") from error


def _numbers(column: pd.Series) -> pd.Series:
    """The column as float64; NaN where a cell is missing or holds no number."""
    import pandas as pd

    kind = column.dtype
    if not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_complex_dtype(kind):
        # Dates would be counted in nanoseconds, lists and bytes have no meaning.
        column = column.astype(object)
        column = column.where(column.map(_may_be_number), np.nan)
    numbers = pd.to_numeric(column, errors="coerce")
    return pd.Series(numbers.to_numpy(dtype=np.float64, na_value=np.nan), index=column.index)


def _may_be_number(cell: object) -> bool:
    if isinstance(cell, int):
        return abs(cell) < 2**1023  # beyond it float64 ends
    return isinstance(cell, str | float | np.floating | np.integer | np.bool_ | Decimal)


def _listed(columns: pd.Index) -> str:
    return ", ".join(map(str, columns)) or "no columns"
