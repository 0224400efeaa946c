"""Redraws the pictures of the README and of docs/how-to-read.md, with a palette so that they stay small."""

import io
from pathlib import Path

import pandas as pd
from PIL import Image

from batchscope.analysis import analyze
from batchscope.history import read_history
from batchscope.published import published_history
from batchscope.report.figures import all_figures
from batchscope.report.files import replace_file
from batchscope.report.render import png

DOCS = Path(__file__).parents[1] / "docs"
FOLDER = DOCS / "images"
NOT_SHOWN = "a-replicates-loss"
"""Loss beside accuracy would take up a screen and teach no more."""


def palette_png(content: bytes) -> bytes:
    """A PNG of a chart with at most 256 colours; antialiasing needs no more."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def draw(history: pd.DataFrame, *keys: str) -> None:
    """Replaces pictures in docs/images.

    Args:
        history: In standard form.
        keys: Of the figures; none for all but `NOT_SHOWN`.
    """
    for figure in all_figures(history, analyze(history)):
        if figure.key in keys or not (keys or figure.key == NOT_SHOWN):
            content = palette_png(png(figure, history["batch_size"].nunique()))
            replace_file(FOLDER / f"{figure.key}.png", content)


if __name__ == "__main__":
    draw(published_history())
    draw(read_history(DOCS / "findings" / "vehicles-2019.csv"), "batchnorm-lag")
