"""From a study's description of its data to a dataset in memory."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np

from batchscope.data.class_folders import class_folders_in, list_class_folders
from batchscope.data.dataset import BadImage, Dataset
from batchscope.data.decode import decode_all
from batchscope.data.kaggle_layout import TABLE, list_kaggle_layout
from batchscope.data.listing import Listing
from batchscope.data.new_folder import UNFINISHED
from batchscope.data.problems import first_ten, tell_bad_images, why_unreadable
from batchscope.data.resize import check_interpolation
from batchscope.data.split import stratified_subset
from batchscope.data.synthetic import SYNTHETIC, draw_cacti, generate_cacti, synthetic_labels
from batchscope.errors import DataError
from batchscope.spec import DataSpec

__all__ = ["load_dataset"]

_LAYOUTS = f"{TABLE} with train.zip or train/, or a folder per class with images, or the name {SYNTHETIC!r}"


def load_dataset(spec: DataSpec, image_size: int, interpolation: str) -> Dataset:
    """Loads the images and labels that a study names, each image decoded once.

    A limit is taken before decoding: then only the chosen images are examined, while ids and files
    are matched for all. Images left out as bad are not replaced by others.

    Args:
        spec: Where the images come from, the limit, its seed, and whether to skip bad images.
        image_size: Height and width in pixels that the network sees. Images that all have one
            size, no larger than this, keep it; otherwise each is brought to this size squared.
        interpolation: ``nearest`` or ``bilinear``.

    Returns:
        The dataset, in the order of the table or of class and name.

    Raises:
        DataError: The source fits no layout or several, its table is wrong, images are bad and may
            not be skipped, a class is left without an image, the limit exceeds the images, or
            they do not fit into memory.
    """
    check_interpolation(interpolation)
    if spec.source is None:
        raise DataError(f"the study names no data: set data.source or --data to {_LAYOUTS}")
    try:
        if spec.source == SYNTHETIC:
            return _load_synthetic(spec)
        listing = _list_source(spec.source)
        with closing(listing.files):
            return _load(listing, spec, image_size, interpolation)
    except MemoryError as error:
        raise DataError(
            f"{spec.source}: the decoded images must fit into memory, but do not; use fewer of them (--limit)"
        ) from error


def _load_synthetic(spec: DataSpec) -> Dataset:
    if spec.limit is None:
        return generate_cacti(spec.images)
    return draw_cacti(stratified_subset(synthetic_labels(spec.images), spec.limit, spec.split_seed))


def _list_source(source: str) -> Listing:
    try:
        return _list(Path(source).expanduser())
    except OSError as error:
        raise DataError(f"{error.filename or source}: {why_unreadable(error)}") from error
    except RuntimeError as error:  # "~name" where there is no such user
        raise DataError(f"{source}: must name a folder, but {error}") from error


def _list(path: Path) -> Listing:
    if path.is_file() and path.suffix.casefold() == ".csv":
        return list_kaggle_layout(path)
    if not path.is_dir():
        what = "a file" if path.exists() else "nothing"
        raise DataError(f"{path}: must be a folder with {_LAYOUTS}, but there is {what}")
    if (path / UNFINISHED).is_dir():
        raise DataError(
            f"{path}: must be complete, but {UNFINISHED}/ in it shows that writing it was stopped or "
            "still goes on; if nothing writes it any more, remove it and write it anew"
        )
    table, classes = path / TABLE, class_folders_in(path)
    if table.is_file() and len(classes) > 1:
        raise DataError(
            f"{path}: must hold one layout, but holds {TABLE} and {len(classes)} folders that may be "
            f"classes; name {table} itself, or move it away"
        )
    if table.is_file():
        return list_kaggle_layout(table)
    if any(child.is_dir() for child in path.iterdir()):
        return list_class_folders(path)
    found = sorted(child.name for child in path.iterdir())
    raise DataError(f"{path}: must hold {_LAYOUTS}, but holds {first_ten(found) or 'nothing'}")


def _load(listing: Listing, spec: DataSpec, image_size: int, interpolation: str) -> Dataset:
    chosen = np.arange(len(listing.ids))
    if spec.limit is not None and (spec.skip_bad_images or not listing.bad):
        chosen = stratified_subset(listing.labels, spec.limit, spec.split_seed)
    ids = [listing.ids[place] for place in chosen]
    decoded = decode_all(ids, listing.files.read, image_size, interpolation)
    bad = (*listing.bad, *decoded.bad)
    if bad and not spec.skip_bad_images:
        raise DataError(f"{spec.source}: {tell_bad_images(bad)}")
    labels = listing.labels[chosen][decoded.kept]
    _check_classes(labels, listing.classes, spec, bad)
    return Dataset(
        inputs=decoded.images,
        labels=labels,
        ids=tuple(ids[place] for place in decoded.kept),
        classes=listing.classes,
        source=str(spec.source),
        skipped=bad,
    )


def _check_classes(
    labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    classes: tuple[str, ...],
    spec: DataSpec,
    bad: tuple[BadImage, ...],
) -> None:
    lost = [name for number, name in enumerate(classes) if not (labels == number).any()]
    if lost:
        skipped = f"; {tell_bad_images(bad)}" if bad else ""
        raise DataError(
            f"{spec.source}: each class must have an image, but of {len(labels):,} usable images none is of "
            f"class {first_ten(lost)}{skipped}"
        )
