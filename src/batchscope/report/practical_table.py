"""The tables of what each batch size is good for, and which is the cheapest."""

from __future__ import annotations

from batchscope.analysis.practical import PracticalRow
from batchscope.analysis.results import Analysis
from batchscope.analysis.sizing_words import size_text
from batchscope.analysis.words import batch_sizes, number, of_quantity, percent, quantity_name, target_text
from batchscope.report.table import NOTHING, Cell, Table, figure_cell, whole_cell

__all__ = ["choices_table", "practical_table"]


def practical_table(analysis: Analysis) -> Table:
    """What each batch size is good for; no rows where the history tells neither time nor memory."""
    rows, goal = analysis.practical, analysis.facts.goal
    known = any(row.seconds is not None or row.peak_memory is not None for row in rows)
    priced = any(row.price is not None for row in rows)
    name = quantity_name(analysis.facts.metric)
    told = (
        f"Mean {name} at the end, seconds of training until it stays within {analysis.facts.margin:g} of the "
        "best"
        if goal is None
        else f"Seconds of training to {target_text(goal.metric, goal.value)}, where every trial got there"
    )
    return Table(
        key="practical",
        title="Which batch size for what",
        note=f"{told}, and the most memory that any of its trials' processes took. "
        f"{_of_prices(analysis) if priced else ''}Whether differences are real, the verdict says.",
        columns=(
            "Batch size",
            *((name[0].upper() + name[1:],) if goal is None else ()),
            "Seconds",
            *(("Price",) if priced else ()),
            "Peak memory",
            "Remark",
        ),
        rows=tuple(_row(row, priced=priced, to_goal=goal is not None) for row in rows) if known else (),
    )


def choices_table(analysis: Analysis) -> Table:
    """The cheapest batch size by each cost; no rows where none is known."""
    found, goal = analysis.recommendation, analysis.facts.goal
    advice = "" if found.status == "recommended" else " These describe the data and are no advice."
    if goal is not None:
        return _choices_to_target(analysis, target_text(goal.metric, goal.value), advice)
    return Table(
        key="choices",
        title="Cheapest batch size within the margin",
        note=f"Within {number(found.margin)} of the best {quantity_name(found.quantity)}; spent until the "
        f"mean stays within that margin.{advice}",
        columns=("Cost", "Batch size", "Spent", "Reached at epoch", "Spent by the best"),
        rows=tuple(
            (
                Cell(row.cost),
                whole_cell(row.batch_size),
                figure_cell(row.spent, of_quantity),
                Cell(NOTHING) if row.epoch is None else whole_cell(row.epoch),
                figure_cell(row.best_spent, of_quantity),
            )
            for row in found.choices
        ),
    )


def _choices_to_target(analysis: Analysis, target: str, advice: str) -> Table:
    return Table(
        key="choices",
        title="Cheapest batch size to the target",
        note=f"Of the batch sizes of which every trial reached {target}, with those that these replicates do "
        f"not tell apart from it: the paired {percent(analysis.facts.confidence)} t-interval of the "
        f"logarithm of their ratio does not lie above 0.{advice}",
        columns=("Cost", "Batch size", "Spent", "Not told apart"),
        rows=tuple(
            (
                Cell(row.cost),
                whole_cell(row.batch_size),
                figure_cell(row.spent, of_quantity),
                Cell(batch_sizes(row.rivals) if row.rivals else ""),
            )
            for row in analysis.recommendation.choices
        ),
    )


def _of_prices(analysis: Analysis) -> str:
    """What prices hold, and how many trials shared the machine where that is known."""
    text = "The price is that of the whole machine for these seconds, without evaluation and probes"
    most = max((way.workers for way in analysis.throughput.layouts), default=1)
    if most > 1:
        text += f"; up to {most} trials ran side by side on it, so it is up to {most} times a trial's share"
    return f"{text}. "


def _row(row: PracticalRow, *, priced: bool, to_goal: bool) -> tuple[Cell, ...]:
    return (
        whole_cell(row.batch_size),
        *(() if to_goal else (figure_cell(row.metric, number),)),
        _optional(row.seconds),
        *((_optional(row.price),) if priced else ()),
        Cell(NOTHING)
        if row.peak_memory is None
        else Cell(size_text(int(row.peak_memory)), float(row.peak_memory)),
        Cell(_remark(row, to_goal=to_goal)),
    )


def _optional(value: float | None) -> Cell:
    return Cell(NOTHING) if value is None else Cell(of_quantity(value), value)


def _remark(row: PracticalRow, *, to_goal: bool) -> str:
    purposes = {
        "most_accurate": "ends best",
        "fastest": f"fastest to the {'target' if to_goal else 'margin'}",
    }
    parts = [purposes[purpose] for purpose in row.purposes]
    if not row.within_margin:
        parts.append("not always at the target" if to_goal else "not within the margin")
    if row.fits is False:
        parts.append("takes more memory than allowed")
    return ", ".join(parts)
