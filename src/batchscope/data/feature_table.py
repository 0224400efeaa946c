"""Tables of features: a column of labels, perhaps one of ids, and all others numbers."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from batchscope.data.array_inputs import as_features
from batchscope.data.image_files import LARGEST_RATIO, LEAST_UNPACKED
from batchscope.data.label_table import separator_of, table_text
from batchscope.data.parts import Arrays, counted_ids
from batchscope.data.problems import first_ten, tell_problems, why_unreadable
from batchscope.data.word_classes import classes_of_words
from batchscope.errors import DataError

__all__ = ["LABEL_COLUMNS", "read_feature_table"]

LABEL_COLUMNS = ("label", "target", "class", "y")
"""Names, in any case, of the column of labels where the study does not say."""

_NO_FIGURE = ("", "nan", "NaN", "NA", "N/A", "n/a", "null", "NULL", "None", "<NA>")
_INDEX = re.compile(r"__index_level_[0-9]+__")
_MOST_COLUMNS = 20_000


def read_feature_table(path: Path, label: str | None) -> Arrays:
    """Reads a table of features.

    A CSV file is text as `read_label_table` takes it; True and False are 1 and 0. A column ``id``,
    in any case, holds ids and is no feature.

    Args:
        path: Ends in ``.csv`` or ``.parquet``.
        label: Name of the column of labels; None for the one that is called as in `LABEL_COLUMNS`.

    Returns:
        Features float32 of shape (n, features), in the order of the columns.

    Raises:
        DataError: There is no column of labels, a feature is no number or is missing, a label is no
            class, or the file cannot be read.
    """
    packed = path.suffix.casefold() == ".parquet"
    frame = _read_parquet(path) if packed else _read_csv(path, label)
    first_row = 0 if packed else 2  # as those count who open the file
    label_column, id_column = _roles(path, list(frame.columns), label)
    features = [name for name in frame.columns if name not in (label_column, id_column)]
    if not features or frame.empty:
        what = "a column of features beside that of labels" if not features else "a row below its header"
        raise DataError(
            f"{path}: the table must have at least {what}, but has the columns {_listed(frame.columns)}"
        )
    _check_features(path, frame[features], first_row)
    matrix = np.empty((len(frame), len(features)), np.float64)
    for place, name in enumerate(features):
        matrix[:, place] = frame[name].to_numpy(np.float64)
    words = _words(path, frame[label_column])
    labels, classes = classes_of_words(f"{path}: column {label_column!r}", words, first_row)
    ids = counted_ids(len(frame)) if id_column is None else _ids(path, frame[id_column], first_row)
    return Arrays(
        as_features(str(path), matrix, tuple(features), first_row), labels, ids, classes, tuple(features)
    )


def _roles(path: Path, names: Sequence[str], label: str | None) -> tuple[str, str | None]:
    """The columns of labels and of ids."""
    if label is None:
        found = [name for name in names if name.casefold() in LABEL_COLUMNS]
    else:
        found = [name for name in names if name == label]
    if len(found) != 1:
        wanted = f"be called one of {', '.join(LABEL_COLUMNS)}" if label is None else f"be {label!r}"
        there = f"{_listed(found)} are" if found else "none is"
        raise DataError(
            f"{path}: one column of a table of features must hold the labels and {wanted}, but {there}; "
            f"name it with --label (label under [data]). The columns are {_listed(names)}"
        )
    ids = [name for name in names if name.casefold() == "id" and name != found[0]]
    if len(ids) > 1:
        raise DataError(f"{path}: one column may hold ids, but there are {_listed(ids)}; keep one")
    return found[0], ids[0] if ids else None


def _check_features(path: Path, features: pd.DataFrame, first_row: int) -> None:
    """Refuses columns that hold something else than numbers, or nothing, in a row."""
    problems = []
    for name, column in features.items():
        kind = column.dtype
        if not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_complex_dtype(kind):
            present = column.dropna()
            example = f", such as {str(present.iloc[0])[:40]!r}" if len(present) else ""
            problems.append(f"{name!r} holds {kind}{example}; encode it as numbers or leave the column out")
        elif (missing := column.isna().to_numpy()).any():
            row = missing.argmax() + first_row
            problems.append(
                f"{name!r} lacks {missing.sum():,} values, the first in row {row}; fill them in or leave "
                "the rows or the column out"
            )
    if problems:
        head = f"{path}: features must be numbers in every row, but {len(problems):,} columns are not"
        raise DataError(f"{head}\n  {first_ten(problems, between=chr(10) + '  ')}")


def _words(path: Path, column: pd.Series) -> list[str]:
    cells = column.astype(object).where(column.notna(), "").tolist()
    odd = next((cell for cell in cells if not isinstance(cell, str | int | float | np.generic)), None)
    if odd is not None:
        raise DataError(
            f"{path}: column {column.name!r}: labels must be whole numbers or words, but one is a "
            f"{type(odd).__name__}"
        )
    return [str(cell) for cell in cells]


def _ids(path: Path, column: pd.Series, first_row: int) -> tuple[str, ...]:
    ids = column.astype(object).where(column.notna(), "").map(str).str.strip()
    problems = []
    if (empty := (ids == "").to_numpy()).any():
        row = empty.argmax() + first_row
        problems.append(f"each row must have an id, but {empty.sum():,} have none (row {row})")
    twice = ids[(ids != "") & ids.duplicated()].unique().tolist()
    if twice:
        problems.append(f"each id must occur once, but {len(twice):,} occur more often: {first_ten(twice)}")
    if problems:
        raise DataError(tell_problems(str(path), problems))
    return tuple(ids.tolist())


def _read_csv(path: Path, label: str | None) -> pd.DataFrame:
    text = table_text(path)
    line = io.StringIO(text, newline="").readline()
    separator = separator_of(path, line, "two columns or more")
    try:
        names = [name.strip() for name in next(csv.reader([line], delimiter=separator))]
        _check_names(path, names)
        words = [name for name in _roles(path, names, label) if name is not None]
        _check_width(path, text, separator)
        return pd.read_csv(
            io.StringIO(text),
            sep=separator,
            header=0,
            names=names,
            dtype=dict.fromkeys(words, str),
            keep_default_na=False,
            na_values={name: list(_NO_FIGURE) for name in names if name not in words},
            skipinitialspace=True,
            low_memory=False,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error, ValueError) as error:
        raise DataError(f"{path}: the table cannot be read as CSV: {str(error).strip()}") from error


def _check_width(path: Path, text: str, separator: str) -> None:
    """Refuses rows with more fields than the header, of which pandas would take the first for an index."""
    try:
        pd.read_csv(io.StringIO(text), sep=separator, header=None, nrows=2, dtype=str)
    except pd.errors.ParserError as error:
        raise DataError(f"{path}: rows must have as many fields as the header, but have more") from error


def _read_parquet(path: Path) -> pd.DataFrame:
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if not _INDEX.fullmatch(name)]
            _check_names(path, names)
            _check_size(path, file.metadata.num_rows, len(names))
            columns = file.read(columns=names)
            columns.validate(full=True)  # for pandas takes text that is no UTF-8 and fails at it later
            table: pd.DataFrame = columns.to_pandas(ignore_metadata=True)
            return table
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: {why_unreadable(error)}") from error
    except Exception as error:  # Arrow and pandas raise many kinds of error on malformed bytes
        reason = str(error) or type(error).__name__
        raise DataError(f"{path}: cannot be read as Parquet: {reason}") from error


def _check_size(path: Path, rows: int, columns: int) -> None:
    """Refuses a file that is small only while it is packed."""
    most = max(LEAST_UNPACKED, LARGEST_RATIO * path.stat().st_size) // 8
    if not 0 <= rows * columns <= most:
        raise DataError(
            f"{path}: must hold at most {most:,} values (1 GiB of them, or {LARGEST_RATIO} times the file), "
            f"but claims {rows:,} rows of {columns:,}"
        )


def _check_names(path: Path, names: Sequence[str]) -> None:
    if len(names) > _MOST_COLUMNS:
        raise DataError(
            f"{path}: the table must have at most {_MOST_COLUMNS:,} columns, but has {len(names):,}"
        )
    odd = [name for name, count in Counter(names).items() if not name or count > 1]
    if odd:
        raise DataError(
            f"{path}: each column must have a name of its own, but {_listed(odd)} is empty or there twice"
        )


def _listed(names: Sequence[str] | pd.Index) -> str:
    return first_ten([repr(str(name)) for name in names]) or "none"
