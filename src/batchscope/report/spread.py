"""How far replicates lie apart, by batch size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import altair as alt
import pandas as pd

from batchscope.analysis.results import Analysis
from batchscope.analysis.words import p_value, quantity_name
from batchscope.report.encodings import (
    batch_size_axis,
    batch_size_colour,
    inline,
    tooltips,
    value_axis,
    value_domain,
)
from batchscope.report.figure import Figure, Panels
from batchscope.report.words import Level, direction, level_sentence

__all__ = ["SpreadInfo", "spread_chart", "spread_figure", "spread_info"]

PANELS = Panels(columns=1, width=560, margin=78)
TOLERANCE = 0.001
"""Standard deviations closer than a tenth of a point are not called a rise or a fall."""
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class SpreadInfo:
    """Numbers of the spread's figure.

    Attributes:
        batch_sizes: Of the whole study.
        quantity: ``val_accuracy`` or ``val_loss``.
        when: Where it is measured, for brackets.
        points: Columns ``batch_size``, ``sd``, ``replicates`` and ``none`` (zero, where a stem
            starts).
        factor_per_doubling: By how much the spread multiplies when the batch size doubles; NaN
            where it cannot be told.
        p: Of Brown and Forsythe's test that the spreads are equal; NaN where there is none.
        notes: What is missing.
    """

    batch_sizes: tuple[int, ...]
    quantity: str
    when: str
    points: pd.DataFrame
    factor_per_doubling: float
    p: float
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """The finding: how the spread goes with batch size, and whether chance could do it."""
        pairs = zip(self.points["batch_size"], self.points["sd"], strict=True)
        levels = [Level(int(size), float(sd)) for size, sd in pairs]
        name = f"The spread between replicates in {quantity_name(self.quantity)}"
        told = level_sentence(name, levels, f"({self.when})", TOLERANCE)
        if direction(levels, TOLERANCE) in ("single", "flat") or not math.isfinite(self.p):
            return told
        return told if self.p < SIGNIFICANT else f"{told}, as chance alone could make it ({p_value(self.p)})"


def spread_info(analysis: Analysis) -> SpreadInfo | None:
    """Numbers of the spread's figure; None where no batch size has two finite replicates."""
    spread = analysis.spread
    rows = [(row.batch_size, row.sd, row.n, 0.0) for row in spread.rows if math.isfinite(row.sd)]
    if not rows:
        return None
    return SpreadInfo(
        batch_sizes=analysis.facts.batch_sizes,
        quantity=spread.quantity,
        when=analysis.facts.when_short,
        points=pd.DataFrame(rows, columns=["batch_size", "sd", "replicates", "none"]),
        factor_per_doubling=spread.factor_per_doubling,
        p=spread.p,
        notes=() if spread.reason is None else (f"{_sentence(spread.reason)}",),
    )


def spread_chart(info: SpreadInfo) -> alt.LayerChart | alt.FacetChart:
    """Standard deviation against batch size, as stems from zero."""
    top = value_domain(pd.concat([info.points["sd"], pd.Series([0.0])]), "loss")
    base = alt.Chart().encode(
        x=batch_size_axis(info.batch_sizes), color=batch_size_colour(info.batch_sizes, legend=False)
    )
    y = value_axis("sd", f"Standard deviation of {quantity_name(info.quantity)}", top)
    stem = base.mark_rule(strokeWidth=3).encode(y=y, y2="none:Q")
    dot = base.mark_circle(size=130, opacity=1).encode(
        y=y, tooltip=tooltips("batch_size", "sd", "replicates")
    )
    return alt.layer(stem, dot, data=inline(info.points)).properties(width=PANELS.width, height=240)


def spread_figure(info: SpreadInfo, label: str = "G") -> Figure:
    """The spread between replicates with its finding."""
    caption = f"Standard deviation between replicates of {quantity_name(info.quantity)}."
    if math.isfinite(info.factor_per_doubling):
        caption += f" It multiplies by {info.factor_per_doubling:.2f} when the batch size doubles."
    if math.isfinite(info.p):
        caption += f" Brown and Forsythe's test that all are equal: {p_value(info.p)}."
    return Figure(
        key="spread",
        label=label,
        title=info.title,
        caption=caption,
        notes=info.notes,
        chart=spread_chart(info),
        panels=PANELS,
    )


def _sentence(reason: str) -> str:
    return f"{reason[:1].upper()}{reason[1:].rstrip('.')}."
