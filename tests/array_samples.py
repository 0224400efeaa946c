"""Arrays, IDX files and tables for tests of the data layer, and what is said of those that are refused."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from batchscope.data import Dataset, load_dataset
from batchscope.errors import DataError
from batchscope.spec import DataSpec


def load(source: Path | str, image_size: int = 32, **settings: object) -> Dataset:
    return load_dataset(DataSpec(source=str(source), **settings), image_size, "nearest")


def refusal(source: Path | str, **settings: object) -> str:
    """What is said of a source; it names the file."""
    with pytest.raises(DataError) as caught:
        load(source, **settings)
    assert str(source) in str(caught.value)
    return str(caught.value)


def grey(count: int, seed: int = 0, height: int = 8, width: int = 8) -> np.ndarray:
    """Random pixels, uint8 (count, height, width)."""
    return np.random.default_rng(seed).integers(0, 256, (count, height, width), np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    """An array of bytes as the IDX format has it: written down from its description, not from the reader."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder: Path, part: str, images: np.ndarray, labels: np.ndarray, packed: bool = True) -> None:
    """A pair of files of a part, `train` or `t10k`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("images-idx3", images), ("labels-idx1", labels.astype(np.uint8))):
        content = idx_bytes(array)
        path = folder / f"{part}-{name}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(content) if packed else content)
