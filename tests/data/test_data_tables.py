"""Tables of labels are read rightly or refused with everything that is wrong."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscope.data.label_table import read_label_table
from batchscope.errors import DataError
from data_faults import refusal_of_table

PLAIN = "id,has_cactus\na.jpg,1\nb.jpg,0\nc.jpg,1\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(PLAIN, id="plain"),
        pytest.param(PLAIN.rstrip("\n"), id="no line end at the end"),
        pytest.param(PLAIN + "\n\n", id="blank lines at the end"),
        pytest.param("\ufeff" + PLAIN, id="byte order mark"),
        pytest.param(PLAIN.replace("\n", "\r\n"), id="windows line ends"),
        pytest.param("\ufeff" + PLAIN.replace("\n", "\r\n"), id="both"),
        pytest.param(PLAIN.replace(",", ";"), id="semicolons"),
        pytest.param(PLAIN.replace(",", "\t"), id="tabs"),
        pytest.param('"id","has_cactus"\n"a.jpg","1"\n"b.jpg",0\nc.jpg,"1"\n', id="quotes"),
        pytest.param("has_cactus,ID\n1,a.jpg\n0,b.jpg\n1,c.jpg\n", id="label first"),
        pytest.param("image,label\na.jpg,1\nb.jpg,0\nc.jpg,1\n", id="no column id"),
        pytest.param(" id , label \n a.jpg, 1\nb.jpg ,0\nc.jpg,1 \n", id="spaces"),
    ],
)
def test_read_rightly(tmp_path: Path, text: str) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(text.encode())
    table = read_label_table(path)
    assert table.ids == ("a.jpg", "b.jpg", "c.jpg")
    assert table.labels.tolist() == [1, 0, 1]
    assert table.labels.dtype == np.int64
    assert table.classes == ("0", "1")


def test_words_are_classes_in_the_order_of_the_alphabet(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text('id;kind\n001;"stone; grey"\n002;cactus\n003;None\n004;cactus\n')
    table = read_label_table(path)
    assert table.classes == ("None", "cactus", "stone; grey")
    assert table.labels.tolist() == [2, 1, 0, 1]
    assert table.ids[0] == "001"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "must name two columns", id="empty"),
        pytest.param(
            "id\na\nb\n", "must name two columns, separated by one of comma, semicolon, tab", id="one"
        ),
        pytest.param(
            "id|label\na|1\nb|0\n", "separated by one of comma, semicolon, tab, but is 'id|label'", id="|"
        ),
        pytest.param("id,label;\na,1\nb,0\n", "separated by one of", id="two separators"),
        pytest.param("id,a,b\n1,2,3\n", "but has 3: 'id', 'a', 'b'; keep those two", id="three columns"),
        pytest.param("id,ID\n1,2\n", "but has 2: 'id', 'ID'", id="two ids"),
        pytest.param("id,\n1,2\n", "but has 2: 'id', ''", id="nameless"),
        pytest.param("a.jpg,1\nb.jpg,0\n", r"the first line must name the columns", id="no header"),
        pytest.param("id,label\n", "at least one row", id="no rows"),
        pytest.param(
            "id,label\na,1,9\nb,0,9\n", "two fields like the header, but have more", id="more fields"
        ),
        pytest.param("id,label\na,1\nb,0,9\n", "cannot be read as CSV", id="one longer row"),
        pytest.param('id,label\n"a,1\nb,0\n', "cannot be read as CSV", id="open quote"),
        pytest.param("id,label\na,1\nb,1\n", "at least two classes, but got 1", id="one class"),
        pytest.param("id,label\na,1\nb\n", "1 have none: b", id="row without label"),
        pytest.param("id,label\na,1\nb,NaN\nc,\n", "2 have none: b, c", id="nan"),
        pytest.param("id,label\na,1\nb,2\n", "1 are other numbers: b: '2'", id="two"),
        pytest.param("id,label\na,1.0\nb,0\n", "1 are other numbers: a: '1.0'", id="float"),
        pytest.param("id,label\na,1\nb,-1\n", "1 are other numbers: b: '-1'", id="minus one"),
        pytest.param("id,label\na,1\nb,0\nc,yes\n", "1 of 3 are words: c: 'yes'", id="word among numbers"),
        pytest.param(
            "id,label\na,Yes\nb,no\nc,yes\n", "differ in more than case, but got 'Yes', 'yes'", id="case"
        ),
        pytest.param(
            "id,label\na,1\na,1\nb,0\n",
            "1 occur more often with the same label; remove the repeated rows: a",
            id="the same id twice",
        ),
        pytest.param("id,label\n,1\nb,0\n,1\n", "2 have none (row 2, 4)", id="no id"),
    ],
)
def test_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal_of_table(tmp_path / "train.csv", text.encode())


def test_all_problems_at_once_and_ten_by_name(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    rows = [f"{row:02d},7" for row in range(12)] + ["x,", "x,1", "y,word"]
    path.write_text("\n".join(["id,label", *rows]))
    with pytest.raises(DataError) as caught:
        read_label_table(path)
    first, *lines = str(caught.value).splitlines()
    assert first == f"{path}: 4 problems"
    assert lines[0].strip() == "each id must have one label, but 1 have several: x"
    assert lines[1].strip() == "each id must have a label, but 1 have none: x"
    ten = ", ".join(f"{row:02d}: '7'" for row in range(10))
    assert lines[2].endswith(f"but 12 are other numbers: {ten}, and 2 more")
    assert lines[3].endswith("1 of 15 are words: y: 'word'")


@pytest.mark.parametrize(
    "content", [PLAIN.encode("utf-16-le"), b"id,label\n\xff\xfe,1\nb,0\n", b"id,label\na\x00b,1\n"]
)
def test_other_encodings_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(str(path))):
        read_label_table(path)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text('id,;\t"\n\r01aé\ufeff\0 ', max_size=60).map(str.encode)))
def test_any_bytes_are_a_table_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / f"{zlib.crc32(content)}.csv"
    path.write_bytes(content)
    try:
        table = read_label_table(path)
    except DataError:
        return
    finally:
        path.unlink()
    assert len(table.ids) == len(set(table.ids)) == len(table.labels)
    assert set(table.labels.tolist()) == set(range(len(table.classes)))
