"""Tables of updates to targets that were asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable

from batchscope.analysis.results import Analysis
from batchscope.analysis.to_target_findings import goal
from batchscope.analysis.to_target_medians import fewest_for_interval
from batchscope.analysis.to_target_results import Bounded, Median, RateToTarget, UpdatesToTarget
from batchscope.analysis.words import number, of_quantity, percent
from batchscope.report.table import NOTHING, Cell, Table, figure_cell, whole_cell

__all__ = ["critical_table", "median_cell", "medians_note", "to_target_tables"]


def medians_note(confidence: float) -> str:
    """How to read `median_cell`."""
    return (
        "Medians over trials, those that have not got there counted as later than their last figures (Kaplan "
        f"and Meier), with the range of the trials, or from {fewest_for_interval(confidence)} trials on an "
        f"interval of at least {percent(confidence)}; a dash where an end is not known."
    )


def to_target_tables(analysis: Analysis) -> tuple[Table, ...]:
    """A table for each target: every learning rate at every batch size."""
    return tuple(
        _table(found, number, analysis.facts.confidence)
        for number, found in enumerate(analysis.updates_to_target, start=1)
    )


def critical_table(analysis: Analysis) -> Table:
    """The critical batch size for each target; no rows without one."""
    return Table(
        key="critical-batch-size",
        title="Critical batch size",
        note="At it training takes twice the fewest updates and twice the fewest examples; the curve "
        f"S = S_min (1 + B_crit / B) through single trials, with {percent(analysis.facts.confidence)} "
        "profile-likelihood intervals. Scatter: standard deviation of log updates about it.",
        columns=(
            "Target",
            "Critical batch size",
            "Fewest updates",
            "Fewest examples",
            "Trials",
            "Scatter",
            "R\u00b2",
            "Lack of fit, p",
            "Remark",
        ),
        rows=tuple(
            (
                Cell(goal(found).removeprefix("a ")),
                _bounded(fit.batch_size),
                _bounded(fit.updates_min),
                _bounded(fit.examples_min),
                Cell(str(fit.n_trials), float(fit.n_trials), _lost(fit.n_censored, fit.n_diverged)),
                figure_cell(fit.sd_log, lambda sd: number(sd, 2)),
                figure_cell(fit.r_squared, number),
                figure_cell(fit.lack_of_fit_p, lambda p: f"{p:.2g}"),
                Cell(fit.reason or ("outside the batch sizes that reached it" if fit.extrapolated else "")),
            )
            for found in analysis.updates_to_target
            for fit in [found.critical]
            if fit is not None
        ),
    )


def _table(found: UpdatesToTarget, place: int, confidence: float) -> Table:
    return Table(
        key=f"updates-to-target-{place}",
        title=f"Updates to {goal(found)}",
        note=f"{medians_note(confidence)} Resolution: updates between the measurement before and the one "
        "that reached it. Of perfect scaling: examples that the smallest batch size takes, as a share of "
        "these.",
        columns=(
            "Batch size",
            "Learning rate",
            "Reached",
            "Updates",
            "Examples",
            "Seconds",
            "Resolution",
            "Of perfect scaling",
            "Remark",
        ),
        rows=tuple(_row(row, several=_several(found.rates, row)) for row in found.rates),
    )


def _row(row: RateToTarget, *, several: bool) -> tuple[Cell, ...]:
    rate = row.learning_rate
    known = row.best and several and math.isfinite(row.updates.value)
    best = "best, at the edge" if row.at_edge else "best"
    remark = best if known else "passed over: missed" if row.passed_over else ""
    return (
        whole_cell(row.batch_size),
        Cell("") if rate is None else Cell(f"{rate:g}", rate),
        Cell(
            f"{row.n_reached} of {row.n_trials}",
            row.n_reached / row.n_trials,
            f"{row.n_diverged} diverged" if row.n_diverged else "",
        ),
        *(median_cell(row.spent(cost)) for cost in ("updates", "examples", "seconds")),
        figure_cell(row.resolution, of_quantity),
        figure_cell(row.efficiency, percent) if row.best else Cell(""),
        Cell(remark),
    )


def _several(rows: Iterable[RateToTarget], of: RateToTarget) -> bool:
    return sum(row.batch_size == of.batch_size for row in rows) > 1


def median_cell(found: Median | None) -> Cell:
    """A median with its range or interval, or the bound that it lies above; empty without a column."""
    if found is None:
        return Cell("")
    ends = (of_quantity(end) if math.isfinite(end) else NOTHING for end in (found.low, found.high))
    if math.isfinite(found.value):
        return Cell(of_quantity(found.value), found.value, " to ".join(ends) if found.coverage > 0 else "")
    return Cell(f"> {of_quantity(found.more_than)}" if math.isfinite(found.more_than) else NOTHING)


def _bounded(found: Bounded) -> Cell:
    ends = (of_quantity(end) if math.isfinite(end) else NOTHING for end in (found.low, found.high))
    known = math.isfinite(found.low) or math.isfinite(found.high)
    text = of_quantity(found.value) if math.isfinite(found.value) else NOTHING
    return Cell(text, found.value if text != NOTHING else None, " to ".join(ends) if known else "")


def _lost(censored: int, diverged: int) -> str:
    parts = [(censored, "not there"), (diverged, "diverged, left out")]
    return ", ".join(f"{n:,} {word}" for n, word in parts if n)
