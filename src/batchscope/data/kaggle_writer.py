"""Writes a dataset in the layout of a Kaggle competition: ``train.csv`` and ``train.zip``."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from batchscope.data.dataset import Dataset
from batchscope.data.kaggle_layout import TABLE
from batchscope.data.new_folder import new_folder
from batchscope.data.synthetic import generate_cacti

__all__ = ["write_cacti", "write_kaggle_layout"]

_LABEL_COLUMN = "has_cactus"

_QUALITY = 95
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)


def write_kaggle_layout(dataset: Dataset, folder: Path, label_column: str = _LABEL_COLUMN) -> None:
    """Writes a dataset as ``train.csv`` and ``train.zip``, the same bytes each time.

    Images are written as JPEG of quality 95, as the competition's are, and so change a little;
    their names are 32 hexadecimal digits drawn from the id, and the table is sorted by them.

    Args:
        dataset: What to write. Labels are written as 0 and 1 or as the class's word.
        folder: New or empty.
        label_column: Name of the table's second column; the first is ``id``.

    Raises:
        DataError: The folder is not empty or cannot be written; then nothing of it is left.
    """
    with new_folder(folder) as place:
        _write(dataset, place, label_column)


def write_cacti(folder: Path, count: int, seed: int = 2019) -> None:
    """Draws desert views and writes them as `write_kaggle_layout` does.

    The folder is refused before anything is drawn.

    Args:
        folder: New or empty.
        count: As for `generate_cacti`.
        seed: As for `generate_cacti`.

    Raises:
        DataError: The folder is not empty or cannot be written, or count or seed is out of range.
    """
    with new_folder(folder) as place:
        _write(generate_cacti(count, seed), place, _LABEL_COLUMN)


def _write(dataset: Dataset, folder: Path, label_column: str) -> None:
    named = sorted((_name(name), place) for place, name in enumerate(dataset.ids))
    with zipfile.ZipFile(folder / "train.zip", "x") as archive:
        for name, place in named:
            archive.writestr(_member(name), _jpeg(dataset.inputs[place]))
    with (folder / TABLE).open("x", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["id", label_column])
        rows.writerows((name, dataset.classes[dataset.labels[place]]) for name, place in named)


def _name(identity: str) -> str:
    return f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.jpg"


def _member(name: str) -> zipfile.ZipInfo:
    """A member with a fixed time and fixed rights; stored, for JPEG does not shrink further."""
    member = zipfile.ZipInfo(f"train/{name}", _TIMESTAMP)
    member.create_system = 3
    member.external_attr = 0o644 << 16
    return member


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
