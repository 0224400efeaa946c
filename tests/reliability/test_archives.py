"""Hostile and broken archives: refused by name, and nothing is written anywhere."""

from __future__ import annotations

import contextlib
import copy
import io
import re
import stat
import struct
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from batchscope.data import Dataset, load_dataset
from batchscope.data.image_files import ZipImages
from batchscope.errors import DataError
from batchscope.spec import DataSpec
from data_faults import tree
from image_samples import coloured, encoded, some_images, write_table, write_zip

GOOD = some_images(4)
EVIL = encoded(coloured(66))
CENTRAL = b"PK\x01\x02"
FLAGS, METHOD, VERSION, SIZE = 8, 10, 6, 24
"""Where fields stand behind the mark of a central directory's entry (APPNOTE 4.3.12)."""


def load(source: Path, **settings: object) -> Dataset:
    return load_dataset(DataSpec(source=str(source), **settings), 32, "nearest")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the data, beside others that nobody may change: all in `tmp_path`."""
    for name in ("canary/sub", "work/data", "work/current", "work/temporary"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("canary/evil.png", "canary/sub/evil.png", "work/evil.png"):
        (tmp_path / name).write_bytes(b"mine")
    monkeypatch.chdir(tmp_path / "work" / "current")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "work" / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path / "work" / "data"


def with_members(*names: str, content: bytes = EVIL) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        written = [name.replace("CANARY", str(path.parents[2] / "canary")) for name in names]
        write_zip(path, {**GOOD, **dict.fromkeys(written, content)})

    return build


def with_field(offset: int, new: bytes, name: str = "evil.png") -> Callable[[Path], None]:
    """Changes a field of the entry of one further member."""

    def build(path: Path) -> None:
        write_zip(path, {**GOOD, name: EVIL})
        content = bytearray(path.read_bytes())
        place = content.rindex(CENTRAL) + offset
        content[place : place + len(new)] = new
        path.write_bytes(content)

    return build


def with_method(method: int) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        write_zip(path, GOOD)
        with zipfile.ZipFile(path, "a", method) as archive:
            archive.writestr("evil.png", EVIL)

    return build


def with_link(path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    write_zip(path, GOOD)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "../../canary")
        archive.writestr("link/evil.png", EVIL)


def with_shared_bytes(path: Path) -> None:
    """A hundred members that are one and the same 30 million bytes: 3 GB from 30 kB."""
    write_zip(path, GOOD)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("evil.png", bytes(30_000_000))
        for number in range(99):
            again = copy.copy(archive.getinfo("evil.png"))
            again.filename = f"evil{number}.png"
            archive.filelist.append(again)
    assert path.stat().st_size < 100_000


def with_another_name_inside(path: Path) -> None:
    """The directory names a file that calls itself otherwise where its bytes lie."""
    write_zip(path, {**GOOD, "evil.png": EVIL})
    path.write_bytes(path.read_bytes().replace(b"evil.png", b"../e.png", 1))


def with_archive_inside(path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../canary/evil.png", EVIL)
        archive.writestr("large.png", bytes(10_000_000))
    write_zip(path, {**GOOD, "evil.png": inner.getvalue()})


def cut_short(path: Path) -> None:
    write_zip(path, GOOD)
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        pytest.param(with_members("CANARY/evil.png"), "names must be relative", id="absolute"),
        pytest.param(with_members("../../canary/evil.png"), "must not contain '..'", id="up"),
        pytest.param(
            with_members("train/a/../../../../canary/evil.png"), "must not contain '..'", id="down, up"
        ),
        pytest.param(with_members("..\\..\\canary\\evil.png"), "must not contain '..'", id="backslashes"),
        pytest.param(with_members("\\\\host\\share\\evil.png"), "names must be relative", id="share"),
        pytest.param(with_members("C:\\evil.png"), "names must be relative", id="drive"),
        pytest.param(with_members("C:evil.png"), "names must be relative", id="drive without a slash"),
        pytest.param(with_link, "'link': must be a file, but is a link", id="link"),
        pytest.param(with_members("./train/evil.png", "evil.png"), "'evil.png': must occur once", id="twice"),
        pytest.param(with_field(FLAGS, b"\1\0"), "'evil.png': must not be encrypted", id="encrypted"),
        pytest.param(
            with_field(FLAGS, b"\x20\0"),
            "evil.png: cannot be unpacked: compressed patched data",
            id="patched",
        ),
        pytest.param(with_method(zipfile.ZIP_BZIP2), "stored or deflated, not method 12", id="bzip2"),
        pytest.param(with_method(zipfile.ZIP_LZMA), "stored or deflated, not method 14", id="lzma"),
        pytest.param(with_field(METHOD, b"\x09\0"), "stored or deflated, not method 9", id="deflate64"),
        pytest.param(with_field(METHOD, b"\x63\0"), "stored or deflated, not method 99", id="aes"),
        pytest.param(
            with_field(VERSION, b"\x63\0"), "cannot be read as one: zip file version 9.9", id="version"
        ),
        pytest.param(
            with_field(SIZE, struct.pack("<I", 2**26 + 1)),
            "must unpack to at most 67,108,864 bytes",
            id="size",
        ),
        pytest.param(with_shared_bytes, "at most 1,073,741,824 bytes together", id="shared bytes"),
        pytest.param(with_another_name_inside, "evil.png: cannot be unpacked: File name in", id="two names"),
        pytest.param(
            with_archive_inside, "evil.png: is not an image in a format read here", id="archive inside"
        ),
        pytest.param(lambda path: write_zip(path, {}), "0003.png: has a label but no image", id="no members"),
        pytest.param(
            cut_short, "train.zip: must be a zip archive, but cannot be read as one", id="cut short"
        ),
        pytest.param(lambda path: path.write_bytes(EVIL), "must be a zip archive", id="a picture"),
        pytest.param(lambda path: path.mkdir(), "0003.png: has a label but no image", id="a folder"),
    ],
)
def test_refused_by_name_and_nothing_is_written(
    tmp_path: Path, data: Path, build: Callable[[Path], None], message: str
) -> None:
    write_table(
        data / "train.csv", [(name, str(number % 2)) for number, name in enumerate([*GOOD, "evil.png"])]
    )
    build(data / "train.zip")
    before = tree(tmp_path)
    with pytest.raises(DataError, match=re.escape(message)):
        load(data)
    with contextlib.suppress(DataError):
        assert set(load(data, skip_bad_images=True).ids) <= set(GOOD)
    assert tree(tmp_path) == before


def write_zip64(path: Path, names: Sequence[str]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for place, name in enumerate(names):
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(encoded(coloured(place)))


def write_with_more(path: Path, names: Sequence[str]) -> None:
    """With a program before it, a comment behind it, and entries for folders."""
    write_zip(
        path, {"train/": b"", **{f"train/{name}": encoded(coloured(p)) for p, name in enumerate(names)}}
    )
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"made by hand"
    path.write_bytes(b"MZ a program that unpacks itself" + path.read_bytes())


def write_plain(path: Path, names: Sequence[str]) -> None:
    write_zip(path, {f"train/{name}": encoded(coloured(place)) for place, name in enumerate(names)})


@pytest.mark.parametrize(
    ("names", "write"),
    [
        pytest.param(
            ["CON.png", "aux", "LPT1.jpg", "a.png.", "b.png:stream", "c?.png", "d|e*<f>.png"],
            write_plain,
            id="names that Windows forbids",
        ),
        pytest.param(["a.png", "A.png", "a.PNG"], write_plain, id="names that differ in case"),
        pytest.param(["日本.png", "é.png", "e\u0301.png"], write_plain, id="other scripts"),
        pytest.param(["a.png", "b.png"], write_zip64, id="zip64"),
        pytest.param(["a.png", "b.png"], write_with_more, id="more around it"),
    ],
)
def test_read_rightly_for_nothing_is_unpacked(
    tmp_path: Path, data: Path, names: list[str], write: Callable[[Path, Sequence[str]], None]
) -> None:
    write_table(data / "train.csv", [(name, str(place % 2)) for place, name in enumerate(names)])
    write(data / "train.zip", names)
    before = tree(tmp_path)
    dataset = load(data)
    assert dataset.ids == tuple(names)
    np.testing.assert_array_equal(dataset.inputs, np.stack([coloured(place) for place in range(len(names))]))
    assert tree(tmp_path) == before


def test_an_archive_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "train.zip"
    write_zip(path, {"a.png": b"one", "b.png": b"two"}, zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match="must be a zip archive, but cannot be read as one"):
            ZipImages(path)


@pytest.mark.parametrize("place", ["train", "a"])
def test_an_archive_among_the_pictures_is_named(tmp_path: Path, place: str) -> None:
    for name in (f"{place}/1.png", "b/1.png"):
        if place != "train" or name.startswith("train"):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_bytes(EVIL)
    with_archive_inside(tmp_path / place / "more.zip")
    if place == "train":
        write_table(tmp_path / "train.csv", [("1.png", "1"), ("2.png", "0")])
    message = "more.zip: has an image but no label" if place == "train" else "a/more.zip: is not an image"
    with pytest.raises(DataError, match=message):
        load(tmp_path)
