"""How what is stored is brought to the numbers that the network sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchscope.data import TrainingData
from batchscope.spec import ModelSpec
from batchscope.training.backbones import preprocessing

__all__ = ["Scaling", "make_scaling"]

Floats = NDArray[np.float32]

_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Scaling:
    """A map from stored values, in float32, to those that the network sees.

    Attributes:
        told: What tells it from every other.
        apply: The map; shape and dtype stay.
    """

    told: str
    apply: Callable[[Floats], Floats]


def make_scaling(spec: ModelSpec, data: TrainingData) -> Scaling:
    """The scaling that a study asks for, or the default for its data.

    Args:
        spec: The study's model.
        data: Its examples; ``standard`` looks at the training part alone.
    """
    table = data.inputs.ndim == 2
    wanted = spec.input_scaling or ("standard" if table else "unit")
    if wanted == "standard":
        return _standard(data)
    if wanted == "unit":
        return Scaling(wanted, lambda values: values * np.float32(1 / 255))
    if wanted == "symmetric":
        return Scaling(wanted, lambda values: values * np.float32(1 / 127.5) - np.float32(1))
    return Scaling(f"{wanted} {spec.backbone}", preprocessing(str(spec.backbone)))


def _standard(data: TrainingData) -> Scaling:
    """Subtracts the training part's mean and divides by its standard deviation (n in the denominator).

    Each feature, or colour, by itself. One that never varies is only centred, as by scikit-learn's
    ``StandardScaler``.
    """
    mean = _mean(data, lambda values: values)
    deviation = np.sqrt(_mean(data, lambda values: np.square(values - mean)))
    centre, scale = (each.astype(np.float32) for each in (mean, np.where(deviation > 0, deviation, 1.0)))
    return Scaling(f"standard {centre.tolist()} {scale.tolist()}", lambda values: (values - centre) / scale)


def _mean(
    data: TrainingData, of: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Over all but the last axis of the training part, some rows at a time."""
    rows, total, count = data.split.training, np.zeros(data.inputs.shape[-1]), 0
    for start in range(0, len(rows), _ROWS):
        values = of(np.asarray(data.inputs[rows[start : start + _ROWS]], dtype=np.float64))
        total += values.reshape(-1, values.shape[-1]).sum(axis=0)
        count += values.size // values.shape[-1]
    return total / count
