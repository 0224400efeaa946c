"""Figure C: means over replicates, all batch sizes on one plot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import altair as alt
import numpy as np
import pandas as pd

from batchscope.analysis.results import StudyFacts
from batchscope.report.curves import (
    PARTS,
    Measure,
    StageStart,
    curve_points,
    diverged_note,
    stage_starts,
    thin_epochs,
)
from batchscope.report.encodings import (
    batch_size_colour,
    epoch_axis,
    hover_points,
    inline,
    stage_rules,
    value_axis,
    value_domain,
)
from batchscope.report.figure import Figure, Panels
from batchscope.report.moments import Moment, end_moment
from batchscope.report.words import Level, level_sentence

__all__ = ["MeansInfo", "means_chart", "means_figure", "means_info"]

PANELS = Panels(columns=2, width=380, margin=72)


@dataclass(frozen=True)
class MeansInfo:
    """Numbers of figure C.

    Attributes:
        measure: ``accuracy`` or ``loss``.
        batch_sizes: Of the whole study.
        points: Columns ``batch_size``, ``part``, ``epoch``, ``value`` (mean over the replicates
            that have a finite figure) and ``replicates`` (how many those are).
        starts: Starts of later stages.
        end: Where batch sizes are compared in the title.
        ends: Mean at `end`, of validation where the history has it.
        part: Which part `ends` tells of.
        notes: What is left out.
    """

    measure: Measure
    batch_sizes: tuple[int, ...]
    points: pd.DataFrame
    starts: tuple[StageStart, ...]
    end: Moment
    ends: tuple[Level, ...]
    part: str
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """The finding: how the mean goes with batch size; none where trials end at a target of it."""
        name = f"Mean {self.part} {self.measure}"
        target = self.end.target_of(self.part, self.measure)
        if target:
            return f"{name} up to {target}, at which trials end"
        if not self.ends:
            return f"{name} has no finite figure at {self.end.when}"
        return level_sentence(name, self.ends, f"({self.end.when})")


def means_info(history: pd.DataFrame, measure: Measure, facts: StudyFacts | None = None) -> MeansInfo:
    """Numbers of figure C, from a history in standard form and the facts of its analysis."""
    points = curve_points(history, measure)
    sizes = tuple(int(size) for size in np.unique(points["batch_size"]))
    end = end_moment(history, facts)
    part = PARTS[1] if (points["part"] == PARTS[1]).any() else PARTS[0]
    grouped = points.groupby(["batch_size", "part", "epoch"], sort=True)["value"]
    means = grouped.agg(value="mean", replicates="count").reset_index()
    at_end = end.of(points[points["part"] == part]).groupby("batch_size")["value"].mean().dropna()
    drawn, thinned = thin_epochs(means, len(sizes) * means["part"].nunique())
    return MeansInfo(
        measure=measure,
        batch_sizes=sizes,
        points=drawn,
        starts=stage_starts(history),
        end=end,
        ends=tuple(Level(int(size), float(value)) for size, value in zip(at_end.index, at_end, strict=True)),
        part=part,
        notes=tuple(note for note in (diverged_note(points), end.note, thinned) if note),
    )


def means_chart(info: MeansInfo) -> alt.ConcatChart:
    """Figure C: a plot for training and one for validation, on the same axis."""
    domain = value_domain(info.points["value"], info.measure)
    names: Literal["bottom", "top"] = "bottom" if info.measure == "accuracy" else "top"
    panels = []
    for part in (part for part in PARTS if (info.points["part"] == part).any()):
        base = alt.Chart().transform_filter(alt.FieldEqualPredicate(field="part", equal=part))
        base = base.encode(
            x=epoch_axis((0, int(info.points["epoch"].max()))),
            y=value_axis("value", f"{part.capitalize()} {info.measure}", domain),
            color=batch_size_colour(info.batch_sizes),
        )
        tooltip = hover_points(base, ("batch_size", "epoch", "value", "replicates"))
        layers = [*stage_rules(info.starts, names), base.mark_line(strokeWidth=2.25), tooltip]
        panels.append(alt.layer(*layers).properties(width=PANELS.width, height=280))
    return alt.concat(*panels, data=inline(info.points), columns=PANELS.columns, spacing=24)


def means_figure(info: MeansInfo) -> Figure:
    """Figure C with its finding."""
    return Figure(
        key=f"c-means-{info.measure}",
        label="C",
        title=info.title,
        caption=f"Means over replicates of reported training {info.measure} "
        f"and of validation {info.measure}.",
        notes=info.notes,
        chart=means_chart(info),
        panels=PANELS,
    )
