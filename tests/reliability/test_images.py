"""Odd and broken pictures: read with the right pixels, or refused by name before memory is used."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from odd_pictures import (
    BLOCKS,
    COLOURS,
    FORMS,
    INDEXED,
    bmp_of_16_bits,
    claiming,
    from_phone,
    interlaced,
    many_frames,
    picture,
    png,
    scans,
    tiff,
    with_palette,
)
from PIL import Image

from batchscope.data import Dataset, generate_cacti, load_dataset
from batchscope.data.decode import Decoded, decode_all, decode_image
from batchscope.data.problems import UnusableImageError
from batchscope.errors import DataError
from batchscope.spec import DataSpec
from data_faults import calls_counted
from image_samples import coloured, encoded, write_table, write_zip

STORED = {
    1: BLOCKS,
    2: BLOCKS[:, ::-1],
    3: BLOCKS[::-1, ::-1],
    4: BLOCKS[::-1],
    5: BLOCKS.swapaxes(0, 1),
    6: np.rot90(BLOCKS),
    7: np.rot90(BLOCKS, 2).swapaxes(0, 1),
    8: np.rot90(BLOCKS, -1),
}
"""How a picture is stored under each EXIF orientation (EXIF 2.32, tag 0x0112)."""


def load(source: Path, **settings: object) -> Dataset:
    return load_dataset(DataSpec(source=str(source), **settings), 32, "nearest")


def decoded(contents: dict[str, bytes]) -> Decoded:
    return decode_all(list(contents), contents.__getitem__, 32, "nearest")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "MPO", "PNG", "TIFF", "WEBP"])
def test_each_orientation_is_the_same_upright_picture(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    array = np.ascontiguousarray(STORED[orientation])
    content = from_phone(array, exif=exif) if form == "MPO" else picture(form, array, exif=exif)
    image = np.asarray(decode_image(content)).astype(int)
    assert image.shape == BLOCKS.shape
    assert np.abs(image - BLOCKS).max() <= (3 if form in ("JPEG", "MPO") else 0)


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_orientation_that_does_not_exist_is_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(np.asarray(decode_image(picture("PNG", exif=exif))), BLOCKS)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(with_palette("PNG", transparency=9), COLOURS[INDEXED], id="png, unused colour"),
        pytest.param(with_palette("GIF", transparency=9), COLOURS[INDEXED], id="gif, unused colour"),
        pytest.param(picture("PNG", transparency=(1, 2, 3)), BLOCKS, id="colour key of no pixel"),
        pytest.param(
            png(4, 0, b"\0\x01\x23\0\x45\x67\0\x89\xab\0\xcd\xef", (4, 4)),
            np.repeat(np.arange(0, 256, 17).reshape(4, 4, 1), 3, axis=2),
            id="4-bit grey",
        ),
        pytest.param(
            png(2, 0, b"\0\x1b" * 4, (4, 4)),
            np.tile(np.array([0, 85, 170, 255])[:, None], (4, 1, 3)),
            id="2-bit grey",
        ),
        pytest.param(
            interlaced(np.arange(16, dtype=np.uint8).reshape(4, 4)),
            np.repeat(np.arange(16).reshape(4, 4, 1), 3, axis=2),
            id="interlaced",
        ),
        pytest.param(
            bmp_of_16_bits(),
            np.tile(np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]), (4, 1, 1)),
            id="16 bits for three colours",
        ),
        pytest.param(tiff(BLOCKS), BLOCKS, id="tiff"),
        pytest.param(
            picture("JPEG", progressive=True),
            np.asarray(Image.open(io.BytesIO(picture("JPEG")))),
            id="progressive jpeg",
        ),
    ],
)
def test_pixels(content: bytes, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(np.asarray(decode_image(content)), expected)


def test_a_hundred_scans_are_read() -> None:
    assert np.abs(np.asarray(decode_image(scans(100))).astype(int) - BLOCKS).max() <= 3


@pytest.mark.parametrize("index", [b"MPF\0II", b"MPF\0??"])
def test_the_photograph_is_read_though_previews_follow(index: bytes) -> None:
    content = from_phone(BLOCKS)
    assert content.count(b"MPF\0II") == 1
    result = decoded({"it": content.replace(b"MPF\0II", index)})
    assert np.abs(result.images[0].astype(int) - BLOCKS).max() <= 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(with_palette("GIF", transparency=0), "its alpha goes down to 0 of 255", id="gif"),
        pytest.param(
            picture("PNG", transparency=tuple(BLOCKS[0, 0].tolist())),
            "its alpha goes down to 0",
            id="colour key",
        ),
        pytest.param(tiff(BLOCKS.astype("<u2") * 257), "8 bits, but it has 16; convert it", id="16-bit tiff"),
        pytest.param(
            png(16, 4, (b"\0" + b"\x12\x34\xff\xff" * 8) * 8, (8, 8)),
            "8 bits, but it has 16",
            id="16-bit alpha",
        ),
        pytest.param(picture("PNG", BLOCKS[:1]), "at least 4 px, but it has 24 x 1", id="one line"),
        pytest.param(scans(101), "a JPEG must have at most 100 scans, but it has 101", id="many scans"),
    ],
)
def test_refused_by_name(content: bytes, reason: str) -> None:
    result = decoded({"it": content})
    assert len(result.images) == 0
    assert reason in result.bad[0].reason


@pytest.mark.parametrize("form", ["GIF", "TIFF"])
def test_frames_are_not_walked_through(form: str) -> None:
    """Calls of Python functions are counted, for time depends on the machine."""

    def calls(frames: int) -> int:
        content = many_frames(form, frames)
        with calls_counted() as counted, pytest.raises(UnusableImageError, match="several frames"):
            decode_image(content)
        return counted()

    np.testing.assert_array_equal(np.asarray(decode_image(many_frames(form, 1))), BLOCKS)
    calls(3)  # what happens once in a process
    assert calls(2) == calls(2_000)


@pytest.mark.parametrize("form", FORMS)
def test_wherever_a_file_is_cut_its_pixels_are_right_or_it_is_refused(form: str) -> None:
    content = picture(form, coloured(1, 4, 5))
    whole = np.asarray(decode_image(content))
    result = decoded({str(size): content[:size] for size in range(len(content))})
    for image in result.images:
        np.testing.assert_array_equal(image, whole)
    # What may miss without loss is the mark of the end: 12 bytes of a PNG with the checksum before it.
    assert len(result.images) <= 20
    assert {bad.reason.split(" ")[0] for bad in result.bad} <= {"an", "is", "must"}


def test_a_changed_byte_of_a_png_never_changes_a_pixel_in_silence() -> None:
    content = picture("PNG", coloured(1, 4, 5))
    changed = {str(place): bytearray(content) for place in range(len(content))}
    for place in range(len(content)):
        changed[str(place)][place] ^= 4
    result = decoded({name: bytes(file) for name, file in changed.items()})
    assert len(result.bad) > len(content) / 2
    for image in result.images:
        np.testing.assert_array_equal(image, coloured(1, 4, 5))


BOMBS = """
import json, resource, sys
from pathlib import Path
from batchscope.data.decode import decode_all

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

small, large = ({path.name: path.read_bytes() for path in Path(part).iterdir()} for part in sys.argv[1:])
assert len(decode_all(list(small), small.__getitem__, 32, "nearest").images) == len(small)
before = peak()
bad = decode_all(list(large), large.__getitem__, 32, "nearest").bad
print(json.dumps([{image.id: image.reason for image in bad}, peak() - before]))
"""


def test_bombs_are_refused_before_memory_is_used(tmp_path: Path) -> None:
    """50,000 x 50,000 px would be 7.5 GB; 7,100 x 7,100 px, just above what is allowed, 150 MB."""
    small, large = tmp_path / "small", tmp_path / "large"
    small.mkdir()
    large.mkdir()
    for form in FORMS:
        (small / form).write_bytes(picture(form))
        for side in (7_100, 50_000):
            (large / f"{form} {side}").write_bytes(claiming(form, side, side))
    assert max(path.stat().st_size for path in large.iterdir()) < 2_000
    command = [sys.executable, "-c", BOMBS, str(small), str(large)]
    reasons, growth = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert len(reasons) == 12
    for reason in reasons.values():
        assert reason.startswith("must have at most 50,000,000 pixels, but it")
    assert growth < 20_000  # kB; one picture of 7,100 x 7,100 px takes 197,000


def test_the_content_tells_the_format_and_not_the_name(tmp_path: Path) -> None:
    endings = [".jpg", ".JPG", ".png", ".Tiff", ".txt", ""]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.png").write_bytes(picture("PNG"))
    (tmp_path / "a").mkdir()
    for form in FORMS:
        for ending in endings:
            (tmp_path / "a" / f"{form}{ending}").write_bytes(picture(form))
    dataset = load(tmp_path)
    assert len(dataset) == len(FORMS) * len(endings) + 1
    for name, image in zip(dataset.ids[:-1], dataset.inputs[:-1], strict=True):
        form = name.removeprefix("a/").split(".")[0]
        np.testing.assert_array_equal(image, np.asarray(decode_image(picture(form))))


@pytest.mark.parametrize("layout", ["classes", "train", "zip"])
def test_what_systems_leave_about_changes_nothing(tmp_path: Path, layout: str) -> None:
    pictures = {f"{place}.png": encoded(coloured(place)) for place in range(4)}
    litter = [
        "._0.png",
        ".DS_Store",
        "Thumbs.db",
        "THUMBS.DB",
        "desktop.ini",
        "__MACOSX/._1.png",
        ".git/2.png",
    ]
    clean, littered = tmp_path / "clean", tmp_path / "littered"
    for root, names in ((clean, []), (littered, litter)):
        root.mkdir()
        contents = pictures | dict.fromkeys(names, b"no picture")
        if layout == "zip":
            write_zip(root / "train.zip", {f"train/{name}": content for name, content in contents.items()})
        else:
            parts = ["a", "b"] if layout == "classes" else ["train"]
            for name in contents:
                for path in [root / part / name for part in parts]:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(contents[name])
        for name in names:
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_bytes(b"no picture")
        if layout != "classes":
            write_table(root / "train.csv", [(name, str(place % 2)) for place, name in enumerate(pictures)])
    assert load(littered).fingerprint() == load(clean).fingerprint()


def test_the_same_picture_twice_is_two_examples(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png", "c.png/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture("PNG"))
    dataset = load(tmp_path)
    assert dataset.ids == ("a/1.png", "a/2.png", "b/1.png", "c.png/1.png")
    assert dataset.labels.tolist() == [0, 0, 1, 2]


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(picture("PNG"))
    Path(os.fsdecode(bytes(tmp_path / "b") + b"/caf\xe9.png")).write_bytes(picture("PNG"))
    with pytest.raises(
        DataError, match=r"b: names must be UTF-8, but 1 are not; rename them: caf\\udce9.png"
    ):
        load(tmp_path)
    (tmp_path / "b").rename(os.fsdecode(bytes(tmp_path) + b"/\xe9"))
    with pytest.raises(DataError, match=r"names must be UTF-8, but 1 are not; rename them: \\udce9"):
        load(tmp_path)


def test_names_cannot_command_the_terminal(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/\x1b[2J\nall is well.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert len(str(caught.value).splitlines()) == 3
    assert r"b/\x1b[2J\nall is well.png: an image file must not be empty" in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_pictures_that_do_not_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(picture("PNG"))

    def stack(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "stack", stack)
    with pytest.raises(DataError, match=r"must fit into memory, but do not; use fewer of them \(--limit\)"):
        load(tmp_path)


def test_generated_pictures_that_do_not_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "empty", empty)
    with pytest.raises(DataError, match="40 images take 122,880 bytes of memory, which are not there"):
        generate_cacti(40)


@pytest.mark.parametrize("settings", [{}, {"limit": 20}])
def test_more_generated_pictures_than_anybody_has_room_for(settings: dict[str, int]) -> None:
    spec = DataSpec(source="synthetic-cactus", images=10**30, **settings)
    with pytest.raises(DataError, match=r"count <= 10,000,000"):
        load_dataset(spec, 32, "nearest")
