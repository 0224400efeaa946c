"""Tables of the recipe: learning rates that were tried, and targets that were to be reached."""

from __future__ import annotations

from batchscope.analysis.results import Analysis, LearningRatePoint
from batchscope.analysis.words import number, of_quantity, percent, quantity_name
from batchscope.report.table import Cell, Table, estimate_cell, figure_cell, lost, whole_cell

__all__ = ["learning_rate_table", "target_table"]


def learning_rate_table(analysis: Analysis) -> Table:
    """Each learning rate of a grid at each batch size; no rows without a grid."""
    found = analysis.learning_rates
    by = "" if found.chosen_by is None else quantity_name(found.chosen_by)
    tie = ", then the lowest loss on the same images" if by.endswith("accuracy") else ""
    metric = "" if found.optimistic else quantity_name(analysis.facts.metric).capitalize()
    return Table(
        key="learning-rates",
        title="Learning rates that were tried",
        note="Mean over trials at their end, with standard deviation and "
        f"{percent(analysis.facts.confidence)} t-interval. The best has the fewest diverged trials, then the "
        f"best {by}{tie}; all other tables and figures compare batch sizes at theirs.",
        columns=("Batch size", "Learning rate", "Replicates", by.capitalize(), metric, "Remark"),
        rows=tuple(
            (
                whole_cell(point.batch_size),
                Cell(f"{point.learning_rate:g}", point.learning_rate),
                Cell(
                    str(point.selection.n), float(point.selection.n), lost(point.n_diverged, point.n_missing)
                ),
                estimate_cell(point.selection),
                Cell("") if found.optimistic else estimate_cell(point.metric),
                Cell(_remark(point)),
            )
            for point in found.points
        ),
    )


def _remark(point: LearningRatePoint) -> str:
    if point.passed_over:
        return "passed over: diverged"
    return ("best, at the edge" if point.at_edge else "best") if point.chosen else ""


def target_table(analysis: Analysis) -> Table:
    """What it took to reach the target of a stage; no rows without one."""
    return Table(
        key="targets",
        title="Targets reached",
        note="Means over the trials that reached the target, counted from the trial's start; the others "
        "ended the stage without it, and are in none of these means.",
        columns=("Stage", "Target", "Batch size", "Reached", "Epochs", "Updates", "Examples", "Seconds"),
        rows=tuple(
            (
                Cell(row.stage),
                Cell(f"{quantity_name(row.metric)} {number(row.value)}"),
                whole_cell(row.batch_size),
                Cell(
                    f"{row.n_reached} of {row.n_trials}",
                    row.n_reached / row.n_trials,
                    f"{row.n_missed} never" if row.n_missed else "",
                ),
                *(
                    Cell("") if found is None else figure_cell(found.mean, of_quantity)
                    for found in map(row.spent, ("epochs", "updates", "examples", "seconds"))
                ),
            )
            for row in analysis.targets
        ),
    )
