"""Updates and examples to a target against batch size, beside perfect scaling and the fitted curve."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import altair as alt
import numpy as np
import pandas as pd

from batchscope.analysis.results import Analysis
from batchscope.analysis.to_target_findings import (
    bounds_text,
    goal,
    misfit_text,
    no_median_text,
    scaling_text,
)
from batchscope.analysis.to_target_results import CriticalBatchSize, PerfectScaling, UpdatesToTarget
from batchscope.analysis.words import count, of_quantity
from batchscope.report.curves import POINTS
from batchscope.report.encodings import (
    batch_size_axis,
    batch_size_colour,
    count_axis,
    inline,
    tooltips,
)
from batchscope.report.figure import Figure, Panels

__all__ = ["ToTargetInfo", "to_target_chart", "to_target_figure", "to_target_infos"]

PANELS = Panels(columns=2, width=380, margin=88)
MEDIANS, PERFECT, FITTED = "medians", "perfect scaling", "fitted curve"
_DASHES = {MEDIANS: [1, 0], PERFECT: [2, 3], FITTED: [8, 3]}
_CURVE_POINTS = 60

Cost = Literal["updates", "examples"]
COSTS: tuple[Cost, ...] = ("updates", "examples")


@dataclass(frozen=True)
class ToTargetInfo:
    """Numbers of one target's figure; examples are updates times batch size.

    Attributes:
        target: For example ``a validation accuracy of 0.850``.
        batch_sizes: Of the whole study.
        points: Columns ``cost`` (``updates`` or ``examples``), ``batch_size``, ``learning_rate``,
            ``replicate``, ``outcome`` (``reached`` or ``censored``) and ``value``, a row for each trial at
            its batch size's best learning rate; a censored trial stands at what it has taken so far.
            None where there are too many to draw.
        lines: Columns ``cost``, ``line`` (``medians``, ``perfect scaling`` or ``fitted curve``),
            ``batch_size`` and ``value``.
        no_median: The finding where no batch size has one.
        scaling: How far updates are known to keep to perfect scaling.
        critical: The critical batch size, determined or not.
        confidence: Of its interval.
        notes: What is left out.
    """

    target: str
    batch_sizes: tuple[int, ...]
    points: pd.DataFrame
    lines: pd.DataFrame
    no_median: str
    scaling: PerfectScaling
    critical: CriticalBatchSize
    confidence: float
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """The finding: how far updates keep to perfect scaling, and the critical batch size."""
        if self.scaling.batch_size is None:
            return self.no_median
        text = scaling_text(self.scaling, f"updates to {self.target}")
        if self.critical.status == "determined":
            bounds = bounds_text(self.critical.batch_size, self.confidence)
            text += f"; the critical batch size is {of_quantity(self.critical.batch_size.value)} ({bounds})"
        return text[0].upper() + text[1:]


def to_target_infos(analysis: Analysis) -> tuple[ToTargetInfo, ...]:
    """Numbers of the figures, one for each target that was asked for and has anything to draw."""
    found = (_info(target, analysis) for target in analysis.updates_to_target)
    return tuple(info for info in found if info is not None)


def to_target_chart(info: ToTargetInfo) -> alt.ConcatChart:
    """A panel of updates and one of examples, on logarithmic axes."""
    panels = [_panel(info, cost) for cost in COSTS]
    return alt.concat(*panels, data=inline(info.points), columns=PANELS.columns, spacing=24)


def to_target_figure(info: ToTargetInfo, number: int, label: str) -> Figure:
    """One target's figure with its finding.

    Args:
        info: Its numbers.
        number: Of the target, from 1.
        label: What the figure is called.
    """
    told = (
        f"What it took to reach {info.target}, each batch size at the learning rate with the least median of "
        "updates (over the replicates that all of its rates share). Points: trials; solid line: medians, "
        "where enough trials got there; dots: perfect scaling from the smallest batch size."
    )
    parts = [told]
    if (info.points["outcome"] == "censored").any():
        parts.append(
            "Open triangles: trials that have not got there, ended or still running; they stand at their "
            "last updates, and so lie higher."
        )
    if info.critical.reason is None:
        parts.append(
            "Long dashes: the curve S = S_min (1 + B_crit / B); vertical line and band: the critical batch "
            f"size B_crit and its interval.{misfit_text(info.critical)}"
        )
    else:
        parts.append(f"The critical batch size is not determined: {info.critical.reason}.")
    return Figure(
        key=f"updates-to-target-{number}",
        label=label,
        title=info.title,
        caption=" ".join(parts),
        notes=info.notes,
        chart=to_target_chart(info),
        panels=PANELS,
    )


def _info(found: UpdatesToTarget, analysis: Analysis) -> ToTargetInfo | None:
    if found.scaling is None or found.critical is None:
        return None
    points = pd.DataFrame(
        [
            (cost, one.batch_size, one.learning_rate, one.replicate, one.outcome, value)
            for cost in COSTS
            for one in found.best_trials
            for value in [one.updates * (one.batch_size if cost == "examples" else 1)]
            if one.outcome != "diverged" and value > 0
        ],
        columns=["cost", "batch_size", "learning_rate", "replicate", "outcome", "value"],
    )
    lines = _lines(found, found.scaling, found.critical)
    if points.empty and lines.empty:
        return None
    return ToTargetInfo(
        target=goal(found),
        batch_sizes=analysis.facts.batch_sizes,
        points=points if len(points) <= POINTS else points.iloc[:0],
        lines=lines,
        no_median=no_median_text(found),
        scaling=found.scaling,
        critical=found.critical,
        confidence=analysis.facts.confidence,
        notes=_notes(found.critical),
    )


def _lines(found: UpdatesToTarget, scaling: PerfectScaling, critical: CriticalBatchSize) -> pd.DataFrame:
    known = [row for row in found.best if row.updates.value > 0]
    rows: list[tuple[str, float, float]] = [(MEDIANS, row.batch_size, row.updates.value) for row in known]
    if scaling.batch_size is not None:
        first, last = scaling.batch_size, max(row.batch_size for row in found.best)
        rows += [(PERFECT, size, scaling.updates * first / size) for size in dict.fromkeys((first, last))]
    if critical.status == "determined":
        ends = [row.batch_size for row in found.best]
        updates, size = critical.updates_min.value, critical.batch_size.value
        places = np.geomspace(min(ends), max(ends), _CURVE_POINTS)
        rows += [(FITTED, at, updates * (1 + size / at)) for at in places]
    table = pd.DataFrame(rows, columns=["line", "batch_size", "value"])
    examples = table.assign(value=table["value"] * table["batch_size"])
    return pd.concat([table.assign(cost="updates"), examples.assign(cost="examples")], ignore_index=True)


def _notes(critical: CriticalBatchSize) -> tuple[str, ...]:
    if not critical.n_diverged:
        return ()
    return (f"{count(critical.n_diverged, 'trial')} diverged before the target and cannot be drawn.",)


def _panel(info: ToTargetInfo, cost: Cost) -> alt.LayerChart | alt.FacetChart:
    points, lines = (table[table["cost"] == cost] for table in (info.points, info.lines))
    x = batch_size_axis(info.batch_sizes)
    shown = pd.concat([points["value"], lines["value"]])
    y = count_axis("value", f"{cost.capitalize()} to the target", shown)
    present = [name for name in _DASHES if (lines["line"] == name).any()]
    dash = alt.StrokeDash(
        "line:N",
        scale=alt.Scale(domain=present, range=[_DASHES[name] for name in present]),
        legend=alt.Legend(title=None, symbolSize=700),
    )
    drawn = alt.Chart(inline(lines)).mark_line(strokeWidth=1.75).encode(x=x, y=y, strokeDash=dash)
    tips = tooltips("batch_size", "learning_rate", "replicate", "value")
    base = (
        alt.Chart()
        .transform_filter(alt.FieldEqualPredicate(field="cost", equal=cost))
        .encode(x=x, y=y, color=batch_size_colour(info.batch_sizes, legend=False), tooltip=tips)
    )
    reached = base.transform_filter(alt.FieldEqualPredicate(field="outcome", equal="reached"))
    censored = base.transform_filter(alt.FieldEqualPredicate(field="outcome", equal="censored"))
    layered = alt.layer(
        *_critical_layers(info.critical),
        drawn,
        reached.mark_point(filled=True, shape="circle", size=60, opacity=0.85),
        censored.mark_point(filled=False, shape="triangle-up", size=80, strokeWidth=2, opacity=1),
    )
    return layered.properties(width=PANELS.width, height=300)


def _critical_layers(critical: CriticalBatchSize) -> list[alt.Chart]:
    """The critical batch size as a line with its name, in a band of its interval."""
    found = critical.batch_size
    if not math.isfinite(found.value):
        return []
    table = pd.DataFrame(
        {"batch_size": [found.value], "low": [found.low], "high": [found.high], "name": ["B_crit"]}
    )
    base = alt.Chart(inline(table))
    band = base.mark_rect(opacity=0.15, clip=True).encode(x="low:Q", x2="high:Q")
    rule = base.mark_rule(strokeWidth=1.25, clip=True).encode(x="batch_size:Q")
    label = base.mark_text(align="left", baseline="top", dx=4, dy=2, clip=True)
    return [band, rule, label.encode(x="batch_size:Q", y=alt.value(0), text="name:N")]
