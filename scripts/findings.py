"""Writes the tables and pictures of docs/findings.md from the histories beside the study files.

Run `python scripts/findings.py` after a history was replaced; a test compares the tables with them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from pictures import palette_png

from batchscope.analysis import analyze
from batchscope.analysis.estimates import DecompositionRow, Estimate
from batchscope.analysis.words import number
from batchscope.history import read_history
from batchscope.report.figures import all_figures
from batchscope.report.files import replace_file
from batchscope.report.render import png

FOLDER = Path(__file__).parents[1] / "docs" / "findings"
PAGE = FOLDER.parent / "findings.md"
PICTURED = ("vehicles-2019", "vehicles-corrected")
COLUMNS = (
    "Batch size",
    "Training",
    "Validation",
    "Observed gap",
    "Averaging",
    "Augmentation",
    "BatchNorm",
    "Generalization",
)


def main() -> None:
    """Replaces what stands between the markers of each table, and the pictures."""
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    for study in PICTURED:
        history = read_history(FOLDER / f"{study}.csv")
        for figure in all_figures(history, analyze(history)):
            if figure.key == "gap-terms":
                content = palette_png(png(figure, history["batch_size"].nunique()))
                replace_file(FOLDER.parent / "images" / f"findings-{study}.png", content)


def with_tables(page: str) -> str:
    """The page with its tables made anew.

    Args:
        page: Holds pairs of markers, `<!-- STUDY STAGE -->` and `<!-- end -->`.
    """
    return re.sub(
        r"(<!-- (\S+) (\S+) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}{table(found[2], found[3])}\n{found[4]}",
        page,
        flags=re.DOTALL,
    )


def table(study: str, stage: str) -> str:
    """A stage's end in Markdown: accuracies and the gap's terms by batch size."""
    history = read_history(FOLDER / f"{study}.csv")
    rows = [row for row in analyze(history).decomposition.ends if row.stage == stage]
    cells = [COLUMNS, ("---",) * len(COLUMNS), *(_cells(history, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _cells(history: pd.DataFrame, row: DecompositionRow) -> tuple[str, ...]:
    here = history[(history["epoch"] == row.epoch) & (history["batch_size"] == row.batch_size)]
    return (
        str(row.batch_size),
        *(f"{here[name].mean():.3f}" for name in ("train_accuracy", "val_accuracy")),
        *(_cell(found) for found in (row.observed, row.averaging, row.augmentation)),
        "0" if row.batchnorm_inference else _cell(row.batchnorm),
        _cell(row.generalization),
    )


def _cell(found: Estimate) -> str:
    return f"{number(found.mean)} ± {number(found.high - found.mean)}"


if __name__ == "__main__":
    main()
