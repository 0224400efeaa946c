"""Tables of throughput and memory, for the page and for the terminal alike."""

from __future__ import annotations

import math

from batchscope.analysis.estimates import Estimate
from batchscope.analysis.results import Analysis
from batchscope.analysis.sizing import MARGIN, Pace, SizedStage, Sizing, SizingRow
from batchscope.analysis.sizing_words import memory_name, size_text
from batchscope.analysis.words import of_quantity, percent
from batchscope.records import MemoryUse
from batchscope.report.table import NOTHING, Cell, Table, figure_cell, whole_cell

__all__ = ["sizing_tables", "throughput_table"]


def throughput_table(analysis: Analysis) -> Table:
    """How fast trials trained; no rows where nothing tells."""
    return Table(
        key="throughput",
        title="Throughput",
        note=f"Mean over replicates with its {percent(analysis.facts.confidence)} t-interval, without each "
        "trial's first epoch of a stage where there are others. Peak memory: the most that a trial's process "
        "took by the end of the stage.",
        columns=("Stage", "Batch size", "Replicates", "Examples/s", "ms an update", "Peak memory"),
        rows=tuple(
            (
                Cell(row.stage),
                whole_cell(row.batch_size),
                whole_cell(row.examples_per_second.n),
                _estimate(row.examples_per_second),
                Cell("") if row.seconds_per_update is None else _estimate(row.seconds_per_update, 1000),
                Cell("") if row.peak_memory is None else _size(row.peak_memory),
            )
            for row in analysis.throughput.rows
        ),
    )


def sizing_tables(found: Sizing) -> tuple[Table, ...]:
    """What was tried, and by stage what was measured."""
    overall = Table(
        key="batch-sizes",
        title="Batch sizes that were tried",
        note="Examples per second over a whole trial, with the median's 95% interval, as if blocks were "
        "independent, which follow each other in time; growth against half the batch size, where 2 is "
        f"perfect; memory at the peak. What takes at most {percent(MARGIN)} of what there is leaves room; "
        "that says nothing of speed or accuracy.",
        columns=("Batch size", "Examples/s", "Growth", "Peak memory", "Of what there is", "Remark"),
        rows=tuple(_overall(found, row) for row in found.rows),
    )
    stages = Table(
        key="stages",
        title="By stage",
        note="Median over blocks of updates, with quartiles; memory at the peak, and what it grew by since "
        "the process was set up.",
        columns=("Stage", "Batch size", "Blocks", "ms an update", "Examples/s", "Kind", "Peak", "Grown by"),
        rows=tuple(
            _of_stage(row.batch_size, stage, use)
            for name in dict.fromkeys(stage.stage for row in found.rows for stage in row.stages)
            for row in found.rows
            for stage in row.stages
            if stage.stage == name
            for use in (stage.memory or (None,))
        ),
    )
    return (overall, stages) if stages.rows else (overall,)


def _overall(found: Sizing, row: SizingRow) -> tuple[Cell, ...]:
    use = row.memory
    known = use is not None and use.limit is not None
    return (
        whole_cell(row.batch_size),
        Cell(NOTHING) if row.pace is None else _pace(row.pace),
        figure_cell(row.growth, lambda growth: f"{growth:.2f}"),
        Cell(NOTHING) if use is None else Cell(size_text(use.peak), float(use.peak), memory_name(use.kind)),
        figure_cell(use.share, percent) if use is not None and known else Cell(NOTHING),
        Cell(_remark(found, row)),
    )


def _remark(found: Sizing, row: SizingRow) -> str:
    if row.reason is not None:
        return f"does not fit: {row.reason}"
    named = (
        ("largest that leaves room", found.largest_with_room),
        ("fastest", found.fastest),
        ("as fast as any larger one", found.saturated),
        ("doubling pays up to here", found.doubling_pays_to),
    )
    return ", ".join(text for text, size in named if size == row.batch_size)


def _of_stage(batch_size: int, stage: SizedStage, use: MemoryUse | None) -> tuple[Cell, ...]:
    quartiles = f"{_milliseconds(stage.lower)} to {_milliseconds(stage.upper)}"
    of_memory = (Cell(NOTHING), Cell(NOTHING), Cell(NOTHING))
    if use is not None:
        grown = use.peak - use.idle
        of_memory = (
            Cell(memory_name(use.kind)),
            Cell(size_text(use.peak), float(use.peak)),
            Cell(size_text(grown), float(grown)),
        )
    return (
        Cell(stage.stage),
        whole_cell(batch_size),
        Cell(str(stage.blocks), float(stage.blocks), f"of {stage.block:,}"),
        Cell(_milliseconds(stage.seconds), stage.seconds, quartiles),
        _pace(stage.pace),
        *of_memory,
    )


def _milliseconds(seconds: float) -> str:
    return of_quantity(1000 * seconds)


def _pace(pace: Pace) -> Cell:
    high = of_quantity(pace.high) if math.isfinite(pace.high) else "more"
    return Cell(of_quantity(pace.median), pace.median, f"{of_quantity(pace.low)} to {high}")


def _estimate(found: Estimate, factor: float = 1.0) -> Cell:
    if not math.isfinite(found.mean):
        return Cell(NOTHING)
    low, high = (of_quantity(factor * end) for end in (found.low, found.high))
    detail = f"{low} to {high}" if math.isfinite(found.low) else ""
    return Cell(of_quantity(factor * found.mean), found.mean, detail)


def _size(found: Estimate) -> Cell:
    if not math.isfinite(found.mean):
        return Cell(NOTHING)
    detail = f"{size_text(round(found.low))} to {size_text(round(found.high))}" if found.n > 1 else ""
    return Cell(size_text(round(found.mean)), found.mean, detail)
