"""Tables of labels beside a folder of images: a dataset, or what is wrong with the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fuzz_attempts import FUZZED, Attempts
from fuzz_mutations import NASTY_BYTES, NASTY_TEXTS, damaged_bytes, damaged_lines
from fuzz_pictures import picture, pixels
from hypothesis import given
from hypothesis import strategies as st

from batchscope.data import load_dataset
from batchscope.spec import DataSpec

IMAGES = {name: picture(place) for place, name in enumerate(("a.png", "é 1.png", "b", "c;d,e.png", "007"))}
HEADERS = (
    "id,label",
    "id;label",
    "id\tlabel",
    "label,ID",
    '"id","label"',
    "image,kind",
    "\ufeffid,label",
    " id , label ",
)
ENDS = ("\n", "\n", "\r\n", "\r", "\n\n")
NASTY_LINES = (
    "",
    ",",
    ",,",
    ";",
    "\t",
    '"',
    '""',
    '"a',
    'a"b,1',
    "a.png,1",
    "a.png,0",
    "id,label",
    "A.PNG,1",
    "missing,0",
    "../a.png,1",
    "/a.png,1",
    "./a.png,1",
    "a.png,nan",
    "a.png,",
    "a.png,1.0",
    "a.png,inf",
    "a.png,1e999",
    "a.png,2",
    "a.png,yes",
    "a.png,YES",
    "a.png,\u0661",
    "a\0.png,1",
    "x" * 20_000,
    "9" * 5_000 + ",1",
    "b," + "0" * 5_000,
    *(f"{text},1" for text in NASTY_TEXTS[:12]),
    *(f"b,{text}" for text in NASTY_TEXTS[:12]),
)


@st.composite
def tables(draw: st.DrawFn) -> str:
    """Ids that have images, and labels, in one of the forms that a table may have; now and then in none."""
    header = draw(st.sampled_from(HEADERS))
    separator = next(mark for mark in ";\t," if mark in header)
    kinds = draw(
        st.sampled_from(
            (("0", "1"), ("0", "1"), ("cactus", "other"), ("0", "1", "2"), ("yes", "Yes"), ("1",))
        )
    )
    rows = []
    for name in draw(st.permutations(tuple(IMAGES)))[: draw(st.integers(0, 5))]:
        cells = [quoted(name, separator), draw(st.sampled_from(kinds))]
        rows.append(separator.join(cells[::-1] if header.startswith("label") else cells))
    return draw(st.sampled_from(ENDS)).join([header, *rows, ""])


def quoted(name: str, separator: str) -> str:
    return f'"{name}"' if separator in name else name


TABLES = st.one_of(
    tables().map(str.encode),
    tables().flatmap(lambda text: damaged_lines(text, NASTY_LINES)).map(str.encode),
    tables().flatmap(
        lambda text: damaged_bytes(text.encode(), (*NASTY_BYTES, b";", b"\t", b"\n\n", b",1\n"))
    ),
    tables().flatmap(
        lambda text: st.sampled_from(("utf-16", "utf-8-sig", "utf-7", "utf-32")).map(text.encode)
    ),
    st.binary(max_size=60),
    st.text('id,;\t"\n\r01aé\ufeff\0 ', max_size=40).map(str.encode),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table's place, with its images beside it."""
    folder = tmp_path_factory.mktemp("tables")
    (folder / "train").mkdir()
    for name, content in IMAGES.items():
        (folder / "train" / name).write_bytes(content)
    return folder


@FUZZED
@given(content=TABLES, skip=st.booleans())
def test_label_tables(attempt: Attempts, folder: Path, content: bytes, skip: bool) -> None:
    (folder / "train.csv").write_bytes(content)
    spec = DataSpec(source=str(folder), skip_bad_images=skip)
    data = attempt(lambda: load_dataset(spec, 32, "nearest"), folder, str(folder))
    if data is None:
        return
    assert data.inputs.shape == (len(data), 4, 4, 3)
    assert len(set(data.ids)) == len(data) > 0
    assert set(data.ids) <= set(IMAGES)
    assert set(data.labels.tolist()) == set(range(len(data.classes)))
    assert skip or not data.skipped
    for name, image in zip(data.ids, data.inputs, strict=True):
        np.testing.assert_array_equal(image, pixels(tuple(IMAGES).index(name)))
