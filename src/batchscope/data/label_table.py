"""The table of labels: a CSV file with a column of ids and a column of labels."""

from __future__ import annotations

import codecs
import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batchscope.data.problems import first_ten, tell_problems, why_unreadable
from batchscope.errors import DataError

__all__ = [
    "MISSING",
    "LabelTable",
    "classes_of",
    "is_label_table",
    "read_label_table",
    "separator_of",
    "table_text",
]

_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
MISSING = ("", "nan", "na", "n/a", "null")
"""What stands for no value, in any case."""

_FIRST_ROW = 2
_LONGEST_HEADER = 10_000
_LARGEST_TABLE = 2**30
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Ids and labels as a table gives them.

    Attributes:
        ids: Each once, in the order of the table.
        labels: Index into `classes`, int64 of shape (n,).
        classes: ``("0", "1")``, or the label words, sorted.
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


def read_label_table(path: Path) -> LabelTable:
    """Reads a table of labels.

    The table is UTF-8 (a byte order mark is allowed) or, as spreadsheets write it, UTF-16 with a
    byte order mark. It is separated by commas, semicolons or tabs as its header shows, lines end
    in any way, and it has two columns. The column named ``id`` in any case holds the ids; where
    there is none, the first one does. Labels are all 0 or 1, or all words.

    Args:
        path: The CSV file.

    Raises:
        DataError: With everything that is wrong with the table.
    """
    table = _read(path)
    ids, words = table.iloc[:, 0].str.strip(), table.iloc[:, 1].str.strip()
    problems = [*_id_problems(ids), *_repetitions(ids, words), *_label_problems(ids, words)]
    if len(table) == 0:
        problems = ["the table must have at least one row below its header"]
    if problems:
        raise DataError(tell_problems(str(path), problems))
    classes = classes_of(path, words.unique().tolist())
    numbers = pd.Categorical(words, categories=list(classes)).codes.astype(np.int64)
    return LabelTable(tuple(ids.tolist()), numbers, classes)


def classes_of(source: Path, words: list[str]) -> tuple[str, ...]:
    """Puts the classes in order.

    Args:
        source: Names the data in messages.
        words: The labels that occur, each once.

    Raises:
        DataError: Fewer than two, or two that differ in case only.
    """
    if len(words) < 2:
        raise DataError(f"{source}: there must be at least two classes, but got {first_ten(words) or 'none'}")
    folded: dict[str, str] = {}
    for word in words:
        other = folded.setdefault(word.casefold(), word)
        if other != word:
            raise DataError(f"{source}: classes must differ in more than case, but got {other!r}, {word!r}")
    return tuple(sorted(words))


def _read(path: Path) -> pd.DataFrame:
    """Reads both columns as text, the ids first."""
    text = table_text(path)
    try:
        separator, names = _header(path, text)
        table = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            header=0,
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=True,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error, ValueError) as error:
        raise DataError(f"{path}: the table cannot be read as CSV: {str(error).strip()}") from error
    if not isinstance(table.index, pd.RangeIndex):
        raise DataError(f"{path}: rows must have two fields like the header, but have more")
    table = table.fillna("")
    return table.iloc[:, [1, 0]] if names[1].casefold() == "id" else table


def table_text(path: Path) -> str:
    """The text of a table, whatever its encoding.

    Raises:
        DataError: The file cannot be read, is larger than 1 GiB, or is neither UTF-8 nor UTF-16 with
            a byte order mark.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST_TABLE:
            raise DataError(f"{path}: a table must have at most {_LARGEST_TABLE:,} bytes, but has {size:,}")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: the table {why_unreadable(error)}") from error
    encoding = "utf-16" if content.startswith(_UTF_16) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].decode(encoding, "ignore").count("\n") + 1
        raise DataError(
            f"{path}: the table must be UTF-8, or UTF-16 with a byte order mark, but line {line:,} is not; "
            "save it as CSV UTF-8"
        ) from error
    if (place := text.find("\0")) >= 0:
        line = text.count("\n", 0, place) + 1
        raise DataError(
            f"{path}: the table must be text, but line {line:,} holds a NUL character; save it as CSV UTF-8"
        )
    return text


def _header(path: Path, text: str) -> tuple[str, list[str]]:
    """The separator and the names of the two columns, from the first line."""
    line = io.StringIO(text[:_LONGEST_HEADER], newline="").readline()
    separator = separator_of(path, line, "two columns")
    names = [name.strip() for name in next(csv.reader([line], delimiter=separator))]
    if len(names) != 2 or "" in names or names[0].casefold() == names[1].casefold():
        raise DataError(
            f"{path}: the table must have two different named columns, ids and labels, but has {len(names)}: "
            f"{first_ten([repr(name) for name in names])}; keep those two"
        )
    if names[1] in ("0", "1") or names[0] in ("0", "1"):
        raise DataError(f"{path}: the first line must name the columns, such as id,label, but is {names}")
    return separator, names


def separator_of(path: Path, line: str, wanted: str) -> str:
    """What separates the columns that a table's first line names.

    Args:
        path: Names the table in messages.
        line: The line.
        wanted: What it should name, for messages.

    Raises:
        DataError: There is none of comma, semicolon and tab in it, or several.
    """
    found = [separator for separator in _SEPARATORS if separator in line]
    if len(found) != 1:
        known = ", ".join(_SEPARATORS.values())
        raise DataError(
            f"{path}: the first line must name {wanted}, separated by one of {known}, but is "
            f"{line.strip()[:100]!r}"
        )
    return found[0]


def is_label_table(path: Path) -> bool:
    """Whether a table's first line names two columns of which one is ``id``: images it is then, not features.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            line = file.readline(_LONGEST_HEADER)
    except OSError as error:
        raise DataError(f"{path}: the table {why_unreadable(error)}") from error
    encoding = "utf-16" if line.startswith(_UTF_16) else "utf-8-sig"
    names = re.split("[,;\t]", line.decode(encoding, "ignore").strip().casefold())
    return len(names) == 2 and "id" in (name.strip(' "') for name in names)


def _id_problems(ids: pd.Series) -> list[str]:
    problems = []
    if (empty := int((ids == "").sum())) > 0:
        rows = (np.flatnonzero(ids == "") + _FIRST_ROW).astype(str).tolist()
        problems.append(f"each row must have an id, but {empty:,} have none (row {first_ten(rows)})")
    return problems


def _repetitions(ids: pd.Series, words: pd.Series) -> list[str]:
    """Ids that occur more than once: rows that only repeat others, and rows that contradict others."""
    repeated = (ids != "") & ids.duplicated(keep=False)
    kinds = words[repeated].groupby(ids[repeated], sort=False).nunique()
    same, several = kinds.index[kinds == 1].tolist(), kinds.index[kinds > 1].tolist()
    problems = []
    if same:
        problems.append(
            f"each id must occur once, but {len(same):,} occur more often with the same label; remove the "
            f"repeated rows: {first_ten(same)}"
        )
    if several:
        problems.append(
            f"each id must have one label, but {len(several):,} have several: {first_ten(several)}"
        )
    return problems


def _label_problems(ids: pd.Series, words: pd.Series) -> list[str]:
    """Labels that are missing, or numbers other than 0 and 1, or words beside numbers."""
    missing = words.str.casefold().isin(MISSING)
    binary = words.isin(("0", "1"))
    kinds = pd.Series(words.unique(), dtype=words.dtype)
    number = words.isin(kinds[pd.to_numeric(kinds, errors="coerce").notna()]) & ~missing
    problems = []
    if missing.any():
        problems.append(f"each id must have a label, but {missing.sum():,} have none: {_some(ids, missing)}")
    odd = number & ~binary
    if odd.any():
        problems.append(
            f"labels must be 0 or 1, or words, but {odd.sum():,} are other numbers: {_some(ids, odd, words)}"
        )
    word = ~number & ~missing
    if word.any() and number.any():
        problems.append(
            f"labels must be all 0 or 1, or all words, but {word.sum():,} of {len(words):,} are words: "
            f"{_some(ids, word, words)}"
        )
    return problems


def _some(ids: pd.Series, where: pd.Series, words: pd.Series | None = None) -> str:
    """The first ten of the ids, with their labels."""
    names = ids[where].tolist()
    if words is not None:
        names = [f"{name}: {word!r}" for name, word in zip(names, words[where], strict=True)]
    return first_ten(names)
