"""Archives: never unpacked to disk, and refused by name where they cannot be trusted."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscope.data.image_files import LARGEST_FILE, FolderImages, ZipImages
from batchscope.data.problems import UnusableImageError
from batchscope.errors import DataError
from image_samples import write_zip


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("prefix", ["", "train/", "train/train/", "./train/", "train\\"])
def test_members_are_read_wherever_they_are_nested(tmp_path: Path, method: int, prefix: str) -> None:
    path = tmp_path / "train.zip"
    clutter = {"train/": b"", "__MACOSX/train/._a": b"x", "train/.DS_Store": b"x", "Thumbs.db": b"x"}
    write_zip(path, {f"{prefix}b": b"two" * 99, f"{prefix}a": b"one", **clutter}, method)
    images = ZipImages(path, "train")
    assert images.names == ("a", "b")
    assert images.read("b") == b"two" * 99
    images.close()
    assert [child.name for child in tmp_path.iterdir()] == ["train.zip"]


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("/etc/passwd", "names must be relative"),
        ("C:/Windows/a.png", "names must be relative"),
        ("C:\\Windows\\a.png", "names must be relative"),
        ("\\\\host\\share\\a.png", "names must be relative"),
        ("../a.png", "names must not contain '..'"),
        ("train/../../a.png", "names must not contain '..'"),
        ("train\\..\\a.png", "names must not contain '..'"),
    ],
)
def test_paths_that_lead_out_are_refused(tmp_path: Path, name: str, rule: str) -> None:
    path = tmp_path / "train.zip"
    write_zip(path, {"good.png": b"x", name: b"y"})
    with pytest.raises(DataError) as caught:
        ZipImages(path)
    assert f"{name!r}: {rule}" in str(caught.value)
    assert "1 members of the archive cannot be trusted" in str(caught.value)
    assert "good" not in str(caught.value)


def test_links_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.zip"
    link = zipfile.ZipInfo("a.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match=r"'a.png': must be a file, but is a link"):
        ZipImages(path)


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.zip"
    write_zip(path, {"train/a.png": b"x", "train/train/a.png": b"y", "b.png": b"z"})
    with pytest.raises(DataError, match=r"'a.png': must occur once"):
        ZipImages(path, "train")


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.zip"
    write_zip(path, {"a.png": b"x"})
    patch(path, b"PK\x01\x02", 8, struct.pack("<H", 1))
    with pytest.raises(DataError, match=r"'a.png': must not be encrypted"):
        ZipImages(path)


def test_unbounded_compression_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.zip"
    write_zip(path, {"a.png": b"x" * 99}, zipfile.ZIP_BZIP2)
    with pytest.raises(DataError, match=r"'a.png': must be stored or deflated, not method 12"):
        ZipImages(path)


def test_a_bomb_is_refused_by_the_size_it_declares(tmp_path: Path) -> None:
    path = tmp_path / "train.zip"
    write_zip(path, {"a.png": bytes(LARGEST_FILE + 1), "b.png": b"x"}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(
        DataError, match=r"'a.png': must unpack to at most 67,108,864 bytes, but has 67,108,865"
    ):
        ZipImages(path)


def test_a_bomb_that_lies_about_its_size_is_cut_there(tmp_path: Path) -> None:
    path = tmp_path / "train.zip"
    write_zip(path, {"a.png": bytes(10_000_000), "b.png": b"x"}, zipfile.ZIP_DEFLATED)
    patch(path, b"PK\x01\x02", 24, struct.pack("<I", 100))
    images = ZipImages(path)
    with pytest.raises(UnusableImageError, match="cannot be unpacked: Bad CRC-32"):
        images.read("a.png")
    assert images.read("b.png") == b"x"
    images.close()


def test_damaged_content_is_one_bad_image(tmp_path: Path) -> None:
    path = tmp_path / "train.zip"
    write_zip(path, {"a.png": b"content of a", "b.png": b"content of b"})
    path.write_bytes(path.read_bytes().replace(b"content of a", b"content of c"))
    images = ZipImages(path)
    with pytest.raises(UnusableImageError, match="cannot be unpacked: Bad CRC-32"):
        images.read("a.png")
    assert images.read("b.png") == b"content of b"
    images.close()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x05\x06"])
def test_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "train.zip"
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(f"{path}: must be a zip archive")):
        ZipImages(path)


@settings(max_examples=200, deadline=None)
@given(
    blows=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
    cut=st.integers(0, 300),
)
def test_any_damage_is_told_in_our_words(
    tmp_path_factory: pytest.TempPathFactory, blows: list[tuple[int, int]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("zip") / "train.zip"
    write_zip(path, {"train/a": b"a" * 50, "train/b": b"b" * 50}, zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    for place, byte in blows:
        content[place % len(content)] = byte
    path.write_bytes(content[: max(0, len(content) - max(0, cut - 250))])
    try:
        images = ZipImages(path, "train")
    except DataError:
        return
    for name in images.names:
        with contextlib.suppress(UnusableImageError):
            assert len(images.read(name)) <= LARGEST_FILE
    images.close()


def test_a_folder_refuses_large_files_and_pipes(tmp_path: Path) -> None:

    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    images = FolderImages(tmp_path)
    for name, reason in [
        ("pipe.png", "must be a regular file"),
        ("large.png", "at most 67,108,864 bytes, but it has 67,108,865"),
        ("gone.png", "cannot be read: No such file or directory"),
    ]:
        with pytest.raises(UnusableImageError, match=reason):
            images.read(name)


def patch(path: Path, mark: bytes, offset: int, new: bytes) -> None:
    """Overwrites bytes behind the first occurrence of a mark."""
    content = bytearray(path.read_bytes())
    place = content.index(mark) + offset
    content[place : place + len(new)] = new
    path.write_bytes(content)
