"""From a figure to PNG and SVG, offline, through vl-convert."""

from __future__ import annotations

import json
import re

import vl_convert

from batchscope.report.figure import Figure
from batchscope.report.theme import LIGHT, batch_size_colours, chart_config

__all__ = ["png", "svg"]

SCALE = 2.0
_CLIP = re.compile(r"(?<=[#\"])clip\d+\b")
PICTURE_FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
"""vl-convert brings Liberation Sans along, so pictures look the same everywhere."""


def png(figure: Figure, batch_sizes: int) -> bytes:
    """A figure with its title on white, at two pixels per unit.

    Args:
        figure: What to draw.
        batch_sizes: How many the study has, for the colour scale.
    """
    return bytes(vl_convert.vegalite_to_png(_picture(figure, batch_sizes), scale=SCALE))


def svg(figure: Figure, batch_sizes: int) -> str:
    """A figure with its title on white, as SVG text, the same whatever was drawn before.

    Vega numbers what clips a drawing on through all drawings of a process.
    """
    text = str(vl_convert.vegalite_to_svg(_picture(figure, batch_sizes)))
    numbers = {name: f"clip{place}" for place, name in enumerate(dict.fromkeys(_CLIP.findall(text)))}
    return _CLIP.sub(lambda found: numbers[found.group()], text)


def _picture(figure: Figure, batch_sizes: int) -> str:
    config = chart_config(batch_size_colours(batch_sizes, LIGHT), LIGHT, PICTURE_FONT)
    return json.dumps(
        {**figure.picture_spec(), "config": {**config, "background": LIGHT.paper, "padding": 16}}
    )
