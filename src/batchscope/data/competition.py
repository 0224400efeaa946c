"""Fetches the images of the Aerial Cactus Identification competition through Kaggle's own client."""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path
from types import ModuleType

from batchscope.data.kaggle_layout import TABLE
from batchscope.data.new_folder import DISK_ERRORS, new_folder
from batchscope.data.problems import first_ten
from batchscope.data.synthetic import SYNTHETIC
from batchscope.errors import DataError

__all__ = ["COMPETITION", "fetch_competition"]

COMPETITION = "aerial-cactus-identification"
_PAGE = f"https://www.kaggle.com/competitions/{COMPETITION}"
_IMAGES = ("train.zip", "train")
_ACCOUNT = (401, 403)


def fetch_competition(folder: Path) -> Path:
    """Downloads the competition's training images and labels.

    They come through ``kagglehub``, which keeps them in a cache of its own, and are copied from
    there: ``train.csv`` with ``train.zip`` or a folder ``train``.

    Args:
        folder: New or empty.

    Returns:
        The folder.

    Raises:
        DataError: The folder is not empty or cannot be written, ``kagglehub`` is not installed,
            its cache cannot be written, Kaggle refuses or is not reached. Nothing is left in the
            folder then. The message names what to do without an account. It never repeats what
            Kaggle's client said, for that could hold a credential.
    """
    with new_folder(folder) as place:
        _copy(_download(), place)
    return folder


def _download() -> Path:
    kagglehub = _client()
    try:
        return Path(kagglehub.competition_download(COMPETITION))
    except Exception as error:  # noqa: BLE001 - the client lets errors of its many parts through
        raise DataError(_refusal(error)) from None


def _client() -> ModuleType:
    try:
        return importlib.import_module("kagglehub")
    except ImportError:
        raise DataError(
            f"the competition's images are fetched by kagglehub, which is not installed: "
            f"pip install 'batchscope[kaggle]'. {_without_account()}"
        ) from None


def _refusal(error: Exception) -> str:
    # Errors of the network are OSErrors as well, but not with these numbers.
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return (
            f"kagglehub's cache must be writable and have room for the download, but: "
            f"{os.strerror(error.errno)}; free space, or set KAGGLEHUB_CACHE to a folder elsewhere"
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    kind = type(error).__name__
    if kind == "UnauthenticatedError" or status in _ACCOUNT:
        what = (
            f"Kaggle gives {COMPETITION} only to an account that has accepted its rules"
            f"{f' (it answered {status})' if status else ''}: sign in at {_PAGE}/rules and accept them, then "
            "put an API token where kagglehub looks for it (https://www.kaggle.com/settings/api)"
        )
    else:
        answered = f", HTTP status {status}" if status else ""
        what = f"{COMPETITION} could not be fetched from Kaggle ({kind}{answered}); try again later"
    return f"{what}. {_without_account()}"


def _without_account() -> str:
    return (
        f"Without an account: use the generated images (--data {SYNTHETIC}), or a folder of your own images "
        "with a subfolder per class (--data FOLDER), or let somebody who has an account download train.csv "
        f"and train.zip in a browser from {_PAGE}/data, and give the folder that holds both (--data FOLDER)"
    )


def _copy(downloaded: Path, folder: Path) -> None:
    found = [downloaded / name for name in _IMAGES if (downloaded / name).exists()]
    if not found or not (downloaded / TABLE).is_file():
        held = first_ten(sorted(path.name for path in downloaded.iterdir())) or "nothing"
        raise DataError(
            f"{downloaded}: the download must hold {TABLE} and train.zip or train/, but holds {held}"
        )
    if found[0].is_dir():
        _copy_tree(found[0], folder / found[0].name)
    else:
        shutil.copyfile(found[0], folder / found[0].name)
    shutil.copyfile(downloaded / TABLE, folder / TABLE)


def _copy_tree(source: Path, target: Path) -> None:
    """Copies a folder; stops at the first error, where `shutil.copytree` tries all the other files."""
    target.mkdir()
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir()
        else:
            shutil.copyfile(path, place)
