"""Tables of features: numbers and classes as they are there, or what is wrong, by column and row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_iris

from array_samples import load, refusal
from batchscope.data.image_files import LEAST_UNPACKED

PLAIN = "a,b,label\n1,0.5,x\n2,-3e4,y\n3,1e-3,x\n"
VALUES = np.array([[1, 0.5], [2, -3e4], [3, 1e-3]], np.float32)


def write(folder: Path, text: str, name: str = "mine.csv") -> Path:
    (folder / name).write_bytes(text.encode())
    return folder / name


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(PLAIN, id="plain"),
        pytest.param("\ufeff" + PLAIN.replace("\n", "\r\n"), id="windows"),
        pytest.param(PLAIN.replace(",", ";"), id="semicolons"),
        pytest.param(PLAIN.replace(",", "\t"), id="tabs"),
        pytest.param(PLAIN.replace(",", ", "), id="spaces"),
        pytest.param('"a","b","Target"\n1,"0.5",x\n2,-3e4,"y"\n3,1e-3,x\n', id="quotes and another name"),
    ],
)
def test_a_csv_table_is_read_rightly(tmp_path: Path, text: str) -> None:
    dataset = load(write(tmp_path, text))
    assert dataset.inputs.dtype == np.float32
    np.testing.assert_array_equal(dataset.inputs, VALUES)
    assert (dataset.labels.tolist(), dataset.classes, dataset.features) == ([0, 1, 0], ("x", "y"), ("a", "b"))
    assert (dataset.ids, dataset.sizes) == (("0", "1", "2"), ())


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_real_table_comes_back_to_the_last_bit(tmp_path: Path, suffix: str) -> None:
    iris = load_iris(as_frame=True)
    table, path = iris.frame.rename(columns={"target": "species"}), tmp_path / f"iris{suffix}"
    table["species"] = iris.target_names[table["species"]]
    table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    dataset = load(path, label="species")
    np.testing.assert_array_equal(dataset.inputs, iris.data.to_numpy(np.float32))
    np.testing.assert_array_equal(dataset.labels, iris.target)
    assert dataset.classes == ("setosa", "versicolor", "virginica")
    assert dataset.features == tuple(iris.feature_names)


def test_a_column_of_ids_names_the_examples(tmp_path: Path) -> None:
    dataset = load(write(tmp_path, "ID,a,label\n007,1,3\nx y,2,12\n"))
    assert (dataset.ids, dataset.features, dataset.classes) == (("007", "x y"), ("a",), ("3", "12"))


def test_words_that_look_like_nothing_to_pandas_are_classes(tmp_path: Path) -> None:
    dataset = load(write(tmp_path, "a,y\n1,None\n2,True\n3,None\n"))
    assert (dataset.classes, dataset.labels.tolist()) == (("None", "True"), [0, 1, 0])


@pytest.mark.parametrize(
    "column",
    [
        pytest.param(pa.array(["u", "v", "u"]).dictionary_encode(), id="dictionary"),
        pytest.param(pa.array(["u", "v", "u"], pa.large_string()), id="large words"),
        pytest.param(pa.array([4, 9, 4], pa.uint8()), id="numbers"),
        pytest.param(pa.array([False, True, False]), id="truth values"),
    ],
)
def test_kinds_of_parquet_columns(tmp_path: Path, column: pa.Array) -> None:
    features = {"a": pa.array([1, 2, 3], pa.int16()), "b": pa.array([True, False, True])}
    pq.write_table(pa.table({**features, "label": column}), tmp_path / "t.parquet")
    dataset = load(tmp_path / "t.parquet")
    np.testing.assert_array_equal(dataset.inputs, [[1, 1], [2, 0], [3, 1]])
    assert dataset.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "must name two columns or more", id="empty"),
        pytest.param("a,b,label\n", "at least a row below its header", id="no rows"),
        pytest.param("label;id\nu;1\nv;2\n", "images must lie beside it", id="ids alone"),
        pytest.param("a,b\n1,2\n", "be called one of label, target, class, y, but none is", id="no label"),
        pytest.param("a,Label,y\n1,u,v\n", "but 'Label', 'y' are; name it with --label", id="two labels"),
        pytest.param("a,a,label\n1,2,u\n", "but 'a' is empty or there twice", id="two of a name"),
        pytest.param("a,,label\n1,2,u\n", "but '' is empty or there twice", id="no name"),
        pytest.param("a,b,label\n1,red,u\n2,3,v\n", "'b' holds str, such as 'red'; encode it", id="words"),
        pytest.param(
            "a,b,label\n1,,u\n2,3,v\n4,NaN,u\n", "'b' lacks 2 values, the first in row 2", id="missing"
        ),
        pytest.param("a,b,label\n1,2,u\n3,v\n", "'b' holds", id="shorter row"),
        pytest.param("a,label\n1,u\n2,v,9\n", "cannot be read as CSV", id="longer row"),
        pytest.param(
            "a,label\n1,u,9\n2,v,9\n", "as many fields as the header, but have more", id="longer rows"
        ),
        pytest.param("a,label\ninf,u\n2,v\n", "the first is inf in row 2 of column 'a'", id="infinite"),
        pytest.param(
            "a,label\n1e39,u\n2,v\n", "the first is 1e+39 in row 2 of column 'a'", id="beyond float32"
        ),
        pytest.param("a,label\n1,u\n2,u\n", "at least two classes, but got u", id="one class"),
        pytest.param(
            "a,label\n1,u\n2,\n3,nan\n", "have none: row 3: '', row 4: 'nan'", id="no label in a row"
        ),
        pytest.param("a,label\n1,0.5\n2,1\n", "other numbers: row 2: '0.5'", id="measured"),
        pytest.param("a,label\n1,Yes\n2,yes\n", "differ in more than case", id="case"),
        pytest.param(
            "id,a,label\n1,1,u\n1,2,v\n", "each id must occur once, but 1 occur more often: 1", id="id twice"
        ),
        pytest.param("id,a,label\n,1,u\n2,2,v\n", "but 1 have none (row 2)", id="no id"),
        pytest.param(
            "id,ID,label\n1,1,u\n2,2,v\n", "one column may hold ids, but there are 'id', 'ID'", id="ids"
        ),
        pytest.param("label,id,y\nu,1,2\n", "but 'label', 'y' are", id="label and y"),
        pytest.param(
            ",".join(f"c{n}" for n in range(20_001)), "at most 20,000 columns, but has 20,001", id="wide"
        ),
    ],
)
def test_a_wrong_csv_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(write(tmp_path, text))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        pytest.param({"a": ["x", "y"], "label": [0, 1]}, "'a' holds str, such as 'x'", id="words"),
        pytest.param({"a": [1, None], "label": [0, 1]}, "'a' lacks 1 values, the first in row 1", id="null"),
        pytest.param({"a": [[1], [2]], "label": [0, 1]}, "'a' holds object", id="lists"),
        pytest.param({"a": [{"b": 1}] * 2, "label": [0, 1]}, "'a' holds object", id="records"),
        pytest.param(
            {"a": pd.to_datetime(["2020", "2021"]), "label": [0, 1]}, "'a' holds datetime64", id="dates"
        ),
        pytest.param(
            {"a": [1, 2], "label": [0.0, 1.5]}, "some are other numbers: row 0: '0.0'", id="measured"
        ),
        pytest.param(
            {"a": [1, 2], "label": [[0], [1]]}, "whole numbers or words, but one is a", id="label lists"
        ),
        pytest.param({"a": [1, 2], "label": [b"0", b"1"]}, "but one is a bytes", id="label bytes"),
        pytest.param({"label": [0, 1]}, "at least a column of features", id="labels alone"),
    ],
)
def test_a_wrong_parquet_table_is_refused(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert message in refusal(tmp_path / "t.parquet")


def test_a_parquet_table_with_text_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": [1.0, 2.0], "label": ["PLANTED", "other"]}), path, compression="none")
    path.write_bytes(path.read_bytes().replace(b"PLANTED", b"PL\x8eNTED"))
    assert "cannot be read as Parquet" in refusal(path)


def test_a_parquet_file_that_is_small_only_while_packed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of one value pack to nothing: here 100,000 rows to some hundred bytes."""
    rows = {"a": np.zeros(100_000), "label": np.zeros(100_000, np.int8)}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").stat().st_size < 5_000
    monkeypatch.setattr("batchscope.data.feature_table.LEAST_UNPACKED", LEAST_UNPACKED // 1_000)
    assert "must hold at most 134,217 values" in refusal(tmp_path / "t.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(40) + b"PAR1", PLAIN.encode()])
def test_what_is_no_parquet_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.parquet").write_bytes(content)
    assert "t.parquet: cannot be read" in refusal(tmp_path / "t.parquet")


def test_a_label_of_what_is_no_table_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2)), y=[0, 1, 0, 1])
    (tmp_path / "cat").mkdir()
    for source in (tmp_path / "a.npz", tmp_path):
        assert "data.label names a column of a table of features" in refusal(source, label="y")
    assert "must hold the labels and be 'kind', but none is" in refusal(write(tmp_path, PLAIN), label="kind")


def test_validation_tables_have_the_same_columns(tmp_path: Path) -> None:
    source = write(tmp_path, PLAIN)
    good = write(tmp_path, "a,b,label\n7,8,y\n9,0,x\n", "good.csv")
    dataset = load(source, validation=str(good))
    np.testing.assert_array_equal(dataset.inputs, np.concatenate([VALUES, [[7, 8], [9, 0]]]))
    assert (dataset.labels.tolist(), dataset.given) == ([0, 1, 0, 1, 0], 2)
    assert dataset.ids == ("training/0", "training/1", "training/2", "validation/0", "validation/1")
    for text, odd in (
        ("a,c,label\n7,8,y\n9,0,x\n", "differ in b, c"),
        ("b,a,label\n7,8,y\n9,0,x\n", "their order"),
    ):
        other = write(tmp_path, text, "other.csv")
        assert odd in refusal(source, validation=str(other))
