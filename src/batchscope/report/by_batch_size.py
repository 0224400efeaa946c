"""Figure D: training and validation against batch size, late and at the end."""

from __future__ import annotations

from dataclasses import dataclass

import altair as alt
import numpy as np
import pandas as pd

from batchscope.analysis.results import StudyFacts
from batchscope.report.curves import PARTS, POINTS, Measure, curve_points, diverged_note
from batchscope.report.encodings import (
    batch_size_axis,
    batch_size_colour,
    inline,
    part_dash,
    tooltips,
    value_axis,
    value_domain,
)
from batchscope.report.figure import Figure, Panels
from batchscope.report.moments import Moment, late_moments
from batchscope.report.words import Level, direction_phrase

__all__ = ["ByBatchSizeInfo", "by_batch_size_chart", "by_batch_size_figure", "by_batch_size_info"]

PANELS = Panels(columns=2, width=380, margin=72)
POINTS_ABOVE = 30
"""Above so many replicates of a batch size their range is drawn instead of each one."""


@dataclass(frozen=True)
class ByBatchSizeInfo:
    """Numbers of figure D.

    Attributes:
        measure: ``accuracy`` or ``loss``.
        batch_sizes: Of the whole study.
        moments: At most two, in the order of training.
        points: Columns ``moment`` (from 1), ``batch_size``, ``replicate``, ``epoch``, ``part``,
            ``value``.
        means: Columns ``moment``, ``batch_size``, ``epoch``, ``part``, ``value``, ``low``, ``high``
            (range over replicates), ``replicates``.
        ranged: Whether the range over replicates is drawn instead of each of them.
        levels: Mean by batch size at each of `moments`, of validation where the history has it.
        part: Which part `levels` tells of.
        notes: What is left out.
    """

    measure: Measure
    batch_sizes: tuple[int, ...]
    moments: tuple[Moment, ...]
    points: pd.DataFrame
    means: pd.DataFrame
    ranged: bool
    levels: tuple[tuple[Level, ...], ...]
    part: str
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """The finding: how it goes with batch size at each moment, and whether that changes.

        None where trials end at a target of it.
        """
        told = [
            (*direction_phrase(levels), f"at {moment.when}")
            for moment, levels in zip(self.moments, self.levels, strict=True)
            if levels
        ]
        name = f"{self.part.capitalize()} {self.measure}"
        target = self.moments[-1].target_of(self.part, self.measure)
        if target:
            return f"{name} where trials end: at {target}, or where they missed it"
        if not told:
            return f"{name} has no finite figure at {self.moments[-1].when}"
        first_verb, first_figures, first_when = told[0]
        text = f"{name} {first_verb} {first_when} ({first_figures})"
        if len(told) == 1:
            return text
        verb, figures, when = told[1]
        joint = "and" if verb == first_verb else f"but {verb}"
        return f"{text} {joint} {when} ({figures})"


def by_batch_size_info(
    history: pd.DataFrame, measure: Measure, facts: StudyFacts | None = None
) -> ByBatchSizeInfo:
    """Numbers of figure D: at the first epoch from three quarters of the way on, and at the end.

    Args:
        history: In standard form, see `batchscope.history.check_history`.
        measure: Both parts are taken where the history has them.
        facts: Of the history's analysis; None where there is none.
    """
    every = curve_points(history, measure)
    moments = late_moments(history, facts)
    found = [moment.of(every).assign(moment=place) for place, moment in enumerate(moments, start=1)]
    points = pd.concat(found, ignore_index=True)
    part = PARTS[1] if (points["part"] == PARTS[1]).any() else PARTS[0]
    grouped = points.groupby(["moment", "batch_size", "epoch", "part"], sort=True)["value"]
    means = grouped.agg(value="mean", low="min", high="max", replicates="count").reset_index()
    most = points.groupby(["moment", "batch_size", "part"]).size().max()
    ranged = bool(most > POINTS_ABOVE or len(points) > POINTS)
    note = "Bars show the range over all replicates instead of each one." if ranged else ""
    return ByBatchSizeInfo(
        measure=measure,
        batch_sizes=tuple(int(size) for size in np.unique(every["batch_size"])),
        moments=moments,
        points=points,
        means=means,
        ranged=ranged,
        levels=tuple(
            _levels(means[(means["part"] == part) & (means["moment"] == place)])
            for place in range(1, len(moments) + 1)
        ),
        part=part,
        notes=tuple(text for text in (diverged_note(every), moments[-1].note, note) if text),
    )


def by_batch_size_chart(info: ByBatchSizeInfo) -> alt.ConcatChart:
    """Figure D: a plot for each moment, on the same axes."""
    panels = [_panel(info, place) for place in range(1, len(info.moments) + 1)]
    return alt.concat(*panels, data=inline(info.points), columns=PANELS.columns, spacing=24)


def by_batch_size_figure(info: ByBatchSizeInfo) -> Figure:
    """Figure D with its finding."""
    return Figure(
        key=f"d-by-batch-size-{info.measure}",
        label="D",
        title=info.title,
        caption="Circles and solid line: validation. Triangles and dashed line: reported training. "
        "The lines join the means over replicates.",
        notes=info.notes,
        chart=by_batch_size_chart(info),
        panels=PANELS,
    )


def _panel(info: ByBatchSizeInfo, place: int) -> alt.LayerChart | alt.FacetChart:
    means = alt.Chart(inline(info.means[info.means["moment"] == place]))
    here = alt.FieldEqualPredicate(field="moment", equal=place)
    domain = value_domain(pd.concat([info.means["low"], info.means["high"]]), info.measure)
    x, y = batch_size_axis(info.batch_sizes), value_axis("value", info.measure.capitalize(), domain)
    colour = batch_size_colour(info.batch_sizes, legend=False)
    parts = tuple(part for part in PARTS if (info.points["part"] == part).any())
    line = means.mark_line(strokeWidth=1.75).encode(x=x, y=y, strokeDash=part_dash(parts))
    if info.ranged:
        tips = tooltips("part", "batch_size", "value", "low", "high", "replicates")
        replicates = means.mark_rule(strokeWidth=3).encode(
            x=x, y="low:Q", y2="high:Q", color=colour, tooltip=tips
        )
    else:
        shape = alt.Shape("part:N", scale=alt.Scale(domain=list(PARTS), range=["triangle-up", "circle"]))
        dots = alt.Chart().transform_filter(here).mark_point(filled=True, size=70, opacity=0.85)
        tips = tooltips("part", "batch_size", "replicate", "value")
        replicates = dots.encode(x=x, y=y, color=colour, shape=shape.legend(None), tooltip=tips)
    layered = alt.layer(line, replicates)
    return layered.properties(width=PANELS.width, height=280, title=info.moments[place - 1].when)


def _levels(means: pd.DataFrame) -> tuple[Level, ...]:
    finite = means.dropna(subset="value")
    return tuple(
        Level(int(size), float(value))
        for size, value in zip(finite["batch_size"], finite["value"], strict=True)
    )
