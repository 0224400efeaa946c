"""Throughput and memory by batch size: of a history's trials, and of batch sizes that were tried."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import altair as alt
import numpy as np
import pandas as pd

from batchscope.analysis.results import Analysis
from batchscope.analysis.sizing import Sizing
from batchscope.analysis.sizing_words import memory_name
from batchscope.analysis.words import of_quantity, percent
from batchscope.report.encodings import batch_size_axis, batch_size_colour, inline, log_axis, tooltips
from batchscope.report.figure import Figure, Panels
from batchscope.report.words import Level, direction

__all__ = [
    "PaceInfo",
    "PacePanel",
    "pace_chart",
    "sizing_figure",
    "sizing_info",
    "throughput_figure",
    "throughput_info",
]

PANELS = Panels(columns=2, width=330, margin=84)
TOLERANCE = math.log(1.05)
"""Of the logarithm: throughputs within 5% of each other are not called a rise or a fall."""


@dataclass(frozen=True)
class PacePanel:
    """One plot.

    Attributes:
        title: Heads it.
        axis: What is shown, with its unit.
        points: Columns ``batch_size``, ``value``, ``low`` and ``high`` (NaN where there is no interval).
        proportional: Whether a line shows growth in proportion to the batch size, from the smallest on.
        limit: A level that cannot be passed; NaN for none.
    """

    title: str
    axis: str
    points: pd.DataFrame
    proportional: bool
    limit: float = math.nan


@dataclass(frozen=True)
class PaceInfo:
    """Numbers of a figure of throughput and memory.

    Attributes:
        batch_sizes: Of all panels.
        panels: Throughput by stage, then memory where it was measured.
        finding: What the title says is of this one.
        name: And is called so.
        caption: What is drawn.
    """

    batch_sizes: tuple[int, ...]
    panels: tuple[PacePanel, ...]
    finding: PacePanel
    name: str
    caption: str

    @property
    def title(self) -> str:
        """The finding: how throughput goes with batch size."""
        points = self.finding.points
        values = [float(value) for value in points["value"]]
        sizes = [int(size) for size in points["batch_size"]]
        pairs = zip(sizes, values, strict=True)
        way = direction([Level(size, math.log(value)) for size, value in pairs], TOLERANCE)
        low, high = int(np.argmin(values)), int(np.argmax(values))
        texts = [f"{of_quantity(value)} examples/s" for value in values]
        if way == "single":
            return f"{self.name} is {texts[0]} at batch {sizes[0]}"
        if way == "flat":
            return f"{self.name} hardly depends on batch size: {of_quantity(values[low])} to {texts[high]}"
        if way == "uneven":
            return (
                f"{self.name} is highest at batch {sizes[high]} ({texts[high]}) and lowest at batch "
                f"{sizes[low]} ({texts[low]})"
            )
        return f"{self.name} {way} from {texts[0]} at batch {sizes[0]} to {texts[-1]} at batch {sizes[-1]}"


def throughput_info(analysis: Analysis) -> PaceInfo | None:
    """Numbers of the figure of a history; None where nothing tells how fast trials trained."""
    rows = [row for row in analysis.throughput.rows if math.isfinite(row.examples_per_second.mean)]
    if not rows:
        return None
    panels, memory = [], []
    for stage in dict.fromkeys(row.stage for row in rows):
        own = [row for row in rows if row.stage == stage]
        paces = [(row.batch_size, row.examples_per_second) for row in own]
        name = stage.replace("_", " ")
        points = _points((size, one.mean, one.low, one.high) for size, one in paces)
        panels.append(PacePanel(name, "Examples per second", points, proportional=True))
        peaks = [(row.batch_size, row.peak_memory) for row in own if row.peak_memory is not None]
        if peaks:
            points = _points((size, one.mean / 1e6, one.low / 1e6, one.high / 1e6) for size, one in peaks)
            memory.append(PacePanel(name, "Peak memory (MB)", points, proportional=False))
    where = f" in {panels[-1].title}" if panels[-1].title else ""
    return PaceInfo(
        batch_sizes=analysis.facts.batch_sizes,
        panels=(*panels, *memory),
        finding=panels[-1],
        name=f"Throughput{where}",
        caption="Examples that a trial trains with in a second, without the first epoch of a stage: mean "
        f"over replicates with its {percent(analysis.facts.confidence)} t-interval. Dashed: in proportion to "
        f"batch size from the smallest on.{_MEMORY if memory else ''}",
    )


_MEMORY = " Then the most memory that a trial's process took by the end of the stage."


def sizing_info(found: Sizing) -> PaceInfo | None:
    """Numbers of the figure of batch sizes that were tried; None where none fits."""
    fits = [row for row in found.rows if row.pace is not None]
    if not fits:
        return None
    pace = _points((row.batch_size, row.pace.median, row.pace.low, row.pace.high) for row in fits if row.pace)
    panels = [PacePanel("Throughput", "Examples per second", pace, proportional=True)]
    for kind in dict.fromkeys(row.memory.kind for row in fits if row.memory is not None):
        uses = [(row.batch_size, row.memory) for row in fits if row.memory is not None]
        own = [(size, use) for size, use in uses if use.kind == kind]
        limit = own[0][1].limit
        name = memory_name(kind)
        panels.append(
            PacePanel(
                f"{name[0].upper()}{name[1:]}",
                "At the peak (MB)",
                _points((size, use.peak / 1e6, math.nan, math.nan) for size, use in own),
                proportional=False,
                limit=math.nan if limit is None else limit / 1e6,
            )
        )
    return PaceInfo(
        batch_sizes=tuple(row.batch_size for row in fits),
        panels=tuple(panels),
        finding=panels[0],
        name="Throughput",
        caption="Left: examples per second over a whole trial, median over blocks of updates with its "
        "interval; dashed, in proportion to batch size from the smallest on. Right: the most memory of the "
        "process; dashed, how much there is, where that is near.",
    )


def pace_chart(info: PaceInfo) -> alt.ConcatChart:
    """The panels, on logarithmic axes; those of one quantity have the same axis."""
    panels = [_panel(info, panel).properties(width=PANELS.width, height=240) for panel in info.panels]
    data = pd.concat(
        [panel.points.assign(panel=panel.title, quantity=panel.axis) for panel in info.panels],
        ignore_index=True,
    )
    return alt.concat(*panels, data=inline(data), columns=PANELS.columns, spacing=24)


def throughput_figure(info: PaceInfo, label: str = "J") -> Figure:
    """The throughput of a history with its finding."""
    return _figure(info, "throughput", label)


def sizing_figure(info: PaceInfo) -> Figure:
    """The throughput and memory of batch sizes that were tried, with the finding."""
    return _figure(info, "throughput-and-memory", "A")


def _figure(info: PaceInfo, key: str, label: str) -> Figure:
    return Figure(
        key=key,
        label=label,
        title=info.title,
        caption=info.caption,
        notes=(),
        chart=pace_chart(info),
        panels=PANELS,
    )


def _panel(info: PaceInfo, panel: PacePanel) -> alt.LayerChart | alt.FacetChart:
    alike = [one for one in info.panels if one.axis == panel.axis]
    held = [one.points[name] for one in alike for name in ("value", "low", "high")]
    limits = pd.Series([one.limit for one in alike])
    # A limit far off would press all that is measured together.
    near = limits[limits < 8 * max(float(one.points["value"].max()) for one in alike)]
    y = log_axis("value", panel.axis, pd.concat([*held, near]))
    base = (
        alt.Chart()
        .transform_filter((alt.datum.panel == panel.title) & (alt.datum.quantity == panel.axis))
        .encode(x=batch_size_axis(info.batch_sizes))
    )
    colour = batch_size_colour(info.batch_sizes, legend=False)
    tips = tooltips("batch_size", "value", "low", "high")
    layers = [
        base.mark_line(strokeWidth=1.25).encode(y=y),
        base.mark_rule(strokeWidth=2.5).encode(y="low:Q", y2="high:Q", color=colour),
        base.mark_circle(size=90, opacity=1).encode(y=y, color=colour, tooltip=tips),
    ]
    if panel.proportional and len(panel.points) > 1:
        layers.insert(0, _proportional(info, panel, y))
    if not near.empty and panel.limit in set(near):
        limit = pd.DataFrame({"value": [panel.limit]})
        layers.insert(0, alt.Chart(inline(limit)).mark_rule(strokeDash=[4, 3]).encode(y=y))
    return alt.layer(*layers).properties(title=panel.title)


def _proportional(info: PaceInfo, panel: PacePanel, y: alt.Y) -> alt.Chart:
    first = panel.points.iloc[0]
    ends = [int(first["batch_size"]), int(panel.points["batch_size"].max())]
    values = [float(first["value"]) * size / ends[0] for size in ends]
    table = pd.DataFrame({"batch_size": ends, "value": values})
    line: alt.Chart = (
        alt.Chart(inline(table))
        .mark_line(strokeWidth=1.25, strokeDash=[4, 3], clip=True)
        .encode(x=batch_size_axis(info.batch_sizes), y=y)
    )
    return line


def _points(rows: Iterable[tuple[int, float, float, float]]) -> pd.DataFrame:
    """With intervals as a whole or not at all."""
    table = pd.DataFrame(list(rows), columns=["batch_size", "value", "low", "high"])
    whole = np.isfinite(table["low"]) & np.isfinite(table["high"]) & (table["low"] > 0)
    table.loc[~whole, ["low", "high"]] = np.nan
    return table
