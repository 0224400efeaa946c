"""The contract of the history table."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from batchscope.errors import HistoryError
from batchscope.history import (
    COLUMNS,
    check_history,
    encode_history,
    probe_columns,
    read_history,
    require_columns,
)


def table(**columns: object) -> pd.DataFrame:
    base: dict[str, object] = {
        "batch_size": [32, 16, 16],
        "replicate": [1, 1, 1],
        "epoch": [1, 2, 1],
        "val_accuracy": [0.1, 0.2, 0.3],
    }
    return pd.DataFrame(base | columns)


def test_rows_are_sorted_and_known_columns_come_first():
    history = check_history(table(zeta=[1, 2, 3], train_loss=[1, 2, 3]))
    assert list(history.columns) == ["batch_size", "replicate", "epoch", "train_loss", "val_accuracy", "zeta"]
    assert history[["batch_size", "epoch"]].to_numpy().tolist() == [[16, 1], [16, 2], [32, 1]]
    assert history["val_accuracy"].tolist() == [0.3, 0.2, 0.1]
    assert history["zeta"].dtype == np.float64
    assert probe_columns(history) == ["zeta"]


def test_nan_is_kept():
    history = check_history(table(val_accuracy=[0.1, math.nan, math.inf]))
    assert history["val_accuracy"].isna().tolist() == [False, True, False]
    assert math.isinf(history["val_accuracy"][0])


@pytest.mark.parametrize("name", ["batch_size", "replicate", "epoch"])
def test_a_missing_required_column_is_named(name: str):
    with pytest.raises(HistoryError, match=f"but {name} is missing"):
        check_history(table().drop(columns=name))


def test_a_history_without_any_metric_or_row_is_refused():
    with pytest.raises(HistoryError, match="at least one of train_loss"):
        check_history(table().drop(columns="val_accuracy"))
    with pytest.raises(HistoryError, match="at least one row"):
        check_history(table().iloc[:0])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"val_accuracy": [0.1, "high", 0.3]}, "column val_accuracy must hold numbers, but row 2 has 'high'"),
        ({"epoch": [1, 2.5, 1]}, r"column epoch must hold whole numbers from 1 up .*, but row 2 has .*2\.5"),
        ({"batch_size": [0, 16, 16]}, r"column batch_size must hold whole numbers from 1 up .*, but row 1"),
        (
            {"replicate": [1, math.nan, 1]},
            r"column replicate must hold whole numbers from 1 up .*, but row 2",
        ),
        ({"updates": [-1, 2, 3]}, r"column updates must hold whole numbers from 0 up .*, but row 1"),
        ({"updates": [1, 2**53 + 2, 3]}, r"from 0 up \(to 9,007,199,254,740,992\), but row 2"),
        ({"updates": [1, 10**400, 3]}, "column updates must hold numbers, but row 2"),
        ({"epoch": np.array([2, 2**64 - 1, 1], np.uint64)}, "column epoch must hold whole numbers"),
        (
            {"val_accuracy": [0.1, [0.2], 0.3]},
            r"column val_accuracy must hold numbers, but row 2 has \[0.2\]",
        ),
        ({"val_accuracy": pd.to_datetime([1, 2, 3])}, "column val_accuracy must hold numbers, but row 1"),
        ({"seconds": [1j, 2, 3]}, "column seconds must hold numbers, but row 1"),
        (
            {"stage": ["head", None, "tail"]},
            "column stage must hold a name in every row or in none, but row 2 has none",
        ),
        (
            {"study": ["", "a", "a"]},
            "column study must hold a name in every row or in none, but row 1 has none",
        ),
        (
            {"trial": pd.Series(["a", "b", "\ud800"], dtype=object)},
            "column trial must hold text that UTF-8 can write",
        ),
    ],
)
def test_values_of_the_wrong_kind_are_refused_by_row(columns: dict[str, object], message: str):
    with pytest.raises(HistoryError, match=message):
        check_history(table(**columns))


def test_a_repeated_epoch_is_refused_by_name():
    with pytest.raises(HistoryError, match="batch_size=16, replicate=1, epoch=1 is repeated"):
        check_history(table(epoch=[1, 1, 1]))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_figures_survive_a_file_exactly(tmp_path: Path, suffix: str):
    rng = np.random.default_rng(0)
    history = check_history(table(val_accuracy=rng.random(3), train_loss=[math.nan, 1 / 3, 1e-300]))
    path = tmp_path / f"history{suffix}"
    path.write_bytes(encode_history(history, suffix))
    pd.testing.assert_frame_equal(read_history(path), history, check_exact=True)


def test_a_column_without_any_name_is_kept_empty():
    assert check_history(table(stage=[None, "", math.nan]))["stage"].tolist() == ["", "", ""]


@pytest.mark.parametrize("kind", ["Int64", "Float64", "category", "object"])
def test_numbers_of_any_type_are_read_with_their_gaps(kind: str):
    losses = pd.Series([1, None, 3]).astype(kind)
    assert check_history(table(train_loss=losses))["train_loss"].to_list() == [
        3,
        pytest.approx(math.nan, nan_ok=True),
        1,
    ]


def test_a_column_that_stands_there_twice_is_refused(tmp_path: Path):
    twice = pd.concat([table(), table()[["epoch"]]], axis=1)
    path = tmp_path / "history.csv"
    twice.to_csv(path, index=False)
    for read in (lambda: check_history(twice), lambda: read_history(path)):
        with pytest.raises(HistoryError, match="each column must stand there once, but not so epoch"):
            read()


def test_names_are_read_from_a_file_as_they_stand_there(tmp_path: Path):
    history = check_history(table(study="NA", stage=["null", "007", "1e3"], host=["a", None, "b"]))
    for suffix in (".csv", ".parquet"):
        path = tmp_path / f"history{suffix}"
        path.write_bytes(encode_history(history, suffix))
        again = read_history(path)
        assert again[["study", "stage", "host"]].to_numpy().tolist() == [
            ["NA", "1e3", "b"],
            ["NA", "007", ""],
            ["NA", "null", "a"],
        ]


@pytest.mark.parametrize("rows", ["16,1,1,0.5,\n16,1,2,0.4,\n", "1,16,1,1,0.5\n2,16,1,2,0.5\n"])
def test_rows_longer_than_the_header_are_refused(tmp_path: Path, rows: str):
    """Also where the first field counts on, which an index of pandas could do."""
    path = tmp_path / "history.csv"
    path.write_text(f"batch_size,replicate,epoch,val_loss\n{rows}")
    with pytest.raises(HistoryError, match="rows must have as many fields as the header"):
        read_history(path)


@pytest.mark.parametrize("name", ["history.csv", "history.parquet"])
def test_a_file_of_anything_else_is_refused_by_name(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(b"PAR1\0\xff" * 9)
    with pytest.raises(HistoryError, match=f"{name}: cannot be read as a history: ."):
        read_history(path)


def test_a_parquet_file_with_text_that_is_no_utf_8_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "history.parquet"
    table().assign(trial="PLANTED").to_parquet(path, compression="none")
    path.write_bytes(path.read_bytes().replace(b"PLANTED", b"PL\x8eNTED"))
    with pytest.raises(HistoryError, match=r"history\.parquet: cannot be read as a history: .*UTF8"):
        read_history(path)


def test_other_files_are_refused(tmp_path: Path):
    with pytest.raises(HistoryError, match=r"must end in \.csv or \.parquet"):
        read_history(tmp_path / "history.xlsx")
    with pytest.raises(HistoryError, match="cannot be read as a history"):
        read_history(tmp_path / "absent.csv")


def test_a_missing_optional_column_is_named_with_its_purpose():
    with pytest.raises(HistoryError, match="the gap needs the column train_accuracy"):
        require_columns(check_history(table()), ("train_accuracy", "val_accuracy"), "the gap")


def test_the_columns_are_those_of_the_contract():
    assert (
        *("study", "trial", "batch_size", "learning_rate", "replicate", "stage", "epoch"),
        *("updates", "examples", "seconds", "train_loss", "train_accuracy", "val_loss", "val_accuracy"),
    ) == COLUMNS
