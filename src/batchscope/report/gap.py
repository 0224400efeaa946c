"""The observed gap by batch size, with its intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import altair as alt
import pandas as pd

from batchscope.analysis.results import Analysis
from batchscope.analysis.words import batch_sizes, count, percent
from batchscope.report.encodings import (
    batch_size_axis,
    batch_size_colour,
    inline,
    tooltips,
    value_axis,
    value_domain,
)
from batchscope.report.figure import Figure, Panels
from batchscope.report.words import Level, level_sentence

__all__ = ["GapInfo", "gap_chart", "gap_figure", "gap_info"]

PANELS = Panels(columns=1, width=560, margin=78)


@dataclass(frozen=True)
class GapInfo:
    """Numbers of the gap's figure.

    Attributes:
        batch_sizes: Of the whole study.
        when: Where the gap is measured, for brackets: each batch size's end where these differ, else
            the last of the summary's epochs that the most batch sizes have reached.
        points: Columns ``batch_size``, ``gap`` (mean over replicates), ``low``, ``high`` (ends of
            the t-interval, NaN below two replicates) and ``replicates``.
        margin: Differences below it do not matter in practice.
        confidence: Coverage of the intervals.
        notes: What is missing.
    """

    batch_sizes: tuple[int, ...]
    when: str
    points: pd.DataFrame
    margin: float
    confidence: float
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """The finding: how the observed gap goes with batch size."""
        pairs = zip(self.points["batch_size"], self.points["gap"], strict=True)
        levels = [Level(int(size), float(gap)) for size, gap in pairs]
        return level_sentence("The observed gap", levels, f"({self.when})", self.margin)


def gap_info(analysis: Analysis) -> GapInfo | None:
    """Numbers of the gap's figure; None where no batch size has a finite gap."""
    facts = analysis.facts
    own_ends = facts.end_epoch is None
    found = analysis.final if own_ends else analysis.summary
    rows = [
        (row.epoch, row.batch_size, row.gap.mean, row.gap.low, row.gap.high, row.gap.n)
        for row in found
        if row.gap is not None and math.isfinite(row.gap.mean)
    ]
    if not rows:
        return None
    table = pd.DataFrame(rows, columns=["epoch", "batch_size", "gap", "low", "high", "replicates"])
    reached = table.groupby("epoch").size()
    epoch = int(reached.index[reached == reached.max()].max())
    diverged = sum(row.n_diverged for row in found if own_ends or row.epoch == epoch)
    points = table[own_ends | (table["epoch"] == epoch)].drop(columns="epoch").reset_index(drop=True)
    alone = points.loc[points["low"].isna(), "batch_size"].tolist()
    notes = []
    if diverged:
        notes.append(f"{count(diverged, 'trial')} diverged and cannot be averaged.")
    if alone:
        notes.append(f"No interval from one replicate: batch {batch_sizes(alone)}.")
    return GapInfo(
        batch_sizes=facts.batch_sizes,
        when=facts.when_short if own_ends else f"epoch {epoch}",
        points=points,
        margin=facts.margin,
        confidence=facts.confidence,
        notes=tuple(notes),
    )


def gap_chart(info: GapInfo) -> alt.LayerChart | alt.FacetChart:
    """Mean gap and its interval against batch size, with a rule at no gap."""
    ends = pd.concat([info.points["gap"], info.points["low"], info.points["high"], pd.Series([0.0])])
    base = alt.Chart().encode(x=batch_size_axis(info.batch_sizes))
    y = value_axis("gap", "Training minus validation accuracy", value_domain(ends, "gap"))
    colour = batch_size_colour(info.batch_sizes, legend=False)
    zero = alt.Chart(inline(pd.DataFrame({"zero": [0]}))).mark_rule(strokeDash=[2, 3]).encode(y="zero:Q")
    bar = base.mark_rule(strokeWidth=2.5).encode(y="low:Q", y2="high:Q", color=colour)
    tips = tooltips("batch_size", "gap", "low", "high", "replicates")
    dot = base.mark_circle(size=110, opacity=1).encode(y=y, color=colour, tooltip=tips)
    line = base.mark_line(strokeWidth=1.25).encode(y=y)
    layered = alt.layer(zero, line, bar, dot, data=inline(info.points))
    return layered.properties(width=PANELS.width, height=280)


def gap_figure(info: GapInfo, label: str = "F") -> Figure:
    """The gap by batch size with its finding."""
    return Figure(
        key="gap",
        label=label,
        title=info.title,
        caption=f"Reported training minus validation accuracy: mean over replicates with its "
        f"{percent(info.confidence)} t-interval.",
        notes=info.notes,
        chart=gap_chart(info),
        panels=PANELS,
    )
