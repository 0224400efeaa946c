"""NumPy archives, IDX files and tables of features: a dataset, or what is wrong with the file."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz_attempts import FUZZED, Attempts
from fuzz_mutations import NASTY_BYTES, NASTY_TEXTS, damaged_bytes, damaged_lines
from hypothesis import given
from hypothesis import strategies as st

from array_samples import idx_bytes
from batchscope.data import Dataset, load_dataset
from batchscope.spec import DataSpec

ROWS = 8
IMAGES = np.arange(ROWS * 32, dtype=np.uint8).reshape(ROWS, 4, 8)
LABELS = np.arange(ROWS, dtype=np.uint8) % 2
LENGTHS = (0, 1, 2, 4, 8, -1, -8, 255, 2**16, 2**31, 2**32 - 1, 2**62, 10**30)
DTYPES = ("|u1", "<f4", ">f8", "<i8", "|b1", "<U3", "|S4", "|O", "<c8", "<M8[s]", "<f2", "|V8", "nonsense")


def load(path: Path) -> Dataset:
    return load_dataset(DataSpec(source=str(path)), 32, "nearest")


def check(data: Dataset) -> None:
    """What is accepted is whole: finite inputs, a label of each class, an id each."""
    assert len(data) >= 2
    assert np.isfinite(data.inputs).all()
    assert set(data.labels.tolist()) <= set(range(len(data.classes)))
    assert set(data.labels[: len(data) - data.given].tolist()) == set(range(len(data.classes)))
    assert len(data.ids) == len(data)


@st.composite
def members(draw: st.DrawFn) -> bytes:
    """An array's file: one that could be used, one whose header lies, or one that is damaged."""
    array = draw(
        st.sampled_from((IMAGES, IMAGES[..., None], IMAGES.reshape(ROWS, -1) / 7, LABELS, LABELS[:-1]))
    )
    buffer = io.BytesIO()
    np.save(buffer, array)
    how = draw(st.sampled_from(("whole", "whole", "whole", "lie", "lie", "damage")))
    if how == "whole":
        return buffer.getvalue()
    if how == "damage":
        return draw(damaged_bytes(buffer.getvalue(), (*NASTY_BYTES, b"O", b"(-1,", b"9" * 9, b"[" * 99)))
    shape = draw(st.lists(st.sampled_from((*LENGTHS, "True", "1.0", "'a'", "()")), max_size=5))
    text = (
        f"{{'descr': {draw(st.sampled_from(DTYPES))!r}, 'fortran_order': {draw(st.booleans())}, "
        f"'shape': ({''.join(f'{length}, ' for length in shape)}), }}"
    )
    version = draw(st.sampled_from((1, 1, 1, 2, 3, 9)))
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + size
        + text.encode()
        + draw(st.sampled_from((b"", IMAGES.tobytes())))
    )


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Pairs of arrays under the names asked for; now and then under others, or without their partner."""
    names = draw(
        st.sampled_from(
            (("x", "y"), ("x", "y"), ("x_train", "y_train", "x_test", "y_test"), ("x_train", "y_train"))
        )
    )
    plain = {"x": IMAGES, "y": LABELS}
    buffer = io.BytesIO()
    method = draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
    odd = draw(st.lists(st.sampled_from(("z", "x", "../x", "x_val", "", "é")), max_size=1))
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name in dict.fromkeys([*names, *odd]):
            content = io.BytesIO()
            np.save(content, plain.get(name[:1], LABELS))
            whole = draw(st.sampled_from((True, True, False)))
            archive.writestr(f"{name}.npy", content.getvalue() if whole else draw(members()))
    return buffer.getvalue()


ARCHIVES = st.one_of(archives(), archives(), archives().flatmap(damaged_bytes), st.binary(max_size=60))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arrays")


@FUZZED
@given(content=ARCHIVES)
def test_numpy_archives(attempt: Attempts, folder: Path, content: bytes) -> None:
    path = folder / "a.npz"
    path.write_bytes(content)
    data = attempt(lambda: load(path), folder, str(path))
    if data is not None:
        check(data)


@st.composite
def idx_files(draw: st.DrawFn, content: bytes) -> bytes:
    """The file, or one whose header or whose packing lies."""
    how = draw(st.sampled_from(("whole", "whole", "whole", "header", "damage", "damage packed")))
    if how == "header":
        axes = draw(st.integers(0, 4))
        lengths = [draw(st.sampled_from((0, 1, 4, 8, 255, 2**20, 2**32 - 1))) for _ in range(axes)]
        content = bytes([0, 0, draw(st.sampled_from((8, 8, 9, 13))), axes]) + struct.pack(
            f">{axes}I", *lengths
        )
        content += draw(st.sampled_from((b"", IMAGES.tobytes(), LABELS.tobytes())))
    if how == "damage":
        content = draw(damaged_bytes(content))
    packed = gzip.compress(content, mtime=0)
    return draw(damaged_bytes(packed)) if how == "damage packed" else packed


@FUZZED
@given(images=idx_files(idx_bytes(IMAGES)), labels=idx_files(idx_bytes(LABELS)))
def test_idx_files(attempt: Attempts, folder: Path, images: bytes, labels: bytes) -> None:
    place = folder / "idx"
    place.mkdir(exist_ok=True)
    (place / "train-images-idx3-ubyte.gz").write_bytes(images)
    (place / "train-labels-idx1-ubyte.gz").write_bytes(labels)
    data = attempt(lambda: load(place), place, str(place))
    if data is not None:
        check(data)
        assert data.inputs.shape[3] == 1


NASTY_LINES = (
    *(
        "",
        ",",
        ",,,,",
        ";",
        '"',
        '"a',
        "1,2",
        "1,2,u,4",
        "nan,1,u",
        "inf,1,u",
        "1e999,1,u",
        "0x10,1,u",
        "1_0,1,u",
    ),
    *("True,1,u", "a,b,label", "1,2,", "1,2,nan", "1,2,0.5", "1,2,U", "9" * 5_000 + ",1,u", "\u0661,1,u"),
    *(f"1,2,{text}" for text in NASTY_TEXTS[:12]),
    *(f"{text},2,u" for text in NASTY_TEXTS[:12]),
)


@st.composite
def tables(draw: st.DrawFn) -> str:
    """A header of some columns, and rows of numbers with a label."""
    headers = ("a,b,label", "a;b;class", "a\tb\tY", "id,b,target", "\ufeffa,b,label", "a,b,c", "a,b,label,y")
    kinds = (("u", "v"), ("0", "7", "12"), ("u", "v"), ("no", "yes"), ("u",), ("u", "1"), ("01", "1"))
    header = draw(st.sampled_from(headers[: draw(st.sampled_from((5, 5, 5, 7)))]))
    separator = next(mark for mark in ";\t," if mark in header)
    chosen = draw(st.sampled_from(kinds[: draw(st.sampled_from((4, 4, 4, 7)))]))
    numbers = st.sampled_from(("0", "1", "-2.5", "1e-3", "3e38", "7."))
    rows = [
        separator.join([f"{place}.{place}", draw(numbers), chosen[place % len(chosen)]])
        for place in range(draw(st.integers(0, 6)))
    ]
    return draw(st.sampled_from(("\n", "\n", "\r\n", "\r"))).join([header, *rows, ""])


TABLES = st.one_of(
    tables().map(str.encode),
    tables().flatmap(lambda text: damaged_lines(text, NASTY_LINES)).map(str.encode),
    tables().flatmap(lambda text: damaged_bytes(text.encode(), (*NASTY_BYTES, b";", b"\t", b"\n\n"))),
    tables().flatmap(lambda text: st.sampled_from(("utf-16", "utf-8-sig", "utf-32")).map(text.encode)),
)


@FUZZED
@given(content=TABLES, label=st.sampled_from((None, None, "label", "b")))
def test_feature_tables(attempt: Attempts, folder: Path, content: bytes, label: str | None) -> None:
    path = folder / "features.csv"
    path.write_bytes(content)
    spec = DataSpec(source=str(path), label=label)
    data = attempt(lambda: load_dataset(spec, 32, "nearest"), folder, str(path))
    if data is not None:
        check(data)
        assert data.inputs.shape == (len(data), len(data.features))


@st.composite
def parquet_files(draw: st.DrawFn) -> bytes:
    """Columns of one kind each, in a file that is whole or damaged."""
    features = (
        [1, 2, 3],
        [1.5, -1.0, 2.5],
        [1e300, 0.0, 1.0],
        [1.5, None, 2.5],
        ["x", "y", "z"],
        [[1], [2], [3]],
    )
    labels = ([0, 1, 0], ["u", "v", "u"], [True, False, True], [0.5, 1.0, 2.0], [b"u"] * 3)
    columns = {
        "a": draw(st.sampled_from(features[: draw(st.sampled_from((2, 2, 6)))])),
        draw(st.sampled_from(("b", "id", "__index_level_0__", "A", "b", ""))): [7, 8, 9],
        "label": draw(st.sampled_from(labels[: draw(st.sampled_from((3, 3, 5)))])),
    }
    buffer = io.BytesIO()
    compression = draw(st.sampled_from(("none", "snappy", "gzip")))
    pq.write_table(pa.table(columns), buffer, compression=compression)
    whole = draw(st.sampled_from((True, True, False)))
    return buffer.getvalue() if whole else draw(damaged_bytes(buffer.getvalue()))


@FUZZED
@given(content=parquet_files())
def test_parquet_tables(attempt: Attempts, folder: Path, content: bytes) -> None:
    path = folder / "features.parquet"
    path.write_bytes(content)
    data = attempt(lambda: load(path), folder, str(path))
    if data is not None:
        check(data)
