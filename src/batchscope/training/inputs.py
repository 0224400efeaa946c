"""Stored examples turned into what the network is fed: images enlarged and augmented, all scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchscope.data import TrainingData, resize
from batchscope.errors import TrainingError
from batchscope.spec import ModelSpec
from batchscope.training.augment import apply_views
from batchscope.training.scaling import Scaling, make_scaling

__all__ = ["Feed", "make_feed"]


@dataclass(frozen=True, eq=False)
class Feed:
    """Turns stored examples into what the network is fed.

    Attributes:
        inputs: All examples of the study, as in `batchscope.data.Dataset`; may be memory-mapped.
        labels: int64, shape (n,).
        shape: Of one example as the network sees it: (height, width, channels) or (features,).
        interpolation: How images are brought to that height and width.
        scaling: The last step.
    """

    inputs: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.int64]
    shape: tuple[int, ...]
    interpolation: str
    scaling: Scaling

    @property
    def told(self) -> str:
        """What tells it from every other with the same inputs and labels."""
        return f"{self.inputs.shape} {self.shape} {self.interpolation} {self.scaling.told}"

    def batch(
        self, rows: NDArray[np.int64], views: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Examples and labels of some rows.

        Args:
            rows: Which examples, in this order; shape (b,).
            views: Transforms of images, shape (b, 8), or None to show them as they are.

        Returns:
            Examples, float32, shape (b, ...), scaled; labels, float32, shape (b, 1).
        """
        shown = self._sized(np.asarray(self.inputs[rows])).astype(np.float32)
        if views is not None:
            shown = apply_views(shown, views)
        if shown.shape[-1] != self.shape[-1]:
            shown = np.repeat(shown, self.shape[-1], axis=-1)  # grey, for a backbone that takes colours
        return self.scaling.apply(shown), self.labels[rows].astype(np.float32)[:, None]

    def _sized(self, stored: NDArray[Any]) -> NDArray[Any]:
        if stored.shape[1:3] == self.shape[:2]:
            return stored
        return resize(stored, self.shape[0], self.interpolation)


def make_feed(spec: ModelSpec, data: TrainingData) -> Feed:
    """The feed of a study.

    Args:
        spec: Its model: size, interpolation and scaling of the inputs.
        data: Its examples.

    Raises:
        TrainingError: The data are a table, but the model needs images.
    """
    stored = data.inputs.shape[1:]
    if len(stored) == 1:
        _refuse_image_keys(spec, stored[0])
        shape: tuple[int, ...] = stored
    else:
        height, width = stored[:2] if spec.image_size is None else (spec.image_size, spec.image_size)
        shape = (height, width, stored[2] if spec.backbone is None else 3)
    return Feed(data.inputs, data.labels, shape, spec.interpolation, make_scaling(spec, data))


def _refuse_image_keys(spec: ModelSpec, features: int) -> None:
    told = f"but the data are a table of {features} features"
    if spec.backbone is not None:
        raise TrainingError(
            f'model.backbone = "{spec.backbone}" needs images, {told}; set model.network = "mlp", or a '
            "function of your own as MODULE:FUNCTION"
        )
    if spec.image_size is not None:
        raise TrainingError(f"model.image_size needs images, {told}; leave it out")
    if spec.input_scaling not in (None, "standard"):
        raise TrainingError(
            f'model.input_scaling = "{spec.input_scaling}" maps bytes of images, {told}; '
            'leave it out, or take "standard"'
        )
