"""A folder per class: each subfolder's name is the class of the images in it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from batchscope.data.dataset import BadImage
from batchscope.data.image_files import EXTENSIONS, FolderImages, check_names, is_clutter
from batchscope.data.label_table import classes_of
from batchscope.data.listing import Listing
from batchscope.data.problems import first_ten
from batchscope.errors import DataError

__all__ = ["class_folders_in", "list_class_folders", "loose_images", "part_folders_in"]

_PARTS = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""Folder names that stand for parts of a dataset, never for classes, and the parts."""


def class_folders_in(folder: Path) -> list[Path]:
    """The subfolders that could be classes, in the order of their names."""
    subfolders = [path for path in folder.iterdir() if path.is_dir() and not is_clutter(path.name)]
    return sorted(path for path in subfolders if path.name.casefold() not in _PARTS)


def part_folders_in(folder: Path) -> dict[str, Path]:
    """The subfolders that are ``training``, ``validation`` and ``test`` part by their names.

    Raises:
        DataError: There are two for one part.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        part = _PARTS.get(path.name.casefold())
        if part is None or not path.is_dir():
            continue
        if part in found:
            raise DataError(
                f"{folder}: must hold one {part} part, but holds {found[part].name} and {path.name}; "
                "keep the one to use"
            )
        found[part] = path
    return found


def list_class_folders(folder: Path) -> Listing:
    """Lists the images of a folder per class.

    Everything in a class's folder counts as an image; beside the class folders, only files with an
    image's extension do, and those have no class.

    Args:
        folder: Holds the class folders.

    Raises:
        DataError: There are fewer than two classes, a class without a file, a folder inside a
            class's folder, or a folder such as ``train`` among the classes.
    """
    subfolders = class_folders_in(folder)
    parts = [path.name for path in folder.iterdir() if path.is_dir() and path.name.casefold() in _PARTS]
    if parts:
        raise DataError(
            f"{folder}: folders must be classes, but {first_ten(sorted(parts))} names a part of a dataset; "
            "name the folder that holds the classes, or have train/ and val/ or test/ and nothing beside"
        )
    check_names(folder, [path.name for path in subfolders])
    classes = classes_of(folder, [path.name for path in subfolders])
    files = {path.name: FolderImages(path) for path in subfolders}
    _check_depth(folder, files)
    ids = [f"{name}/{image}" for name in classes for image in files[name].names]
    labels = np.repeat(np.arange(len(classes)), [len(files[name].names) for name in classes])
    return Listing(tuple(ids), labels.astype(np.int64), classes, _ClassImages(files), loose_images(folder))


def loose_images(folder: Path) -> tuple[BadImage, ...]:
    """Images that lie beside folders of images."""
    loose = [path.name for path in folder.iterdir() if _is_loose(path)]
    check_names(folder, loose)
    return tuple(
        BadImage(name, "lies beside the class folders and so has no class") for name in sorted(loose)
    )


class _ClassImages:
    """The images of several folders, named ``class/file``."""

    def __init__(self, folders: dict[str, FolderImages]) -> None:
        self._folders = folders

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{name}/{image}" for name, files in self._folders.items() for image in files.names)

    def read(self, name: str) -> bytes:
        folder, _, image = name.partition("/")
        return self._folders[folder].read(image)

    def close(self) -> None:
        for files in self._folders.values():
            files.close()


def _is_loose(path: Path) -> bool:
    return path.suffix.casefold() in EXTENSIONS and not is_clutter(path.name) and not path.is_dir()


def _check_depth(folder: Path, files: dict[str, FolderImages]) -> None:
    empty = [name for name, images in files.items() if not images.names]
    if empty:
        raise DataError(f"{folder}: each class must have images, but {first_ten(empty)} has none")
    deeper = Counter(
        f"{name}/{image.rpartition('/')[0]}"
        for name, images in files.items()
        for image in images.names
        if "/" in image
    )
    if deeper:
        raise DataError(
            f"{folder}: a class's folder must hold images and no folders, but there is "
            f"{first_ten(list(deeper))}"
        )
