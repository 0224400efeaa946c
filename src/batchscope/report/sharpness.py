"""Sharpness by batch size, after each stage."""

from __future__ import annotations

import math
from dataclasses import dataclass

import altair as alt
import pandas as pd

from batchscope.analysis.gradient_findings import rounded
from batchscope.analysis.results import Analysis, Estimate
from batchscope.analysis.words import percent
from batchscope.report.encodings import (
    batch_size_axis,
    batch_size_colour,
    inline,
    tooltips,
    value_axis,
    value_domain,
)
from batchscope.report.figure import Figure, Panels

__all__ = ["SharpnessInfo", "sharpness_chart", "sharpness_figure", "sharpness_info"]

PANELS = Panels(columns=2, width=380, margin=72)
_MEASURES = {"hessian_top": "Largest eigenvalue of the Hessian", "box": "Keskar's sharpness (percent)"}


@dataclass(frozen=True)
class SharpnessInfo:
    """Numbers of the figure.

    Attributes:
        batch_sizes: Of the whole study.
        points: Columns ``stage``, ``measure`` (``hessian_top`` or ``box``), ``batch_size``, ``value`` (mean
            over replicates), ``low``, ``high`` (ends of the t-interval, NaN below two replicates) and
            ``replicates``.
        confidence: Coverage of the intervals.
        unconverged: Measurements without largest eigenvalue.
    """

    batch_sizes: tuple[int, ...]
    points: pd.DataFrame
    confidence: float
    unconverged: int

    @property
    def title(self) -> str:
        """The finding: the measure at the smallest and the largest batch size of the last stage."""
        last = self.points[self.points["stage"] == self.points["stage"].iloc[-1]]
        one = last[last["measure"] == last["measure"].iloc[0]]
        name = "largest curvature" if one["measure"].iloc[0] == "hessian_top" else "sharpness"
        first, final = one.iloc[0], one.iloc[-1]
        text = f"The loss' {name} is {rounded(first['value'])} at batch {first['batch_size']}"
        if final["batch_size"] != first["batch_size"]:
            text += f" and {rounded(final['value'])} at batch {final['batch_size']}"
        return text + (f" (end of {first['stage']})" if first["stage"] else "")


def sharpness_info(analysis: Analysis) -> SharpnessInfo | None:
    """Numbers of the figure; None where sharpness was not measured."""
    rows = [
        (row.stage, measure, row.batch_size, found.mean, found.low, found.high, found.n)
        for row in analysis.sharpness.ends
        for measure, found in (("hessian_top", row.hessian_top), ("box", row.box))
        if _drawn(found)
    ]
    if not rows:
        return None
    columns = ["stage", "measure", "batch_size", "value", "low", "high", "replicates"]
    return SharpnessInfo(
        batch_sizes=analysis.facts.batch_sizes,
        points=pd.DataFrame(rows, columns=columns),
        confidence=analysis.facts.confidence,
        unconverged=sum(row.n_unconverged for row in analysis.sharpness.ends),
    )


def sharpness_chart(info: SharpnessInfo) -> alt.ConcatChart:
    """A panel for each stage and measure: means with their intervals."""
    panels = [
        _panel(info, stage, measure)
        for stage in info.points["stage"].unique()
        for measure in _MEASURES
        if ((info.points["stage"] == stage) & (info.points["measure"] == measure)).any()
    ]
    return alt.concat(*panels, data=inline(info.points), columns=PANELS.columns, spacing=24)


def sharpness_figure(info: SharpnessInfo, label: str) -> Figure:
    """Sharpness by batch size with its finding."""
    return Figure(
        key="sharpness",
        label=label,
        title=info.title,
        caption="Of the training loss at the end of each stage, in the stage's mode: its largest curvature, "
        "and how far it rises within a thousandth of the weights around them, in percent of 1 + loss. Means "
        f"over replicates with {percent(info.confidence)} t-intervals.",
        notes=(
            (f"In {info.unconverged} trials the largest eigenvalue was not found.",)
            if info.unconverged
            else ()
        ),
        chart=sharpness_chart(info),
        panels=PANELS,
    )


def _drawn(found: Estimate) -> bool:
    return math.isfinite(found.mean)


def _panel(info: SharpnessInfo, stage: str, measure: str) -> alt.LayerChart | alt.FacetChart:
    here = info.points[(info.points["stage"] == stage) & (info.points["measure"] == measure)]
    base = (
        alt.Chart()
        .transform_filter((alt.datum["stage"] == stage) & (alt.datum["measure"] == measure))
        .encode(x=batch_size_axis(info.batch_sizes))
    )
    # As wide as the means need: an interval from two replicates may be a hundred times as long.
    values = here["value"]
    room = 2 * (values.max() - values.min()) + 0.5 * values.abs().max()
    low = here["low"].clip(lower=min(values.min() - room, 0.0))
    high = here["high"].clip(upper=values.max() + room)
    domain = value_domain(pd.concat([values, low, high, pd.Series([0.0])]), "curvature")
    colour = batch_size_colour(info.batch_sizes, legend=False)
    tips = tooltips("stage", "batch_size", "value", "low", "high", "replicates")
    y = value_axis("value", _MEASURES[measure], domain)
    bar = base.mark_rule(strokeWidth=2.5, clip=True).encode(y="low:Q", y2="high:Q", color=colour)
    line = base.mark_line(strokeWidth=1.25).encode(y=y)
    dot = base.mark_circle(size=110, opacity=1).encode(y=y, color=colour, tooltip=tips)
    title = _MEASURES[measure] if not stage else f"{stage.replace('_', ' ')}"
    return alt.layer(line, bar, dot).properties(width=PANELS.width, height=250, title=title)
