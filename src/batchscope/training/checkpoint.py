"""Checkpoints: everything a trial needs to go on after an epoch, as plain arrays."""

from __future__ import annotations

import json
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pydantic
from numpy.typing import NDArray

from batchscope.errors import TrainingError
from batchscope.records import EpochRecord
from batchscope.replacing import replacing
from batchscope.schedule import StageStart

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]

Arrays = Sequence[NDArray[np.generic]]

_RECORD = pydantic.TypeAdapter(EpochRecord)
_STARTS = pydantic.TypeAdapter(tuple[StageStart, ...])
# All that zipfile, zlib, NumPy's reading of headers, and JSON raise at damaged or hostile bytes.
_DAMAGES = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError),
    *(ValueError, KeyError, TypeError, OverflowError, RecursionError, MemoryError, tokenize.TokenError),
)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a trial after an epoch.

    It carries the epoch's own record: a record that was lost on its way to the store is given
    again from here, so no epoch is trained twice for it.

    Attributes:
        study: Digest of the study that the trial is of.
        trial: Name of the trial.
        record: The epoch's figures.
        weights: Values of the network's variables, seeds of random layers among them.
        optimizer: Values of the stage's optimizer's variables.
        starts: Where each stage began, as far as stages have begun.
    """

    study: str
    trial: str
    record: EpochRecord
    weights: Arrays
    optimizer: Arrays
    starts: tuple[StageStart, ...]


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Writes a checkpoint, replacing an older one in one step.

    Raises:
        TrainingError: There is no room, or no right to write; the older one is still there.
    """
    arrays: dict[str, NDArray[np.generic]] = {}
    for group, values in (("weights", checkpoint.weights), ("optimizer", checkpoint.optimizer)):
        arrays.update({f"{group}/{index}": value for index, value in enumerate(values)})
    told = {
        "study": checkpoint.study,
        "trial": checkpoint.trial,
        "record": _record_to_json(checkpoint.record),
        "starts": [asdict(start) for start in checkpoint.starts],
    }
    try:
        with replacing(path, path.with_name(f"{path.name}.partial")) as file:
            np.savez(file, meta=np.array(json.dumps(told)), **arrays)  # type: ignore[arg-type]  # names are no flags
    except OSError as error:
        raise TrainingError(
            f"{path}: the trial's state must be kept here, but: {error.strerror or error}; make room or give "
            "the right to write, then the same command goes on from the last epoch that was kept"
        ) from error


def load_checkpoint(path: Path) -> Checkpoint | None:
    """Reads a checkpoint; None where there is none. Never unpickles.

    Raises:
        TrainingError: There is a file, but it is no whole checkpoint.
    """
    try:
        # Opened here: where NumPy opens a file that is no archive, it leaves it open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            meta = dict(json.loads(str(file["meta"])))
            return Checkpoint(
                study=meta.get("study", ""),  # one of an older version is of no known study
                trial=meta["trial"],
                record=_RECORD.validate_json(json.dumps(meta["record"]), strict=True),
                weights=_group(file, "weights"),
                optimizer=_group(file, "optimizer"),
                starts=_STARTS.validate_json(json.dumps(meta.get("starts", [])), strict=True),
            )
    except FileNotFoundError:
        return None
    except _DAMAGES as error:
        raise TrainingError(
            f"{path}: must be a checkpoint that batchscope wrote, but {error}; "
            "delete it to train this trial from its start"
        ) from error


def _record_to_json(record: EpochRecord) -> Mapping[str, object]:
    return asdict(record) | {"probes": dict(record.probes)}


def _group(file: np.lib.npyio.NpzFile, group: str) -> list[NDArray[np.generic]]:
    count = sum(name.startswith(f"{group}/") for name in file.files)
    arrays = [file[f"{group}/{index}"] for index in range(count)]
    if not all(isinstance(array, np.ndarray) for array in arrays):  # NumPy gives what is no array as bytes
        raise TypeError(f"{group} must be arrays")
    return arrays
