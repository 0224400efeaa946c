"""Tables of the recipe: learning rates that were tried, and targets that were to be reached."""

from __future__ import annotations

import math

from batchscope.analysis.results import Analysis, LearningRatePoint, LearningRates
from batchscope.analysis.settings import Target
from batchscope.analysis.to_target_results import RateToTarget
from batchscope.analysis.words import number, of_quantity, percent, quantity_name, target_text
from batchscope.report.table import Cell, Table, estimate_cell, figure_cell, lost, whole_cell
from batchscope.report.to_target_tables import median_cell, medians_note

__all__ = ["learning_rate_table", "target_table"]


def learning_rate_table(analysis: Analysis) -> Table:
    """Each learning rate of a grid at each batch size; no rows without a grid."""
    found = analysis.learning_rates
    if found.goal is not None:
        return _to_target(found, found.goal, analysis.facts.confidence)
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
                _ended(point),
                estimate_cell(point.selection),
                Cell("") if found.optimistic else estimate_cell(point.metric),
                Cell(_remark(point)),
            )
            for point in found.points
        ),
    )


def _ended(point: LearningRatePoint) -> Cell:
    n = 0 if point.selection is None else point.selection.n
    return Cell(str(n), float(n), lost(point.n_diverged, point.n_missing))


def _to_target(found: LearningRates, goal: Target, confidence: float) -> Table:
    return Table(
        key="learning-rates",
        title="Learning rates that were tried",
        note=f"Updates to {target_text(goal.metric, goal.value)}, at which trials end. "
        f"{medians_note(confidence)} The best has the smallest share of trials that ended without, then the "
        "least median, over the replicates that all rates share; where none has a median, the most trials "
        "that got there. All other tables and figures compare batch sizes at theirs. As the same trials "
        "chose it, its updates are too few.",
        columns=("Batch size", "Learning rate", "Reached", "Updates", "Remark"),
        rows=tuple(
            (
                whole_cell(point.batch_size),
                Cell(f"{point.learning_rate:g}", point.learning_rate),
                Cell(
                    f"{spent.n_reached} of {spent.n_trials}",
                    spent.n_reached / spent.n_trials,
                    _not_there(spent, point.n_missing),
                ),
                median_cell(spent.updates),
                Cell(_remark(point)),
            )
            for point in found.points
            if (spent := point.to_target) is not None
        ),
    )


def _not_there(spent: RateToTarget, going_on: int) -> str:
    parts = (
        (spent.n_diverged, "diverged"),
        (spent.n_censored - going_on, "never"),
        (going_on, "not there yet"),
    )
    return ", ".join(f"{n} {word}" for n, word in parts if n)


def _remark(point: LearningRatePoint) -> str:
    if point.passed_over:
        return "passed over: diverged" if point.to_target is None else "passed over: missed"
    if point.chosen and point.to_target is not None and math.isnan(point.to_target.updates.value):
        return "taken, without a median"
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
