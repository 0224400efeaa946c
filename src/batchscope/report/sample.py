"""Sample images as they stand in the page: small PNGs inside its HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from batchscope.report.content import DataSample

__all__ = ["MANY_CLASSES", "ClassRow", "Thumbnail", "class_range", "class_rows", "thumbnails"]

LARGEST = 96
"""Pixels; larger images are shown smaller, which keeps the page small."""
MOST = 48
"""Images that are shown."""
MANY_CLASSES = 20
"""More than so many are told in a line; their table is folded away."""


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
    """How many examples of a class there are.

    Attributes:
        name: Of the class.
        training: Examples in the training part.
        training_share: Of all examples of that part, 0 to 1.
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


def class_range(rows: Sequence[ClassRow]) -> str:
    """Many classes in a line: how many, and which have the fewest and the most training examples."""
    ordered = sorted(rows, key=lambda row: row.training)
    fewest, most = ordered[0], ordered[-1]
    if fewest.training == most.training:
        return f"{len(rows)} classes with {most.training:,} training examples each"
    return (
        f"{len(rows)} classes with {fewest.training:,} (class {fewest.name}) to {most.training:,} (class "
        f"{most.name}) training examples"
    )


def _thumbnail(pixels: npt.NDArray[np.uint8], label: str, name: str) -> Thumbnail:
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Thumbnail(source, image.width, image.height, label, name)
