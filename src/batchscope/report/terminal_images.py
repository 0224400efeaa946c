"""A row of small images in a terminal that has enough colours."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from batchscope.data.problems import first_ten
from batchscope.report.content import DataSample

__all__ = ["image_row"]

_SIDE = 16
"""Pixels of an image in the terminal; a character shows two, one above the other."""


def image_row(sample: DataSample, console: Console) -> Text | None:
    """The first images, one of each class in turn, as many as stand side by side, above their classes.

    Returns:
        None where there are no images, or the terminal cannot show them: it is none, or has not all
        colours.
    """
    if len(sample.images) == 0 or not console.is_terminal or console.color_system != "truecolor":
        return None
    chosen = _in_turn(sample.labels)[: max(console.width // (_SIDE + 1), 1)]
    pictures = [_small(sample.images[place]) for place in chosen]
    row = Text()
    for line in range(0, _SIDE, 2):
        for picture in pictures:
            for upper, lower in zip(picture[line], picture[line + 1], strict=True):
                row.append("\u2580", Style(color=_colour(upper), bgcolor=_colour(lower)))
            row.append(" ")
        row.append("\n")
    for place in chosen:
        row.append(first_ten([sample.classes[sample.labels[place]]])[:_SIDE].ljust(_SIDE + 1))
    return row


def _in_turn(labels: tuple[int, ...]) -> list[int]:
    """Places of the first of each class, then of the second, and so on."""
    return sorted(range(len(labels)), key=lambda place: (labels[:place].count(labels[place]), labels[place]))


def _small(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).convert("RGB")
    return np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))


def _colour(pixel: npt.NDArray[np.uint8]) -> Color:
    red, green, blue = (int(value) for value in pixel)
    return Color.from_rgb(red, green, blue)
