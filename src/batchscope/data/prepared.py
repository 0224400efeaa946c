"""A study's examples as its trials use them, kept on disk so that workers share one copy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from batchscope.data.split import Split

__all__ = ["TrainingData"]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The examples of a study as its trials use them.

    Attributes:
        inputs: As in `Dataset`; memory-mapped where they were loaded.
        labels: int64, shape (n,).
        split: Rows for training and for validation.
        classes: Names of the classes.
    """

    inputs: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.int64]
    split: Split
    classes: tuple[str, ...]

    def save(self, folder: Path) -> None:
        """Writes the arrays into a folder, replacing those that are there."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, NDArray[np.uint8] | NDArray[np.float32] | NDArray[np.int64]] = {
            "inputs": self.inputs,
            "labels": self.labels,
            "training": self.split.training,
            "validation": self.split.validation,
        }
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        (folder / "classes.json").write_text(json.dumps(self.classes), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> TrainingData:
        """Opens what `save` wrote; the inputs stay on disk until they are read."""
        return cls(
            inputs=np.load(folder / "inputs.npy", mmap_mode="r", allow_pickle=False),
            labels=np.load(folder / "labels.npy", allow_pickle=False),
            split=Split(
                training=np.load(folder / "training.npy", allow_pickle=False),
                validation=np.load(folder / "validation.npy", allow_pickle=False),
            ),
            classes=tuple(json.loads((folder / "classes.json").read_text(encoding="utf-8"))),
        )
