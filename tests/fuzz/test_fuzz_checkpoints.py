"""Checkpoints: a whole one, or what is wrong with the file; never code that it brings."""

from __future__ import annotations

import io
import json
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fuzz_attempts import FUZZED, Attempts
from fuzz_mutations import VALUES, damaged_bytes, mutate_values
from hypothesis import example, given
from hypothesis import strategies as st

from batchscope.errors import TrainingError
from batchscope.training.checkpoint import load_checkpoint
from run_samples import record

WEIGHTS = (np.arange(6, dtype=np.float32).reshape(2, 3), np.array(3, np.int64), np.array([7, 9], np.uint32))
OPTIMIZER = (np.array(4, np.int64), np.ones(3, np.float32))
RECORD = record(2, probes={"probe_seconds": 1.5})
NAMES = (
    "meta.npy",
    "weights/0.npy",
    "weights/1.npy",
    "optimizer/0.npy",
    "weights/9.npy",
    "weights/x.npy",
    "meta",
    "../x.npy",
    "",
)


class Planted:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("__import__('os').system('true')",)


def header(text: str, version: tuple[int, int] = (1, 0)) -> bytes:
    """An array's file of nothing but a header."""
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + size + text.encode("latin1")


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(value), allow_pickle=True)
    return buffer.getvalue()


def described(dtype: str, shape: str) -> str:
    return f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}\n"


MEMBERS = (
    b"",
    b"x",
    saved(1.5),
    saved("text"),
    saved([]),
    saved(np.array([Planted()], object)),
    saved(np.zeros(2, "f4,i8")),
    saved(np.zeros(0)),
    saved(np.datetime64("NaT")),
    saved(b"bytes"),
    saved(np.ones(3, ">f4")),
    pickle.dumps(Planted()),
    *(
        header(described("'<f4'", shape))
        for shape in ("(10,)", "(10**12,)", "(1000000000000,)", "(-1,)", "(2**70,)", "()", "x")
    ),
    header(described("'<f4'", f"({'1' * 30},)")),
    header(described("'<f4'", "(0,)" * 500)),
    header("(" * 3_000),
    *(
        header(described(dtype, "(1,)"))
        for dtype in ("'|O'", "'<f999'", "[('a', '|O')]", "None", "'<U1000000000'", "'|V0'")
    ),
    header("[]\n"),
    header("{}\n"),
    header("x" * 20_000, (2, 0)),
    header("\xff\n", (3, 0)),
    header("{\n", (9, 9)),
)
META = {"trial": "b8-r1", "record": {**vars(RECORD), "probes": dict(RECORD.probes)}}
FIELDS = ("", "x", "trial", "record", "epoch", "probes", "stage", "train_loss")


def made() -> bytes:
    """A checkpoint as it should be."""
    buffer = io.BytesIO()
    arrays = {f"weights/{place}": value for place, value in enumerate(WEIGHTS)}
    arrays |= {f"optimizer/{place}": value for place, value in enumerate(OPTIMIZER)}
    np.savez(buffer, meta=np.array(json.dumps(META)), **arrays)
    return buffer.getvalue()


WHOLE = made()


@st.composite
def rebuilt(draw: st.DrawFn) -> bytes:
    """Members left out, renamed, doubled or with another content."""
    with zipfile.ZipFile(io.BytesIO(WHOLE)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(members) - 1))
        name, inside = members[place]
        how = draw(st.sampled_from(("content", "content", "meta", "meta", "drop", "name", "double", "bytes")))
        if how == "content":
            members[place] = (name, draw(st.sampled_from(MEMBERS)))
        elif how == "meta":
            raw = (
                mutate_values(draw, META, FIELDS)
                if draw(st.booleans())
                else draw(st.one_of(VALUES, st.just(META)))
            )
            members[0] = ("meta.npy", saved(json.dumps(raw, default=str)))
        elif how == "drop" and len(members) > 1:
            del members[place]
        elif how == "name":
            members[place] = (draw(st.sampled_from(NAMES)), inside)
        elif how == "double":
            members.append((draw(st.sampled_from(NAMES)), inside))
        else:
            members[place] = (name, draw(damaged_bytes(inside)))
    buffer = io.BytesIO()
    method = draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)))
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore", UserWarning)  # names that occur twice
        for name, inside in members:
            archive.writestr(name or "x", inside)
    return buffer.getvalue()


def deflated_badly() -> bytes:
    """A compressed checkpoint with one byte changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("meta.npy", saved(json.dumps(META)))
    content = bytearray(buffer.getvalue())
    start = 30 + len("meta.npy")
    content[start] = 0xFF  # a kind of block that does not exist
    return bytes(content)


CHECKPOINTS = st.one_of(
    rebuilt(),
    rebuilt(),
    rebuilt().flatmap(damaged_bytes),
    damaged_bytes(WHOLE),
    st.sampled_from(MEMBERS),
    st.binary(max_size=100),
)


@FUZZED
@example(content=WHOLE)
@given(content=CHECKPOINTS)
def test_checkpoints(attempt: Attempts, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b8-r1.npz"
    path.write_bytes(content)
    found = attempt(lambda: load_checkpoint(path), tmp_path, str(path))
    if found is None:
        assert content != WHOLE
        return
    arrays = [value for value in (*found.weights, *found.optimizer) if isinstance(value, np.ndarray)]
    assert not any(array.dtype.hasobject for array in arrays)


def holding(member: bytes, name: str = "weights/1.npy") -> bytes:
    """A checkpoint with another content of one member."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(WHOLE)) as whole, zipfile.ZipFile(buffer, "w") as archive:
        for each in whole.namelist():
            archive.writestr(each, member if each == name else whole.read(each))
    return buffer.getvalue()


def telling(**changes: object) -> bytes:
    """A checkpoint whose record says something else."""
    meta = {**META, "record": {**META["record"], **changes}}
    return holding(saved(json.dumps(meta)), "meta.npy")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="EOFError"),
        pytest.param(deflated_badly(), id="zlib.error"),
        pytest.param(holding(header("(" * 3_000)), id="TokenError"),
        pytest.param(holding(header(described("'<f4'", f"({10**30},)"))), id="OverflowError"),
        pytest.param(holding(header(described("'<f4'", "(1000000000000,)"))), id="MemoryError"),
        pytest.param(holding(saved("[" * 100_000), "meta.npy"), id="RecursionError"),
        pytest.param(holding(b"x"), id="bytes for an array"),
        pytest.param(telling(epoch="two"), id="text for a number"),
        pytest.param(telling(probes=[]), id="list for a table"),
    ],
)
def test_damaged_checkpoints_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b8-r1.npz"
    path.write_bytes(content)
    with pytest.raises(TrainingError):
        load_checkpoint(path)
