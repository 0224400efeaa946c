"""Every figure as a picture, for papers and slides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from batchscope.report.files import replace_file

if TYPE_CHECKING:
    from batchscope.report.figure import Figure

__all__ = ["write_pictures"]


def write_pictures(figures: Sequence[Figure], batch_sizes: int, folder: Path) -> list[Path]:
    """Writes figures as PNG and SVG, named by their keys.

    Args:
        figures: What to write.
        batch_sizes: How many the study has, for the colour scale.
        folder: Made where it does not exist; files of the same names are replaced.

    Returns:
        The files written, in the order of the figures.

    Raises:
        ReportError: A file cannot be written.
    """
    from batchscope.report.render import png, svg

    written = []
    for figure in figures:
        picture, drawing = png(figure, batch_sizes), svg(figure, batch_sizes)
        for suffix, content in ((".png", picture), (".svg", drawing.encode())):
            path = folder / f"{figure.key}{suffix}"
            replace_file(path, content)
            written.append(path)
    return written
