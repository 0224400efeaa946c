"""The layout of a Kaggle competition: ``train.csv`` with ``train.zip`` or a folder ``train``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from batchscope.data.dataset import BadImage
from batchscope.data.image_files import EXTENSIONS, FolderImages, ImageFiles, ZipImages
from batchscope.data.label_table import LabelTable, read_label_table
from batchscope.data.listing import Listing
from batchscope.errors import DataError

__all__ = ["TABLE", "has_images_beside", "list_kaggle_layout"]

TABLE = "train.csv"
_WRAPPER = "train"


def list_kaggle_layout(table_path: Path) -> Listing:
    """Lists a table's images.

    An id is the name of its image's file. Where no id of the table is one, the ids are the names
    without their extensions, as many competitions write them.

    Args:
        table_path: The CSV file. Its images are beside it, in an archive or a folder of its own
            name or named ``train``; the images may lie in further folders ``train`` inside.

    Raises:
        DataError: The table cannot be used, or there is no such archive or folder, or several.
    """
    images = _images_beside(table_path)
    table = read_label_table(table_path)
    files = FolderImages(images, _WRAPPER) if images.is_dir() else ZipImages(images, _WRAPPER)
    return _match(table, files, images)


def has_images_beside(table_path: Path) -> bool:
    """Whether an archive or a folder lies where a table's images would."""
    return any(path.exists() for path in _places(table_path))


def _places(table_path: Path) -> list[Path]:
    stems = dict.fromkeys([table_path.stem, _WRAPPER])
    return [table_path.with_name(name) for stem in stems for name in (f"{stem}.zip", stem)]


def _images_beside(table_path: Path) -> Path:
    candidates = _places(table_path)
    found = [path for path in candidates if path.exists()]
    if len(found) == 1:
        return found[0]
    wanted = " or ".join(f"{path.name}{'' if path.suffix else '/'}" for path in candidates)
    if not found:
        raise DataError(f"{table_path}: its images must lie beside it in {wanted}, but none is there")
    several = " and ".join(path.name for path in found)
    raise DataError(
        f"{table_path}: its images must lie beside it in one of {wanted}, but there are {several}; "
        "keep the one to use"
    )


def _match(table: LabelTable, files: ImageFiles, images: Path) -> Listing:
    stored = _files_by_id(table.ids, files.names)
    found = [stored.get(name, ()) for name in table.ids]
    bad = [
        BadImage(name, _why_not_one(candidates, images))
        for name, candidates in zip(table.ids, found, strict=True)
        if len(candidates) != 1
    ]
    labelled = {name for candidates in found for name in candidates}
    bad += [BadImage(name, "has an image but no label") for name in files.names if name not in labelled]
    has_image = np.array([len(candidates) == 1 for candidates in found], dtype=bool)
    ids = tuple(candidates[0] for candidates in found if len(candidates) == 1)
    return Listing(ids, table.labels[has_image], table.classes, files, tuple(bad))


def _files_by_id(ids: Sequence[str], names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The files that each id may mean: itself, or where no id is a file, those that add an extension."""
    stored: dict[str, tuple[str, ...]] = {name: (name,) for name in names}
    if any(name in stored for name in ids):
        return stored
    stems: dict[str, tuple[str, ...]] = {}
    for name in names:
        stem, dot, extension = name.rpartition(".")
        if f"{dot}{extension}".casefold() in EXTENSIONS:
            stems[stem] = (*stems.get(stem, ()), name)
    return stems


def _why_not_one(candidates: tuple[str, ...], images: Path) -> str:
    if candidates:
        return f"has a label, but several images in {images.name}: {', '.join(candidates)}"
    return f"has a label but no image in {images.name}"
