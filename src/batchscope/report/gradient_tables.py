"""Tables of what probes found of gradients and curvature."""

from __future__ import annotations

import math

from batchscope.analysis.gradient_findings import INTERVAL_OVER, rounded
from batchscope.analysis.noise_scale import NoiseScaleRow
from batchscope.analysis.results import Analysis, Estimate
from batchscope.analysis.words import percent
from batchscope.report.table import NOTHING, Cell, Table, figure_cell, whole_cell

__all__ = ["noise_scale_table", "sharpness_table"]


def noise_scale_table(analysis: Analysis) -> Table:
    """The gradient noise scale at the end of each stage; no rows where it was not measured."""
    return Table(
        key="noise-scale",
        title="Gradient noise scale",
        note="Covariance's trace over squared norm, both means over replicates, with Fieller's "
        f"{percent(analysis.facts.confidence)} interval, at the end of each stage, where it is largest as a "
        "rule. An interval without an upper end says that the mean gradient is hardly told from none.",
        columns=("Stage", "Epoch", "Batch size", "Noise scale", "Squared norm", "Trace", "Remark"),
        rows=tuple(
            (
                Cell(row.stage),
                whole_cell(row.epoch),
                Cell(f"{row.batch_size:,}", float(row.batch_size), f"n = {row.n}"),
                _scale_cell(row),
                figure_cell(row.norm2, _short),
                figure_cell(row.trace, _short),
                Cell(_remark(row)),
            )
            for row in analysis.noise_scale.ends
        ),
    )


def sharpness_table(analysis: Analysis) -> Table:
    """Sharpness at the end of each stage; no rows where it was not measured."""
    return Table(
        key="sharpness",
        title="Sharpness",
        note=f"Means over replicates with {percent(analysis.facts.confidence)} t-intervals, at the end of "
        "each stage: the largest eigenvalue of the loss' Hessian, and Keskar's measure in percent. "
        "Comparable between batch sizes of one stage, not between networks or stages.",
        columns=("Stage", "Epoch", "Batch size", "Largest eigenvalue", "Keskar's sharpness", "Remark"),
        rows=tuple(
            (
                Cell(row.stage),
                whole_cell(row.epoch),
                Cell(f"{row.batch_size:,}", float(row.batch_size), f"n = {row.box.n}"),
                _estimate_cell(row.hessian_top),
                _estimate_cell(row.box),
                Cell(f"{row.n_unconverged} not converged" if row.n_unconverged else ""),
            )
            for row in analysis.sharpness.ends
        ),
    )


def _scale_cell(row: NoiseScaleRow) -> Cell:
    ends = ""
    if math.isfinite(row.low):
        ends = f"{rounded(row.low)} up" if row.unbounded else f"{rounded(row.low)} to {rounded(row.high)}"
    if not math.isfinite(row.noise_scale):
        return Cell(NOTHING, None, ends)
    return Cell(rounded(row.noise_scale), row.noise_scale, ends)


def _remark(row: NoiseScaleRow) -> str:
    if not math.isfinite(row.noise_scale):
        return "gradient not told from none"
    if row.over is None:
        return "no interval from one replicate"
    return f"interval {INTERVAL_OVER[row.over]}"


def _estimate_cell(found: Estimate) -> Cell:
    if not math.isfinite(found.mean):
        return Cell(NOTHING)
    ends = f"{rounded(found.low)} to {rounded(found.high)}" if math.isfinite(found.low) else ""
    return Cell(rounded(found.mean), found.mean, ends)


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "\u2212")
