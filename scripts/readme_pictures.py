"""Redraws the README's pictures from the published history, with a palette so that they stay small."""

import io
from pathlib import Path

from PIL import Image

from batchscope.analysis import analyze
from batchscope.published import published_history
from batchscope.report.figures import all_figures
from batchscope.report.files import replace_file
from batchscope.report.render import png

FOLDER = Path(__file__).parents[1] / "docs" / "images"
KEYS = ("epochs-and-updates", "gap")


def palette_png(content: bytes) -> bytes:
    """A PNG of a chart with at most 256 colours; antialiasing needs no more."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    history = published_history()
    for figure in all_figures(history, analyze(history)):
        if figure.key in KEYS:
            content = palette_png(png(figure, history["batch_size"].nunique()))
            replace_file(FOLDER / f"{figure.key}.png", content)
