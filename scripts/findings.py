"""Writes the tables and pictures of docs/findings.md from the histories beside the study files.

Run `python scripts/findings.py` after a history was replaced; a test compares the tables with them.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd
from pictures import palette_png

from batchscope.analysis import Analysis, Settings, analyze
from batchscope.analysis.estimates import DecompositionRow, Estimate
from batchscope.analysis.to_target_results import RateToTarget
from batchscope.analysis.words import number, of_quantity, percent
from batchscope.history import read_history
from batchscope.loading import parse_targets
from batchscope.report.figures import all_figures
from batchscope.report.files import replace_file
from batchscope.report.render import png
from batchscope.report.table import NOTHING
from batchscope.report.to_target_tables import median_cell

FOLDER = Path(__file__).parents[1] / "docs" / "findings"
PAGE = FOLDER.parent / "findings.md"
PICTURED = ("vehicles-2019", "vehicles-corrected")
TO_TARGET = "fashion-mnist-to-target"
SAID_OF_TARGETS = ("updates_to_target", "critical_batch_size")
TARGETS = ("val_accuracy=0.8", "val_accuracy=0.75")
TARGET_COLUMNS = (
    "Batch size",
    "Best learning rate",
    "Reached",
    "Updates",
    "Examples",
    "Resolution, updates",
    "Of perfect scaling",
)
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
    history = read_history(FOLDER / f"{TO_TARGET}.csv")
    figures = {figure.key: figure for figure in all_figures(history, targets_of(TARGETS[0]))}
    content = palette_png(png(figures["updates-to-target-1"], history["batch_size"].nunique()))
    replace_file(FOLDER.parent / "images" / f"findings-{TO_TARGET}.png", content)


def targets_of(text: str) -> Analysis:
    """The analysis of the study that was trained to targets, with those that a text lists."""
    history = read_history(FOLDER / f"{TO_TARGET}.csv")
    return analyze(history, Settings(targets=tuple(parse_targets(text.split(",")))))


def with_tables(page: str) -> str:
    """The page with its tables made anew.

    Args:
        page: Holds pairs of markers, `<!-- STUDY STAGE -->` or `<!-- STUDY TARGET -->`, and `<!-- end -->`.
    """
    return re.sub(
        r"(<!-- (\S+) (\S+) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}{table(found[2], found[3])}\n{found[4]}",
        page,
        flags=re.DOTALL,
    )


def table(study: str, stage: str) -> str:
    """In Markdown, a stage's end: accuracies and the gap's terms by batch size; or updates to a target."""
    if study == TO_TARGET:
        return target_table(stage)
    history = read_history(FOLDER / f"{study}.csv")
    rows = [row for row in analyze(history).decomposition.ends if row.stage == stage]
    cells = [COLUMNS, ("---",) * len(COLUMNS), *(_cells(history, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def target_table(target: str) -> str:
    """What it took each batch size at its best learning rate to get to a target, and what is said of it."""
    analysis = targets_of(target)
    [found] = analysis.updates_to_target
    cells = [TARGET_COLUMNS, ("---",) * len(TARGET_COLUMNS), *(_to_target(row) for row in found.best)]
    said = [one.text for one in analysis.verdict if one.rule in SAID_OF_TARGETS]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in cells), "", *(f"> {text}" for text in said)])


def _to_target(row: RateToTarget) -> tuple[str, ...]:
    rate = "" if row.learning_rate is None else f"{row.learning_rate:g}{' (edge)' if row.at_edge else ''}"
    shown = [median_cell(found).text for found in (row.updates, row.examples)]
    share = NOTHING if math.isnan(row.efficiency) else percent(row.efficiency)
    reached, resolution = f"{row.n_reached} of {row.n_trials}", of_quantity(row.resolution)
    return str(row.batch_size), rate, reached, *shown, resolution if row.n_reached else NOTHING, share


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
