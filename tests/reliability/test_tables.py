"""Tables as people and programs write them: read rightly, or refused with the line and the remedy."""

from __future__ import annotations

import codecs
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from batchscope.data import Dataset, load_dataset
from batchscope.data.label_table import read_label_table
from batchscope.errors import DataError
from batchscope.spec import DataSpec
from data_faults import calls_counted, refusal_of_table, tree
from image_samples import coloured, encoded, some_images, write_table, write_zip

PLAIN = "id,has_cactus\na.jpg,1\nb.jpg,0\nc.jpg,1\n"
EXCEL = PLAIN.replace(",", "\t").replace("\n", "\r\n")
QUOTED = 'id,kind\n"a,b.jpg",stone\n"c""d.jpg","cac\ntus"\n"e\nf.jpg",stone\n'


def load(source: Path, **settings: object) -> Dataset:
    return load_dataset(DataSpec(source=str(source), **settings), 32, "nearest")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(codecs.BOM_UTF16_LE + EXCEL.encode("utf-16-le"), id="unicode text of a spreadsheet"),
        pytest.param(codecs.BOM_UTF16_BE + PLAIN.encode("utf-16-be"), id="utf-16, large end first"),
        pytest.param(PLAIN.replace("\n", "\r").encode(), id="lone carriage returns"),
        pytest.param(PLAIN.replace("\n", "\r", 2).replace("0\n", "0\r\n").encode(), id="three line ends"),
        pytest.param(codecs.BOM_UTF8 + EXCEL.encode(), id="utf-8 with mark and tabs"),
        pytest.param(re.sub(r"([^,\n]+)", r'"\1"', PLAIN).encode(), id="all quoted"),
    ],
)
def test_read_rightly(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(content)
    table = read_label_table(path)
    assert table.ids == ("a.jpg", "b.jpg", "c.jpg")
    assert table.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quotes_keep_separators_quotes_and_line_ends(tmp_path: Path, end: str) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(QUOTED.replace("\n", end).encode())
    table = read_label_table(path)
    assert table.ids == ("a,b.jpg", 'c"d.jpg', f"e{end}f.jpg")
    assert table.classes == (f"cac{end}tus", "stone")
    assert table.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(
            "id,label\na,1\ncafé,0\n".encode("cp1252"), "but line 3 is not; save it as CSV UTF-8", id="cp1252"
        ),
        pytest.param(
            PLAIN.encode("utf-16")[:-1], "UTF-16 with a byte order mark, but line 4 is not", id="half"
        ),
        pytest.param(PLAIN.encode("utf-16-le"), "must be text, but line 1 holds a NUL", id="utf-16, no mark"),
        pytest.param(PLAIN.encode("utf-32"), "must be text, but line 1 holds a NUL", id="utf-32"),
        pytest.param(b"id,label\na,1\nb\0,0\n", "but line 3 holds a NUL character; save it", id="NUL"),
        pytest.param(encoded(coloured(1)), "must be UTF-8", id="a picture"),
        pytest.param(b"id\na.jpg\nb.jpg\n", "must name two columns", id="no labels"),
        pytest.param(
            b"id,label,x\na,1,2\nb,0,3\n", "has 3: 'id', 'label', 'x'; keep those two", id="one more"
        ),
        pytest.param(
            b"id,label\na,1\nb,0\na,0\n",
            "each id must have one label, but 1 have several: a",
            id="contradiction",
        ),
    ],
)
def test_refused(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in refusal_of_table(tmp_path / "train.csv", content)


def test_repeated_and_contradicting_rows_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    write_table(path, [("a", "1"), ("b", "0"), ("c", "1"), ("a", "1"), ("b", "1"), ("c", "1"), ("d", "0")])
    with pytest.raises(DataError) as caught:
        read_label_table(path)
    _, same, several = str(caught.value).splitlines()
    assert same.endswith("2 occur more often with the same label; remove the repeated rows: a, c")
    assert several.endswith("1 have several: b")


def test_a_huge_file_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    with path.open("wb") as file:
        file.truncate(2**30 + 1)
    with pytest.raises(DataError, match="at most 1,073,741,824 bytes, but has 1,073,741,825"):
        read_label_table(path)


MILLION = """
import json, resource, sys
from pathlib import Path
from batchscope.data.label_table import read_label_table

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

small, large = map(Path, sys.argv[1:])
small.write_text("id,label\\na,1\\nb,0\\n")
read_label_table(small)
with large.open("w") as file:
    file.write("id,label\\n")
    file.writelines(f"{row:07d}.jpg,{row % 3 % 2}\\n" for row in range(1_000_000))
before = peak()
table = read_label_table(large)
print(json.dumps([len(table.ids), int(table.labels.sum()), table.ids[-1], peak() - before]))
"""


def test_a_million_rows(tmp_path: Path) -> None:
    """At most 600 bytes of memory per row of 14 bytes; Python's text for the id alone takes 60."""
    command = [sys.executable, "-c", MILLION, str(tmp_path / "small.csv"), str(tmp_path / "large.csv")]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    rows, positive, last, growth = json.loads(ran.stdout)
    assert (rows, positive, last) == (1_000_000, 333_333, "0999999.jpg")
    assert growth * 1024 < 600 * rows


def test_python_does_not_walk_through_the_rows(tmp_path: Path) -> None:
    """Calls of Python functions are counted, for time depends on the machine."""

    def calls(rows: int) -> int:
        path = tmp_path / f"{rows}.csv"
        write_table(path, [(f"{row:06d}.jpg", str(row % 2)) for row in range(rows)])
        with calls_counted() as counted:
            read_label_table(path)
        return counted()

    calls(10)
    assert calls(30_000) - calls(1_000) < 1_000


@pytest.mark.parametrize("layout", ["folder", "zip"])
def test_ids_without_extension_are_those_files(tmp_path: Path, layout: str) -> None:
    contents = {
        f"v1.{place}{ending}": encoded(coloured(place)) for place, ending in enumerate([".png", ".JPG"] * 2)
    }
    rows = [(f"v1.{place}", str(place % 2)) for place in (3, 1, 0, 2)]
    if layout == "zip":
        write_zip(tmp_path / "train.zip", {f"train/{name}": content for name, content in contents.items()})
    else:
        (tmp_path / "train").mkdir()
        for name, content in contents.items():
            (tmp_path / "train" / name).write_bytes(content)
    write_table(tmp_path / "train.csv", rows)
    dataset = load(tmp_path)
    assert dataset.ids == ("v1.3.JPG", "v1.1.JPG", "v1.0.png", "v1.2.png")
    assert dataset.labels.tolist() == [1, 1, 0, 0]
    np.testing.assert_array_equal(dataset.inputs, np.stack([coloured(place) for place in (3, 1, 0, 2)]))


def test_an_id_that_may_mean_several_files_is_refused(tmp_path: Path) -> None:
    names = ["0.png", "0.jpg", "1.png", "2.png", "notes.txt"]
    write_zip(tmp_path / "train.zip", {name: encoded(coloured(1)) for name in names})
    write_table(tmp_path / "train.csv", [("0", "1"), ("1", "0"), ("2", "1"), ("notes", "1")])
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        "0: has a label, but several images in train.zip: 0.jpg, 0.png",
        "notes: has a label but no image in train.zip",
        "notes.txt: has an image but no label",
    ]
    assert load(tmp_path, skip_bad_images=True).ids == ("1.png", "2.png")


def test_ids_are_not_guessed_where_some_are_file_names(tmp_path: Path) -> None:
    write_zip(tmp_path / "train.zip", some_images(2))
    write_table(tmp_path / "train.csv", [("0000.png", "1"), ("0001", "0")])
    with pytest.raises(DataError, match="0001: has a label but no image"):
        load(tmp_path)


def test_ids_cannot_reach_other_files(tmp_path: Path) -> None:
    inside, secret = tmp_path / "data", tmp_path / "secret.png"
    (inside / "train").mkdir(parents=True)
    secret.write_bytes(encoded(coloured(99)))
    for name, content in some_images(4).items():
        (inside / "train" / name).write_bytes(content)
    outside = [
        "../../secret.png",
        "../../secret",
        str(secret),
        "..\\..\\secret.png",
        f"file://{secret}",
        "~/secret",
    ]
    labels = [(f"{place:04d}.png", str(place % 2)) for place in range(4)]
    write_table(inside / "train.csv", [*labels, *((name, "1") for name in outside)])
    before = tree(tmp_path)
    with pytest.raises(DataError) as caught:
        load(inside)
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert lines == [f"{name}: has a label but no image in train" for name in outside]
    dataset = load(inside, skip_bad_images=True)
    np.testing.assert_array_equal(dataset.inputs, np.stack([coloured(place) for place in range(4)]))
    assert tree(tmp_path) == before


def test_ids_cannot_command_the_terminal(tmp_path: Path) -> None:
    write_zip(tmp_path / "train.zip", some_images(1))
    (tmp_path / "train.csv").write_text('id,label\n0000.png,1\n"\x1b]0;title\x07\r\nall is well",0\n')
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    _, line = str(caught.value).splitlines()
    assert line.strip() == r"\x1b]0;title\x07\r\nall is well: has a label but no image in train.zip"
