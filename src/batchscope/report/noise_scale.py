"""The gradient noise scale by batch size, beside the critical batch size, and over the course of training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import altair as alt
import numpy as np
import pandas as pd

from batchscope.analysis.gradient_findings import INTERVAL_OVER, rounded
from batchscope.analysis.noise_scale import NoiseScaleRow
from batchscope.analysis.results import Analysis
from batchscope.analysis.words import batch_sizes, percent
from batchscope.report.critical_lines import NOT_DRAWN, CriticalLines, critical_layers, critical_lines
from batchscope.report.encodings import (
    batch_size_axis,
    batch_size_colour,
    epoch_axis,
    hover_points,
    inline,
    tooltips,
)
from batchscope.report.facets import faceted
from batchscope.report.figure import Figure, Panels

__all__ = [
    "NoiseScaleInfo",
    "noise_course_figure",
    "noise_course_info",
    "noise_scale_chart",
    "noise_scale_figure",
    "noise_scale_info",
]

PANELS = Panels(columns=2, width=380, margin=72)
COURSE = Panels(columns=1, width=560, margin=78)
# Beyond the data on either side, as a factor.
_ROOM = 1.4


@dataclass(frozen=True)
class NoiseScaleInfo:
    """Numbers of the figures of the noise scale.

    Attributes:
        batch_sizes: Of the whole study.
        points: Columns ``panel`` and ``order`` (of the stage), ``stage``, ``batch_size``, ``epoch``,
            ``noise_scale``, ``low``, ``high`` (ends of the interval, inside the axis; NaN where there is
            none), ``open`` (whether the interval goes on beyond the axis) and ``replicates``.
        domain: Both ends of the logarithmic axis.
        confidence: Coverage of the intervals.
        over: What the intervals are over, in words; empty where there are none.
        critical: Critical batch sizes beside it; none over the course of training.
        notes: What is missing.
    """

    batch_sizes: tuple[int, ...]
    points: pd.DataFrame
    domain: tuple[float, float]
    confidence: float
    over: str
    critical: CriticalLines
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """The finding: the noise scale at the smallest and the largest batch size of the last stage.

        Behind it the critical batch size, where it is drawn.
        """
        return "; ".join(text for text in (self._scale, self.critical.finding) if text)

    @property
    def _scale(self) -> str:
        last = self.points[self.points["order"] == self.points["order"].max()].dropna(subset=["noise_scale"])
        if last.empty:
            return "The gradient noise scale is too large to be told"
        last = last.groupby("batch_size").tail(1)
        first, final = last.iloc[0], last.iloc[-1]
        text = f"The gradient noise scale is {rounded(first['noise_scale'])} at batch {first['batch_size']}"
        if final["batch_size"] != first["batch_size"]:
            text += f" and {rounded(final['noise_scale'])} at batch {final['batch_size']}"
        return f"{text} (end of {first['stage']})" if first["stage"] else text


def noise_scale_info(analysis: Analysis) -> NoiseScaleInfo | None:
    """Numbers at the end of each stage; None where none was measured."""
    return _info(analysis, analysis.noise_scale.ends, critical_lines(analysis))


def noise_course_info(analysis: Analysis) -> NoiseScaleInfo | None:
    """Numbers at every probed epoch; None where no batch size has more than one in a stage."""
    rows = analysis.noise_scale.rows
    return _info(analysis, rows, NOT_DRAWN) if len(rows) > len(analysis.noise_scale.ends) else None


def _info(
    analysis: Analysis, rows: tuple[NoiseScaleRow, ...], critical: CriticalLines
) -> NoiseScaleInfo | None:
    drawn = [row for row in rows if math.isfinite(row.noise_scale) or math.isfinite(row.low)]
    if not drawn:
        return None
    domain = _domain(drawn, critical)
    stages = list(dict.fromkeys(row.stage for row in drawn))
    points = pd.DataFrame(
        [
            {
                "panel": row.stage.replace("_", " "),
                "order": stages.index(row.stage),
                "stage": row.stage,
                "batch_size": row.batch_size,
                "epoch": row.epoch,
                "noise_scale": row.noise_scale,
                "low": float(np.clip(row.low, *domain)),
                "high": float(np.clip(row.high, *domain)),
                "open": row.unbounded,
                "replicates": row.n,
            }
            for row in drawn
        ]
    ).sort_values(["order", "batch_size", "epoch"], ignore_index=True)
    lost = sorted({row.batch_size for row in rows if not math.isfinite(row.noise_scale)})
    return NoiseScaleInfo(
        batch_sizes=analysis.facts.batch_sizes,
        points=points,
        domain=domain,
        confidence=analysis.facts.confidence,
        over=" or ".join(
            text for over, text in INTERVAL_OVER.items() if any(row.over == over for row in drawn)
        ),
        critical=critical,
        notes=(
            (f"At batch {batch_sizes(lost)} the gradient is not told from none somewhere: no point there.",)
            if lost
            else ()
        ),
    )


def noise_scale_chart(info: NoiseScaleInfo) -> alt.FacetChart:
    """The noise scale with its interval against batch size, and critical batch sizes from side to side.

    A dashed line shows where the noise scale equals the batch size.
    """
    base = alt.Chart().encode(x=batch_size_axis(info.batch_sizes))
    y, colour = _scale_axis(info.domain), batch_size_colour(info.batch_sizes, legend=False)
    ends = [min(info.batch_sizes), max(info.batch_sizes)]
    line = pd.DataFrame({"batch_size": ends, "noise_scale": ends}).assign(key=1)
    equal = alt.Chart(inline(line)).mark_line(strokeDash=[4, 3], strokeWidth=1.25)
    tips = tooltips("stage", "batch_size", "noise_scale", "low", "high", "replicates")
    opened = base.transform_filter(alt.FieldEqualPredicate(field="open", equal=True))
    layers = [
        *critical_layers(info.critical.drawn, _scale_axis(info.domain, "critical_batch_size")),
        equal.encode(x=batch_size_axis(info.batch_sizes), y=y),
        base.mark_rule(strokeWidth=2.5).encode(y="low:Q", y2="high:Q", color=colour),
        opened.mark_point(shape="triangle-up", size=70, filled=True, opacity=1).encode(
            y="high:Q", color=colour
        ),
        base.mark_circle(size=110, opacity=1).encode(y=y, color=colour, tooltip=tips),
    ]
    return faceted(layers, info.points, PANELS, 280)


def noise_scale_figure(info: NoiseScaleInfo, label: str) -> Figure:
    """The noise scale by batch size with its finding."""
    interval = f", with Fieller's {percent(info.confidence)} interval {info.over}" if info.over else ""
    told = (
        "Trace of the covariance of single examples' gradients over the squared norm of their mean, "
        f"at the end of each stage, where it is largest as a rule{interval}; a triangle marks one without "
        "an upper end. Dashed diagonal: where the noise scale equals the batch size."
    )
    return Figure(
        key="noise-scale",
        label=label,
        title=info.title,
        caption=" ".join([told, *info.critical.caption(info.points["stage"].nunique())]),
        notes=info.notes,
        chart=noise_scale_chart(info),
        panels=PANELS,
    )


def noise_course_figure(info: NoiseScaleInfo, label: str) -> Figure:
    """The noise scale over the course of training."""
    base = alt.Chart(inline(info.points)).encode(
        x=epoch_axis((0, int(info.points["epoch"].max()))),
        y=_scale_axis(info.domain),
        color=batch_size_colour(info.batch_sizes),
        detail="stage:N",
    )
    tips = hover_points(base, ("stage", "batch_size", "epoch", "noise_scale", "low", "high", "replicates"))
    line = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=40))
    return Figure(
        key="noise-scale-course",
        label=label,
        title=f"Over training: {info.title[0].lower()}{info.title[1:]}",
        caption="The gradient noise scale at every probed epoch: means over replicates of both its parts, "
        "then their ratio. Intervals are in the JSON.",
        notes=info.notes,
        chart=alt.layer(line, tips).properties(width=COURSE.width, height=280),
        panels=COURSE,
    )


def _domain(rows: list[NoiseScaleRow], critical: CriticalLines) -> tuple[float, float]:
    values = [row.noise_scale for row in rows] + [float(row.batch_size) for row in rows]
    values += [line.value for line in critical.drawn]
    # Ends of intervals that lie far away would press all else together.
    known = [value for value in values if math.isfinite(value) and value > 0]
    intervals = [(row.low, row.high) for row in rows] + [(line.low, line.high) for line in critical.drawn]
    lows = [low for low, _ in intervals if math.isfinite(low) and low > min(known) / 30]
    highs = [high for _, high in intervals if math.isfinite(high) and high < max(known) * 30]
    return min([*known, *lows]) / _ROOM, max([*known, *lows, *highs]) * _ROOM


def _scale_axis(domain: tuple[float, float], field: str = "noise_scale") -> alt.Y:
    return alt.Y(
        f"{field}:Q",
        title="Noise scale (examples, log scale)",
        scale=alt.Scale(type="log", domain=list(domain), nice=False),
        axis=alt.Axis(format=",~g", labelOverlap=True, tickCount=6),
    )
