"""The layout of a Kaggle competition: ``train.csv`` with ``train.zip`` or a folder ``train``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from batchscope.data.dataset import BadImage
from batchscope.data.image_files import FolderImages, ImageFiles, ZipImages
from batchscope.data.label_table import LabelTable, read_label_table
from batchscope.data.listing import Listing
from batchscope.errors import DataError

__all__ = ["TABLE", "list_kaggle_layout"]

TABLE = "train.csv"
_WRAPPER = "train"


def list_kaggle_layout(table_path: Path) -> Listing:
    """Lists a table's images.

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


def _images_beside(table_path: Path) -> Path:
    stems = dict.fromkeys([table_path.stem, _WRAPPER])
    candidates = [table_path.with_name(name) for stem in stems for name in (f"{stem}.zip", stem)]
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
    stored, wanted = set(files.names), set(table.ids)
    without_image = f"has a label but no image in {images.name}"
    bad = [BadImage(name, without_image) for name in table.ids if name not in stored]
    bad += [BadImage(name, "has an image but no label") for name in files.names if name not in wanted]
    has_image = np.array([name in stored for name in table.ids], dtype=bool)
    ids = tuple(name for name in table.ids if name in stored)
    return Listing(ids, table.labels[has_image], table.classes, files, tuple(bad))
