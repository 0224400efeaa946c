"""How sharp the loss is around the weights, by batch size, where probes measured it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from batchscope.analysis.estimates import Estimate
from batchscope.analysis.moments import estimate
from batchscope.analysis.panel import Panel
from batchscope.analysis.probed import ProbedCell, probed_cells, stage_ends

__all__ = ["Sharpness", "SharpnessRow", "sharpness_rows"]

_TOP, _BOX = "probe_hessian_top", "probe_sharpness"


@dataclass(frozen=True)
class SharpnessRow:
    """One batch size at one probed epoch.

    Attributes:
        epoch: Counted on through the stages.
        stage: That the epoch belongs to.
        batch_size: Examples per update.
        ends_stage: Whether this row stands for the end of its stage, see
            `batchscope.analysis.probed.probed_cells`.
        hessian_top: Largest eigenvalue of the loss' Hessian.
        box: Keskar's measure: the loss' rise in a small box around the weights, in percent of 1 + loss.
        n_unconverged: Trials that have the one and whose largest eigenvalue was not found.
    """

    epoch: int
    stage: str
    batch_size: int
    ends_stage: bool
    hessian_top: Estimate
    box: Estimate
    n_unconverged: int


@dataclass(frozen=True)
class Sharpness:
    """Sharpness wherever it was measured.

    Attributes:
        rows: By epoch, then batch size: every probed epoch. Empty where it was not measured.
        reason: Why there are no rows; None where there are.
    """

    rows: tuple[SharpnessRow, ...]
    reason: str | None

    @property
    def ends(self) -> tuple[SharpnessRow, ...]:
        """The rows that stand for the end of a stage, by stage, then batch size."""
        return stage_ends(self.rows)


def sharpness_rows(panel: Panel, confidence: float) -> Sharpness:
    """Means and t-intervals over replicates at every probed epoch.

    Args:
        panel: The whole history.
        confidence: Coverage of the intervals.
    """
    missing = [name for name in (_TOP, _BOX) if name not in panel.probes]
    if missing:
        return Sharpness((), f"sharpness needs the column {' and '.join(missing)}")
    complete = np.isfinite(panel.probes[_BOX])
    rows = tuple(_row(panel, cell, confidence) for cell in probed_cells(panel, complete))
    return Sharpness(rows, None if rows else "no trial has a finite figure of its sharpness")


def _row(panel: Panel, cell: ProbedCell, confidence: float) -> SharpnessRow:
    top = cell.of(panel.probes[_TOP])
    return SharpnessRow(
        epoch=cell.epoch,
        stage=cell.stage,
        batch_size=cell.batch_size,
        ends_stage=cell.ends_stage,
        hessian_top=estimate(top, confidence),
        box=estimate(cell.of(panel.probes[_BOX]), confidence),
        n_unconverged=int((~np.isfinite(top)).sum()),
    )
