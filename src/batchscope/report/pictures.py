"""Every figure as a picture, for papers and slides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from batchscope.analysis.results import Analysis
from batchscope.report.files import replace_file

if TYPE_CHECKING:
    from batchscope.report.figure import Figure

__all__ = ["write_figures", "write_pictures"]


def write_pictures(history: pd.DataFrame, folder: Path, analysis: Analysis | None = None) -> list[Path]:
    """Writes every figure as PNG and SVG, named by the figure's key.

    Args:
        history: In standard form, see `batchscope.history.check_history`.
        folder: Made where it does not exist; files of the same names are replaced.
        analysis: Adds the figures that show its results.

    Returns:
        The files written, in the order of the figures.

    Raises:
        HistoryError: The history has neither an accuracy nor a loss.
        ReportError: A file cannot be written.
    """
    from batchscope.report.figures import all_figures

    return write_figures(all_figures(history, analysis), int(history["batch_size"].nunique()), folder)


def write_figures(figures: Sequence[Figure], batch_sizes: int, folder: Path) -> list[Path]:
    """The same for figures that are at hand.

    Args:
        figures: What to write.
        batch_sizes: How many the study has, for the colour scale.
        folder: As above.
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
