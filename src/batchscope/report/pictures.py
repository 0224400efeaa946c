"""Every figure as a picture, for papers and slides."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from batchscope.analysis.results import Analysis
from batchscope.report.files import replace_file

__all__ = ["write_pictures"]


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
    from batchscope.report.render import png, svg

    count = int(history["batch_size"].nunique())
    written = []
    for figure in all_figures(history, analysis):
        for suffix, content in ((".png", png(figure, count)), (".svg", svg(figure, count).encode())):
            path = folder / f"{figure.key}{suffix}"
            replace_file(path, content)
            written.append(path)
    return written
