"""Image files and folders for the tests of the data layer."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def encoded(array: np.ndarray, form: str = "PNG", mode: str | None = None, **settings: object) -> bytes:
    """The bytes of an image file with these pixels."""
    image = Image.fromarray(array)
    buffer = io.BytesIO()
    (image if mode is None else image.convert(mode)).save(buffer, form, **settings)
    return buffer.getvalue()


def coloured(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    """Random pixels, uint8 (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of one pixel whose header claims another size."""
    content = bytearray(encoded(coloured(0, 1, 1)))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def write_table(path: Path, rows: Sequence[tuple[str, str]], header: str = "id,has_cactus") -> None:
    path.write_text("\n".join([header, *(f"{name},{label}" for name, label in rows), ""]))


def write_kaggle(
    folder: Path, images: Mapping[str, bytes], rows: Sequence[tuple[str, str]] | None = None
) -> Path:
    """`train.csv` (labels 0, 1, 1, 1, 0, ... unless given) and `train.zip`."""
    folder.mkdir(parents=True, exist_ok=True)
    if rows is None:
        rows = [(name, str(int(place % 4 != 0))) for place, name in enumerate(images)]
    write_table(folder / "train.csv", rows)
    write_zip(folder / "train.zip", {f"train/{name}": content for name, content in images.items()})
    return folder


def write_zip(path: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def some_images(count: int, height: int = 8, width: int = 8) -> dict[str, bytes]:
    """PNG files by name, in the order of the names."""
    return {f"{place:04d}.png": encoded(coloured(place, height, width)) for place in range(count)}
