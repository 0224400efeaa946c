"""The table of what each batch size is good for."""

from __future__ import annotations

from batchscope.analysis.practical import PracticalRow
from batchscope.analysis.results import Analysis
from batchscope.analysis.sizing_words import size_text
from batchscope.analysis.words import number, of_quantity, quantity_name
from batchscope.report.table import NOTHING, Cell, Table, figure_cell, whole_cell

__all__ = ["practical_table"]

_PURPOSES = {"most_accurate": "ends best", "fastest": "fastest to the margin"}


def practical_table(analysis: Analysis) -> Table:
    """What each batch size is good for; no rows where the history tells neither time nor memory."""
    rows = analysis.practical
    known = any(row.seconds is not None or row.peak_memory is not None for row in rows)
    priced = any(row.price is not None for row in rows)
    name = quantity_name(analysis.facts.metric)
    return Table(
        key="practical",
        title="Which batch size for what",
        note=f"Mean {name} at the end, seconds of training until it stays within "
        f"{analysis.facts.margin:g} of the best, and the most memory that any of its trials' processes took. "
        f"{_of_prices(analysis) if priced else ''}Whether differences are real, the verdict says.",
        columns=(
            "Batch size",
            name[0].upper() + name[1:],
            "Seconds",
            *(("Price",) if priced else ()),
            "Peak memory",
            "Remark",
        ),
        rows=tuple(_row(row, priced=priced) for row in rows) if known else (),
    )


def _of_prices(analysis: Analysis) -> str:
    """What prices hold, and how many trials shared the machine where that is known."""
    text = "The price is that of the whole machine for these seconds, without evaluation and probes"
    most = max((way.workers for way in analysis.throughput.layouts), default=1)
    if most > 1:
        text += f"; up to {most} trials ran side by side on it, so it is up to {most} times a trial's share"
    return f"{text}. "


def _row(row: PracticalRow, *, priced: bool) -> tuple[Cell, ...]:
    return (
        whole_cell(row.batch_size),
        figure_cell(row.metric, number),
        _optional(row.seconds),
        *((_optional(row.price),) if priced else ()),
        Cell(NOTHING)
        if row.peak_memory is None
        else Cell(size_text(int(row.peak_memory)), float(row.peak_memory)),
        Cell(_remark(row)),
    )


def _optional(value: float | None) -> Cell:
    return Cell(NOTHING) if value is None else Cell(of_quantity(value), value)


def _remark(row: PracticalRow) -> str:
    parts = [_PURPOSES[purpose] for purpose in row.purposes]
    if not row.within_margin:
        parts.append("not within the margin")
    if row.fits is False:
        parts.append("takes more memory than allowed")
    return ", ".join(parts)
