"""Zip archives of images: a dataset, or which member cannot be trusted or read, and nothing outside."""

from __future__ import annotations

import io
import re
import stat
import struct
import warnings
import zipfile
from pathlib import Path

import pytest
from fuzz_attempts import FUZZED, Attempts
from fuzz_mutations import NASTY_TEXTS, damaged_bytes
from fuzz_pictures import picture
from hypothesis import given
from hypothesis import strategies as st

from batchscope.data import load_dataset
from batchscope.spec import DataSpec

IDS = ("a.png", "b.png", "c.png")
PICTURE = picture(0)
CONTENTS = (
    *(PICTURE, PICTURE, PICTURE, picture(1, "JPEG"), picture(2, "GIF")),
    *(b"", b"x", PICTURE[:40], PICTURE + b"more", bytes(3_000)),
)
PREFIXES = (
    "",
    "",
    "train/",
    "train/train/",
    "./",
    "other/",
    "../",
    "/",
    "C:/",
    "train\\",
    "\\\\host\\",
    "//",
    "a/../",
)
ODD_NAMES = (
    "train/",
    "__MACOSX/._a.png",
    ".DS_Store",
    "Thumbs.db",
    "a.png/",
    "a.png/b.png",
    "A.PNG",
    "a.png ",
    "a.png\0.exe",
    "/etc/cron.d/x",
    "/tmp/escaped",
    "..\\..\\escaped",
    "../" * 30 + "tmp/escaped",
    "CON",
    "aux.png",
    "a:b.png",
    *(name for name in NASTY_TEXTS if len(name) < 100),
    "n" * 5_000,
)
ATTRIBUTES = (
    0,
    0,
    0,
    stat.S_IFREG | 0o644,
    stat.S_IFLNK | 0o777,
    stat.S_IFDIR | 0o755,
    stat.S_IFIFO,
    stat.S_IFCHR,
    0o4777,
)
METHODS = (
    zipfile.ZIP_STORED,
    zipfile.ZIP_DEFLATED,
    zipfile.ZIP_DEFLATED,
    zipfile.ZIP_BZIP2,
    zipfile.ZIP_LZMA,
)
# Headers by their marks, with the places and widths of flags, method, checksum, sizes, lengths and the like.
LOCAL = (b"PK\3\4", ((4, 2), (6, 2), (8, 2), (10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)))
CENTRAL = (
    b"PK\1\2",
    (
        (6, 2),
        (8, 2),
        (10, 2),
        (16, 4),
        (20, 4),
        (24, 4),
        (28, 2),
        (30, 2),
        (32, 2),
        (34, 2),
        (38, 4),
        (42, 4),
    ),
)
END = (b"PK\5\6", ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)))
NUMBERS = (0, 1, 2, 8, 12, 99, 255, 1000, 2**16 - 1, 2**26, 2**26 + 1, 2**31, 2**32 - 1)


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """The images asked for, and perhaps members that nobody should trust."""
    names = [draw(st.sampled_from(PREFIXES[:3])) + name for name in IDS]
    for _ in range(draw(st.integers(0, 2))):
        odd = st.one_of(
            st.sampled_from(ODD_NAMES),
            st.tuples(st.sampled_from(PREFIXES), st.sampled_from(IDS)).map("".join),
        )
        names.insert(draw(st.integers(0, len(names))), draw(odd))
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore", UserWarning)  # names that occur twice
        for name in names:
            member = zipfile.ZipInfo(name or "x")
            member.filename = name  # as it is: the constructor cuts at a NUL and turns separators
            member.create_system = draw(st.sampled_from((3, 3, 0)))
            member.external_attr = draw(st.sampled_from(ATTRIBUTES)) << 16
            member.compress_type = draw(st.sampled_from(METHODS[: draw(st.sampled_from((3, 3, 5)))]))
            archive.writestr(
                member, draw(st.sampled_from(CONTENTS[: draw(st.sampled_from((5, 5, len(CONTENTS))))]))
            )
        archive.comment = draw(st.sampled_from((b"", b"", b"PK\5\6" + bytes(18), b"c" * 65_535)))
    return buffer.getvalue()


@st.composite
def rewritten(draw: st.DrawFn, content: bytes) -> bytes:
    """Fields of the headers that say something else than the truth."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        mark, fields = draw(st.sampled_from((LOCAL, CENTRAL, CENTRAL, END)))
        starts = [found.start() for found in re.finditer(re.escape(mark), content)]
        offset, width = draw(st.sampled_from(fields))
        at = draw(st.sampled_from(starts)) + offset
        value = draw(st.sampled_from(NUMBERS)) % 2 ** (8 * width)
        changed[at : at + width] = struct.pack("<H" if width == 2 else "<I", value)
    return bytes(changed)


ARCHIVES = st.one_of(
    archives(),
    archives(),
    archives().flatmap(rewritten),
    archives().flatmap(rewritten),
    archives().flatmap(damaged_bytes),
    st.binary(max_size=100),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archives") / "below" / "data"
    folder.mkdir(parents=True)
    (folder / "train.csv").write_text(
        "id,label\n" + "".join(f"{name},{at % 2}\n" for at, name in enumerate(IDS))
    )
    return folder


@FUZZED
@given(content=ARCHIVES, skip=st.booleans())
def test_zip_archives(attempt: Attempts, folder: Path, content: bytes, skip: bool) -> None:
    (folder / "train.zip").write_bytes(content)
    spec = DataSpec(source=str(folder), skip_bad_images=skip)
    data = attempt(lambda: load_dataset(spec, 32, "bilinear"), folder, str(folder))
    assert sorted(path.name for path in folder.iterdir()) == ["train.csv", "train.zip"]
    if data is None:
        return
    assert len(data) >= 2
    assert set(data.ids) <= set(IDS)
    assert set(data.labels.tolist()) == {0, 1}
    assert skip or not data.skipped
