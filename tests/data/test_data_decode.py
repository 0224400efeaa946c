"""Each image file is read rightly or refused with its rule and value."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from batchscope.data.decode import decode_all, decode_image
from image_samples import coloured, encoded, png_that_claims

RGB = coloured(1, 8, 12)
GREY = RGB[..., 0]
OPAQUE = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
GLASS = np.dstack([RGB, np.full(RGB.shape[:2], 254, np.uint8)])


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


INDEXED = GREY % 4
COLOURS = coloured(9, 1, 4)[0]


def palette(form: str = "PNG", **settings: object) -> bytes:
    image = Image.fromarray(INDEXED)
    image.putpalette(COLOURS.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()


def animation(form: str) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.fromarray(coloured(seed)) for seed in range(3)]
    frames[0].save(buffer, form, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def png_of_16_bit_colour() -> bytes:
    """Pillow reads such a file as 8-bit RGB without a word, and cannot write one."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    lines = zlib.compress((b"\0" + b"\x12\x34" * 24) * 8)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(RGB, exif=exif)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(encoded(RGB), RGB, id="png"),
        pytest.param(encoded(RGB, "BMP"), RGB, id="bmp"),
        pytest.param(encoded(RGB, "TIFF"), RGB, id="tiff"),
        pytest.param(encoded(RGB, "WEBP", lossless=True), RGB, id="webp"),
        pytest.param(encoded(GREY), rgb(GREY), id="grey"),
        pytest.param(encoded(GREY > 99), rgb((GREY > 99) * np.uint8(255)), id="one bit"),
        pytest.param(encoded(OPAQUE), RGB, id="opaque alpha"),
        pytest.param(encoded(GREY, mode="LA"), rgb(GREY), id="grey with opaque alpha"),
        pytest.param(palette(), COLOURS[INDEXED], id="palette"),
        pytest.param(palette("GIF"), COLOURS[INDEXED], id="gif of one frame"),
        pytest.param(oriented(1), RGB, id="upright"),
        pytest.param(oriented(2), RGB[:, ::-1], id="mirrored"),
        pytest.param(oriented(3), RGB[::-1, ::-1], id="upside down"),
        pytest.param(oriented(6), np.rot90(RGB, -1), id="turned right"),
        pytest.param(oriented(8), np.rot90(RGB), id="turned left"),
    ],
)
def test_read_rightly(content: bytes, expected: np.ndarray) -> None:
    image = decode_image(content)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), expected)


def test_jpeg_is_read_as_pillow_reads_it() -> None:
    content = encoded(RGB, "JPEG", quality=90)
    np.testing.assert_array_equal(
        np.asarray(decode_image(content)), np.asarray(Image.open(io.BytesIO(content)))
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "must not be empty, but it has 0 bytes", id="empty"),
        pytest.param(b"id,label\n1,2\n", "is not an image in a format read here (BMP, GIF", id="text"),
        pytest.param(encoded(RGB)[:-40], "is damaged or cut short", id="truncated png"),
        pytest.param(
            encoded(coloured(2, 64, 64), "JPEG")[:-900], "is damaged or cut short", id="truncated jpeg"
        ),
        pytest.param(encoded(RGB)[:20], "is damaged or cut short", id="only a header"),
        pytest.param(encoded(RGB, "JPEG", "CMYK"), "but its mode is CMYK", id="cmyk"),
        pytest.param(encoded(RGB.astype(np.uint16)[..., 0] * 257), "but its mode is I;16", id="16-bit grey"),
        pytest.param(png_of_16_bit_colour(), "must have 8 bits, but it has 16", id="16-bit colour"),
        pytest.param(encoded(GREY.astype(np.float32), "TIFF"), "but its mode is F", id="float"),
        pytest.param(encoded(GREY.astype(np.int32), "TIFF"), "but its mode is I", id="32-bit"),
        pytest.param(encoded(GLASS), "must be opaque, but its alpha goes down to 254 of 255", id="alpha"),
        pytest.param(palette(transparency=0), "alpha goes down to 0 of 255", id="transparent palette"),
        pytest.param(animation("GIF"), "single picture, but it has several frames", id="animated gif"),
        pytest.param(animation("WEBP"), "single picture, but it has several frames", id="animated webp"),
        pytest.param(animation("TIFF"), "single picture, but it has several frames", id="several pages"),
        pytest.param(animation("PNG"), "single picture, but it has several frames", id="animated png"),
        pytest.param(encoded(RGB[:1, :1]), "at least 4 px, but it has 1 x 1", id="one pixel"),
        pytest.param(png_that_claims(7_100, 7_100), "50,000,000 pixels, but it has 7100 x 7100", id="large"),
        pytest.param(png_that_claims(12_000, 12_000), "50,000,000 pixels, but it", id="larger"),
        pytest.param(png_that_claims(2**30, 2**30), "50,000,000 pixels, but it", id="bomb"),
        pytest.param(encoded(RGB, "PPM"), "is not an image in a format read here", id="another format"),
    ],
)
def test_refused_by_name(content: bytes, reason: str) -> None:
    decoded = decode_all(["it"], {"it": content}.__getitem__, 32, "nearest")
    assert decoded.images.shape == (0, 32, 32, 3)
    assert [bad.id for bad in decoded.bad] == ["it"]
    assert reason in decoded.bad[0].reason


def test_pillow_is_left_as_it_was() -> None:
    filters = warnings.filters[:]
    decode_all(["it"], {"it": png_that_claims(12_000, 12_000)}.__getitem__, 32, "nearest")
    assert warnings.filters == filters
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_one_size_is_kept_and_order_too() -> None:
    pictures = [coloured(seed, 20, 30) for seed in range(150)]
    contents = {str(place): encoded(picture) for place, picture in enumerate(pictures)}
    contents["70"] = b"no image"
    decoded = decode_all(list(contents), contents.__getitem__, 96, "nearest")
    assert decoded.kept.tolist() == [*range(70), *range(71, 150)]
    np.testing.assert_array_equal(decoded.images, np.stack([*pictures[:70], *pictures[71:]]))


@pytest.mark.parametrize(
    "shapes", [[(20, 30), (30, 20)], [(200, 40), (200, 40)], [(96, 96), (200, 300), (5, 5)]]
)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_other_sizes_are_brought_to_the_one_wanted(shapes: list[tuple[int, int]], interpolation: str) -> None:
    pictures = [coloured(7, *shape) for shape in shapes]
    contents = {str(place): encoded(picture) for place, picture in enumerate(pictures)}
    decoded = decode_all(list(contents), contents.__getitem__, 96, interpolation)
    how = Image.Resampling[interpolation.upper()]
    expected = [np.asarray(Image.fromarray(picture).resize((96, 96), how)) for picture in pictures]
    np.testing.assert_array_equal(decoded.images, np.stack(expected))


def test_large_files_decode_in_several_threads_to_the_same() -> None:
    pictures = [coloured(seed, 90, 90) for seed in range(130)]
    contents = {str(place): encoded(picture) for place, picture in enumerate(pictures)}
    assert len(contents["0"]) > 10_000
    decoded = decode_all(list(contents), contents.__getitem__, 96, "nearest")
    np.testing.assert_array_equal(decoded.images, np.stack(pictures))


@settings(max_examples=150, deadline=None)
@given(
    form=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]),
    cut=st.integers(0, 400),
    blows=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
)
def test_damaged_files_never_pass_another_error(form: str, cut: int, blows: list[tuple[int, int]]) -> None:
    content = bytearray(encoded(RGB, form))
    for place, byte in blows:
        content[place % len(content)] = byte
    content = bytes(content[: len(content) - cut] if cut < len(content) else content)
    decoded = decode_all(["it"], lambda _: content, 32, "nearest")
    assert len(decoded.images) + len(decoded.bad) == 1
