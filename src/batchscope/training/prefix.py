"""The layers of a backbone that stay as they are, as a function of images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from batchscope.training.cut import Cut
from batchscope.training.network import FixedMode, Network
from batchscope.training.rewriting import rewrite

__all__ = ["Prefix"]


class Prefix:
    """Layers up to a cut, BatchNorm in inference mode; all ahead of the head where the whole backbone is.

    Args:
        network: The layers.
        cut: Where the backbone's unchanging part ends; it must have a tensor.
    """

    def __init__(self, network: Network, cut: Cut) -> None:
        backbone = network.backbone
        until = keras.Model(backbone.inputs, cut.tensor)
        inputs = keras.Input(backbone.input_shape[1:])
        outputs = FixedMode(rewrite(until, "inference"), training=False)(inputs)
        if cut.whole and network.pooled:
            outputs = keras.layers.GlobalAveragePooling2D()(outputs)
        self._model = keras.Model(inputs, outputs)
        self._name = f"{backbone.name} up to {cut.layer}"
        # Without the states of random layers, which are off.
        self._weights: Sequence[keras.Variable] = until.weights

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image's features."""
        return tuple(self._model.output_shape[1:])

    @property
    def bytes_per_image(self) -> int:
        """Size of one image's features."""
        return 4 * int(np.prod(self.shape))

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features, float32, of scaled examples of shape (n, ...)."""
        return np.asarray(self._model.predict_on_batch(images), dtype=np.float32)

    def fingerprint(self) -> str:
        """SHA-256 of the layers and their weights."""
        built = self._name, self.shape, keras.__version__, keras.backend.backend()
        digest = hashlib.sha256(repr(built).encode())
        for variable in self._weights:
            value = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
            digest.update(repr((variable.path, value.shape)).encode() + value.tobytes())
        return digest.hexdigest()
