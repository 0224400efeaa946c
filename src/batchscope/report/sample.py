"""Sample images as they stand in the page: small PNGs inside its HTML."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from batchscope.report.content import DataSample

__all__ = ["ClassRow", "Thumbnail", "class_rows", "thumbnails"]

LARGEST = 96
"""Pixels; larger images are shown smaller, which keeps the page small."""
MOST = 48


@dataclass(frozen=True)
class Thumbnail:
    """One sample image.

    Attributes:
        source: A ``data:`` address that holds it as PNG.
        width: In pixels of the image itself.
        height: Likewise.
        label: Name of its class.
        name: Its id.
    """

    source: str
    width: int
    height: int
    label: str
    name: str


@dataclass(frozen=True)
class ClassRow:
    """How many images of a class there are.

    Attributes:
        name: Of the class.
        training: Images in the training part.
        training_share: Of all images of that part, 0 to 1.
        validation: Likewise.
        validation_share: Likewise.
    """

    name: str
    training: int
    training_share: float
    validation: int
    validation_share: float


def thumbnails(sample: DataSample) -> tuple[Thumbnail, ...]:
    """The sample's images, at most `MOST`, in their order."""
    return tuple(
        _thumbnail(image, sample.classes[label], name)
        for image, label, name in zip(sample.images[:MOST], sample.labels, sample.ids, strict=False)
    )


def class_rows(sample: DataSample) -> tuple[ClassRow, ...]:
    """Class balance of both parts."""
    totals = max(sum(sample.training_counts), 1), max(sum(sample.validation_counts), 1)
    return tuple(
        ClassRow(name, training, training / totals[0], validation, validation / totals[1])
        for name, training, validation in zip(
            sample.classes, sample.training_counts, sample.validation_counts, strict=True
        )
    )


def _thumbnail(pixels: npt.NDArray[np.uint8], label: str, name: str) -> Thumbnail:
    image = Image.fromarray(pixels)
    image.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Thumbnail(source, image.width, image.height, label, name)
