"""Which kind of source lies where a study says, and what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from batchscope.data.class_folders import class_folders_in, list_class_folders, loose_images, part_folders_in
from batchscope.data.feature_table import read_feature_table
from batchscope.data.idx import idx_files_in, read_idx
from batchscope.data.kaggle_layout import TABLE, has_images_beside, list_kaggle_layout
from batchscope.data.keras_datasets import fetch_keras_dataset
from batchscope.data.label_table import is_label_table
from batchscope.data.new_folder import UNFINISHED
from batchscope.data.npz import read_npz
from batchscope.data.parts import Arrays, Parts, part_for_validation
from batchscope.data.problems import first_ten, why_unreadable
from batchscope.data.synthetic import SYNTHETIC
from batchscope.errors import DataError
from batchscope.spec import KERAS_PREFIX, DataSpec

__all__ = ["LAYOUTS", "read_parts"]

LAYOUTS = (
    f"{TABLE} with train.zip or train/, or a folder per class with images, or such folders in train/ and "
    f"val/, or IDX files, or be a .npz, .csv or .parquet file, or one of the names {SYNTHETIC!r} and "
    f"'{KERAS_PREFIX}NAME'"
)
"""What a source may be, as messages tell it."""


def read_parts(spec: DataSpec) -> Parts:
    """Reads what a study names: arrays as a whole, image files only by their names.

    Args:
        spec: Its source is given and is not generated.

    Returns:
        To be closed.

    Raises:
        DataError: A source fits no layout or several, or its content cannot be used.
    """
    parts = _read(str(spec.source), spec.label, spec.validation)
    if spec.validation is None:
        return parts
    try:
        return _with_validation(parts, spec.validation, spec.label)
    except BaseException:
        parts.close()
        raise


def _with_validation(parts: Parts, source: str, label: str | None) -> Parts:
    tabular = isinstance(parts.training, Arrays) and bool(parts.training.features)
    other = _read(source, label if tabular else None, None)
    if other.validation is not None:
        other.close()
        raise DataError(
            f"{source}: data.validation must hold one set of examples, but this holds the parts "
            f"{' and '.join(other.names)}; name the folder or file of one"
        )
    if isinstance(other.training, Arrays) != isinstance(parts.training, Arrays):
        other.close()
        raise DataError(
            f"{source}: training and validation must both be image files, or both arrays or tables; bring "
            "them in one form"
        )
    return replace(parts, validation=other.training, names=("training", "validation"))


def _read(source: str, label: str | None, another: str | None) -> Parts:
    try:
        if source.startswith(KERAS_PREFIX):
            _refuse_label(source, label)
            return read_npz(fetch_keras_dataset(source), source, another)
        return _read_path(Path(source).expanduser(), label, another)
    except OSError as error:
        raise DataError(f"{error.filename or source}: {why_unreadable(error)}") from error
    except RuntimeError as error:  # "~name" where there is no such user
        raise DataError(f"{source}: must name a folder, but {error}") from error


def _read_path(path: Path, label: str | None, another: str | None) -> Parts:
    suffix = path.suffix.casefold() if path.is_file() else None
    if suffix == ".parquet":
        return Parts(read_feature_table(path, label))
    if suffix == ".csv":
        return _read_table(path, label)
    if suffix == ".npz":
        _refuse_label(str(path), label)
        return read_npz(path, str(path), another)
    if not path.is_dir():
        what = "a file" if path.exists() else "nothing"
        raise DataError(f"{path}: must be a folder with {LAYOUTS}, but there is {what}")
    return _read_folder(path, label, another)


def _read_table(table: Path, label: str | None) -> Parts:
    """A table with images beside it, or of ids, is the competition's layout; any other is of features."""
    if label is None and (has_images_beside(table) or is_label_table(table)):
        return Parts(list_kaggle_layout(table))
    return Parts(read_feature_table(table, label))


def _read_folder(path: Path, label: str | None, another: str | None) -> Parts:
    if (path / UNFINISHED).is_dir():
        raise DataError(
            f"{path}: must be complete, but {UNFINISHED}/ in it shows that writing it was stopped or "
            "still goes on; if nothing writes it any more, remove it and write it anew"
        )
    table, classes, idx = path / TABLE, class_folders_in(path), idx_files_in(path)
    layouts = [TABLE] if table.is_file() else []
    layouts += ["IDX files"] if idx else []
    layouts += [f"{len(classes)} folders that may be classes"] if len(classes) > 1 else []
    if len(layouts) > 1:
        remedy = f"name {table} itself, or move it away" if table.is_file() else "move one of them away"
        raise DataError(f"{path}: must hold one layout, but holds {' and '.join(layouts)}; {remedy}")
    if table.is_file():
        return _read_table(table, label)
    _refuse_label(str(path), label)
    if idx:
        return read_idx(path, another)
    parts = part_folders_in(path)
    if "training" in parts and len(parts) > 1 and not classes:
        return _read_part_folders(path, parts, another)
    if any(child.is_dir() for child in path.iterdir()):
        return Parts(list_class_folders(path))
    found = sorted(child.name for child in path.iterdir())
    raise DataError(f"{path}: must hold {LAYOUTS}, but holds {first_ten(found) or 'nothing'}")


def _read_part_folders(path: Path, parts: Mapping[str, Path], another: str | None) -> Parts:
    chosen, notes = part_for_validation(str(path), parts, another)
    training = list_class_folders(parts["training"])
    training = replace(training, bad=(*training.bad, *loose_images(path)))
    if chosen is None:
        return Parts(training, notes=notes)
    names = (parts["training"].name, parts[chosen].name)
    return Parts(training, list_class_folders(parts[chosen]), names, notes)


def _refuse_label(source: str, label: str | None) -> None:
    if label is not None:
        raise DataError(
            f"{source}: data.label names a column of a table of features (.csv or .parquet), but this is "
            "none; leave it out"
        )
