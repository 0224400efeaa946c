"""Builds pictures that cameras, scanners, spreadsheets and attackers make."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from image_samples import coloured

FORMS = ["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"]
BLOCKS = np.kron(coloured(3, 2, 3), np.ones((8, 8, 1), np.uint8))
"""16 x 24 px; JPEG keeps blocks of 8 x 8 px to within 3 of 255."""
INDEXED = coloured(4)[..., 0] % 4
COLOURS = coloured(9, 1, 4)[0]


def saved(image: Image.Image, form: str, **settings: object) -> bytes:
    finest = {"quality": 100, "subsampling": 0}
    exact = {"JPEG": finest, "MPO": finest, "WEBP": {"lossless": True}}.get(form, {})
    buffer = io.BytesIO()
    image.save(buffer, form, **exact, **settings)
    return buffer.getvalue()


def picture(form: str, array: np.ndarray = BLOCKS, **settings: object) -> bytes:
    return saved(Image.fromarray(array), form, **settings)


def from_phone(array: np.ndarray, **settings: object) -> bytes:
    """A JPEG with a second picture behind it, as phones write previews."""
    more = {"save_all": True, "append_images": [Image.fromarray(coloured(8, 4, 4))]}
    return saved(Image.fromarray(array), "MPO", **more, **settings)


def with_palette(form: str, **settings: object) -> bytes:
    image = Image.fromarray(INDEXED)
    image.putpalette(COLOURS.tobytes())
    return saved(image, form, **settings)


def png(depth: int, kind: int, lines: bytes, size: tuple[int, int], interlace: int = 0) -> bytes:
    """A PNG from its parts (W3C PNG, 11.2), for what Pillow cannot write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", *size, depth, kind, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    )


def interlaced(grey: np.ndarray) -> bytes:
    """A grey PNG of 4 x 4 px in Adam7's order (passes 2 and 3 are empty at that size)."""
    passes = [grey[::8, ::8], grey[::4, 2::4], grey[2::4, ::2], grey[::2, 1::2], grey[1::2]]
    lines = b"".join(b"\0" + line.tobytes() for part in passes for line in part)
    return png(8, 0, lines, (4, 4), interlace=1)


def tiff(array: np.ndarray, claim: tuple[int, int] | None = None) -> bytes:
    """A colour TIFF of bytes or 16-bit numbers (TIFF 6.0, section 6), which may claim another size."""
    height, width = claim or array.shape[:2]
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, 122),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 128),
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, array.nbytes),
    ]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    bits = struct.pack("<HHH", *[array.dtype.itemsize * 8] * 3)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)
    return head + bits + array.tobytes()


def bmp_of_16_bits() -> bytes:
    """Four colours of 5, 6 and 5 bits, which is 8-bit colour once it is stretched."""
    lines = np.tile(np.array([0xF800, 0x07E0, 0x001F, 0xFFFF], "<u2"), 4).tobytes()
    header = struct.pack("<IiiHHIIiiII", 40, 4, 4, 1, 16, 3, len(lines), 0, 0, 0, 0)
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    return b"BM" + struct.pack("<IHHI", 66 + len(lines), 0, 0, 66) + header + masks + lines


def scans(count: int) -> bytes:
    """A progressive JPEG whose last scan, which refines what has no more detail, comes again and again."""
    content = picture("JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * (count - content.count(b"\xff\xda")) + content[-2:]


def many_frames(form: str, count: int) -> bytes:
    if form == "GIF":
        content = picture("GIF")
        return content[:-1] + content[content.index(b",\0\0\0\0", 13) : -1] * (count - 1) + b";"
    content = bytearray(tiff(BLOCKS))
    directory, place = content[8:118], 118
    for _ in range(count - 1):
        content[place : place + 4] = struct.pack("<I", len(content))
        place = len(content) + len(directory)
        content += directory + bytes(4)
    return bytes(content)


def claiming(form: str, width: int, height: int) -> bytes:
    """A small file of some pixels whose header claims other sides."""
    content = bytearray(picture(form, coloured(1)))
    sides = width, height
    if form == "BMP":
        content[18:26] = struct.pack("<ii", *sides)
    elif form == "GIF":
        content[6:10] = struct.pack("<HH", *sides)
        place = content.index(b",\0\0\0\0", 13)  # the image's own extent
        content[place + 5 : place + 9] = struct.pack("<HH", *sides)
    elif form == "JPEG":
        place = content.index(b"\xff\xc0")
        content[place + 5 : place + 9] = struct.pack(">HH", height, width)
    elif form == "PNG":
        content[16:24] = struct.pack(">II", *sides)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    elif form == "TIFF":
        return tiff(coloured(1), (height, width))
    elif max(sides) <= 2**14:
        content[21:25] = struct.pack("<I", (width - 1) | (height - 1) << 14)
    else:
        canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
        content[12:12] = b"VP8X" + struct.pack("<II", 10, 0) + canvas
        content[4:8] = struct.pack("<I", len(content) - 8)
    return bytes(content)
