"""Histories that anybody brings: an analysis in figures and words, or why there is none."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from fuzz_attempts import FUZZED, Attempts
from fuzz_mutations import FLOATS, INTEGERS, NASTY_BYTES, NASTY_TEXTS, damaged_bytes, damaged_lines
from hypothesis import given
from hypothesis import strategies as st

from batchscope.analysis import Analysis, Settings, analyze, to_json
from batchscope.history import COLUMNS, check_history, encode_history, read_history
from batchscope.report.tables import analysis_tables
from budgeted import budgeted_history
from probed import in_inference_mode, probed_history

SHORT = (("feature_extraction", 1), ("fine_tuning", 3))
SIZES = (16, 64, 128)
PROBED = probed_history(batch_sizes=SIZES, stages=SHORT)
HISTORIES = (
    PROBED,
    PROBED[[name for name in PROBED.columns if name in COLUMNS]],
    in_inference_mode(probed_history(batch_sizes=(8, 64), stages=SHORT), "feature_extraction"),
    budgeted_history((("one", "updates", 1_000), ("two", "epochs", 2)), (64, 128, 256), 4),
    PROBED[["batch_size", "replicate", "epoch", "val_loss", "updates"]],
    PROBED.iloc[:1],
)
NAMES = (
    *COLUMNS,
    *(name for name in PROBED.columns if name not in COLUMNS),
    "",
    "x",
    "é",
    "epoch.1",
    "probe_",
    "probe_x",
    7,
)
CELLS = (
    None,
    True,
    "",
    "1",
    "x",
    "nan",
    "1e3",
    " 2 ",
    "1,5",
    "0x10",
    b"\xff",
    "9" * 400,
    1e308,
    -1.0,
    0.5,
    2,
    3,
    1e-300,
    *(*INTEGERS, *FLOATS, *NASTY_TEXTS[:14]),
    *("\ud800", [1], {"a": 1}, datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)),
    decimal.Decimal("0.5"),
    decimal.Decimal("NaN"),
    1 + 2j,
    pd.Timedelta(1),
    pd.NA,
    pd.NaT,
    np.float32(0.5),
)
SCALES = (0.0, -1.0, 2.0, 0.5, 100.0, 1e30, 1e-30, 1e150, 1e-150)
KINDS = (
    "Int64",
    "Float64",
    "category",
    "string",
    "object",
    "bool",
    "complex128",
    "float32",
    "uint64",
    "datetime64[ns]",
    "boolean",
)
NASTY_LINES = (
    "",
    ",",
    '"',
    ",,,,,,,,,,,,,,,,,,,,,,,,,,",
    "16,1,1",
    "batch_size,replicate,epoch",
    "x" * 20_000,
    "\0",
    "'",
    "\ufeff",
    "planted,b16-r1,16,0.0001,1,feature_extraction,1,875,14000,10.0,0.1,0.9,0.1,0.9",
    "9" * 5_000,
    "1e999,inf,nan",
)
TOKENS = (
    *NASTY_BYTES,
    b"1e308",
    b"inf",
    b"nan",
    b"9" * 30,
    b"-1",
    b"0.5",
    b",,",
    b"1e-320",
    b"PAR1",
    b"\x15\x04",
    b"true",
)
UNTRUE = re.compile(r"\b(nan|inf|None|unknown)\b")
WORDS = ("column", "history", "must", "needs", "epochs")


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """A history of which rows, columns, cells or types are not what they were."""
    table = draw(st.sampled_from(HISTORIES)).copy()
    if draw(st.booleans()):
        kept = draw(st.lists(st.integers(0, len(table) - 1), unique=True, min_size=1, max_size=len(table)))
        table = table.iloc[kept]
    for _ in range(draw(st.integers(0, 3))):
        table = changed(draw, table.reset_index(drop=True))
        if not len(table.columns):
            break
    return table


def changed(draw: st.DrawFn, table: pd.DataFrame) -> pd.DataFrame:
    """Other rows or columns, or another content of one column."""
    place = draw(st.integers(0, table.shape[1] - 1))
    how = draw(st.sampled_from(("drop", "rename", "double", "copy", "rows", *("content",) * 5)))
    if how == "drop":
        return table.drop(columns=table.columns[place])
    if how == "rename":
        names = list(table.columns)
        names[place] = draw(st.sampled_from(NAMES))
        return table.set_axis(names, axis=1)
    if how == "double":
        return pd.concat([table, table.iloc[: draw(st.integers(1, 3))]], ignore_index=True)
    if how == "copy":
        return table.assign(**{draw(st.sampled_from(COLUMNS)): table.iloc[:, place]})
    if how == "rows":
        return table.iloc[: draw(st.integers(0, 4))]
    result = table.copy()
    result.isetitem(place, content(draw, table.iloc[:, place]))
    return result


def content(draw: st.DrawFn, column: pd.Series) -> pd.Series:
    """A column of another type or scale, or with cells that do not belong there."""
    how = draw(st.sampled_from(("cells", "cells", "every", "kind", "scale")))
    if how == "kind":
        try:
            return column.astype(draw(st.sampled_from(KINDS)))
        except (TypeError, ValueError, OverflowError):
            return column
    if how == "scale" and column.dtype.kind in "if":
        return column.astype(np.float64) * draw(st.sampled_from(SCALES))
    cells = column.astype(object).to_list()
    last = max(len(cells) - 1, 0)
    rows = range(len(cells)) if how == "every" else draw(st.lists(st.integers(0, last), max_size=3))
    value = draw(st.sampled_from(CELLS))
    changed = [value if row in rows else cell for row, cell in enumerate(cells)]
    values = pd.Series(changed, index=column.index, dtype=object)
    try:
        return values.infer_objects() if draw(st.booleans()) else values
    except UnicodeEncodeError:  # half a character, which a column of texts cannot hold
        return values


def parquet(table: pd.DataFrame) -> bytes:
    """As far as Parquet can hold such values; where not, their texts."""
    buffer = io.BytesIO()
    names = [f"{name}" for name in table.columns]
    columns = []
    for place in range(table.shape[1]):
        values = table.iloc[:, place].astype(object).to_list()
        try:
            columns.append(pa.array(values, from_pandas=True))
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            columns.append(pa.array([ascii(value) for value in values]))
    pq.write_table(pa.table(columns, names=names), buffer)
    return buffer.getvalue()


def csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, errors="replace").replace("\r\n", "\n")


WHOLE = st.sampled_from(HISTORIES)
FILES = st.one_of(
    tables().map(lambda table: ("h.csv", csv(table).encode(errors="replace"))),
    tables().map(lambda table: ("h.csv", csv(table).encode(errors="replace"))),
    tables().map(lambda table: ("h.parquet", parquet(table))),
    WHOLE.flatmap(lambda table: damaged_lines(csv(table), NASTY_LINES)).map(
        lambda text: ("h.csv", text.encode())
    ),
    WHOLE.flatmap(lambda table: damaged_bytes(csv(table).encode(), TOKENS)).map(
        lambda content: ("h.csv", content)
    ),
    WHOLE.flatmap(lambda table: damaged_bytes(encode_history(table, ".parquet"), TOKENS)).map(
        lambda content: ("h.parquet", content)
    ),
    st.tuples(st.sampled_from(("h.csv", "h.parquet")), st.binary(max_size=200)),
)
SETTINGS = st.builds(
    Settings,
    resamples=st.just(100),
    metric=st.sampled_from((None, None, "val_loss")),
    margin=st.sampled_from((0.005, 0.005, 1e-300, 1e300)),
    summary_epochs=st.sampled_from((None, None, (1, 3))),
)


@FUZZED
@given(file=FILES, settings=SETTINGS)
def test_history_files(
    attempt: Attempts, tmp_path: Path, file: tuple[str, bytes], settings: Settings
) -> None:
    path = tmp_path / file[0]
    path.write_bytes(file[1])
    check(attempt(lambda: exported(read_history(path), settings), tmp_path, str(path), *WORDS))


@FUZZED
@given(table=tables(), settings=SETTINGS)
def test_history_tables(attempt: Attempts, tmp_path: Path, table: pd.DataFrame, settings: Settings) -> None:
    check(attempt(lambda: exported(check_history(table), settings), tmp_path, *WORDS))


def exported(history: pd.DataFrame, settings: Settings) -> tuple[Analysis, str, list[str]]:
    """All that is said of a history: the analysis, its JSON, and the texts of page and terminal."""
    analysis = analyze(history, settings)
    said = [sentence.text for sentence in (*analysis.verdict, *analysis.notes)]
    for table in analysis_tables(analysis):
        said += [table.title, table.note, *table.columns]
        for row in table.rows:
            assert len(row) == len(table.columns)
            assert all(cell.value is None or math.isfinite(cell.value) for cell in row)
            said += [text for cell in row for text in (cell.text, cell.detail)]
    names = [name for column in ("study", "trial", "stage") if column in history for name in history[column]]
    if any(UNTRUE.search(name) for name in names):
        said = []  # a stage may be called nan
    return analysis, to_json(analysis), said


def check(found: tuple[Analysis, str, list[str]] | None) -> None:
    if found is None:
        return
    analysis, text, said = found
    assert analysis.verdict
    json.loads(text, parse_constant=refuse)
    untrue = [line for line in said if UNTRUE.search(line)]
    assert not untrue, untrue


def refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")
