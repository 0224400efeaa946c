"""Figure B: the replicates of a batch size together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import altair as alt
import pandas as pd

from batchscope.analysis.results import StudyFacts
from batchscope.report.curves import (
    PARTS,
    Measure,
    StageStart,
    curve_points,
    diverged_note,
    even_choice,
    stage_starts,
    thin_epochs,
)
from batchscope.report.encodings import batch_size_colour, stage_rules
from batchscope.report.facets import curve_layers, faceted
from batchscope.report.figure import Figure, Panels
from batchscope.report.moments import Moment, end_moment
from batchscope.report.words import TOLERANCE, figure_text

__all__ = ["TogetherInfo", "together_chart", "together_figure", "together_info"]

BAND_ABOVE = 30
"""Above so many replicates a batch size shows their range and mean instead of each one."""
FACETS = 24
LARGE_PANELS = 8
"""Up to so many batch sizes the panels are large."""


@dataclass(frozen=True)
class TogetherInfo:
    """Numbers of figure B.

    Attributes:
        measure: ``accuracy`` or ``loss``.
        batch_sizes: Of the whole study.
        points: Columns ``batch_size``, ``replicate``, ``epoch``, ``part``, ``value``, ``low``,
            ``high``, ``panel`` (its title) and ``order`` (its place); with a band, ``value`` is
            the mean over replicates and ``low`` to ``high`` their range, else both equal ``value``.
        banded: Whether the range over replicates is drawn instead of each of them.
        starts: Starts of later stages.
        end: Where training and validation are compared.
        ends: Mean training and validation value at `end`, by batch size; empty where the
            history lacks one of them.
        notes: What is left out.
    """

    measure: Measure
    batch_sizes: tuple[int, ...]
    points: pd.DataFrame
    banded: bool
    starts: tuple[StageStart, ...]
    end: Moment
    ends: dict[int, tuple[float, float]]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """The finding: where training and validation part."""
        if not self.ends:
            parts = " and ".join(part for part in PARTS if (self.points["part"] == part).any())
            return f"{parts.capitalize()} {self.measure} of all replicates of each batch size"
        gaps = {size: abs(train - val) for size, (train, val) in self.ends.items()}
        widest = max(gaps, key=lambda size: gaps[size])
        if gaps[widest] < TOLERANCE:
            return (
                f"Training and validation {self.measure} stay within {figure_text(gaps[widest])} "
                f"of each other at every batch size ({self.end.when})"
            )
        train, val = self.ends[widest]
        return (
            f"Training and validation {self.measure} are furthest apart at batch {widest}: "
            f"{figure_text(train)} against {figure_text(val)} ({self.end.when})"
        )


def together_info(history: pd.DataFrame, measure: Measure, facts: StudyFacts | None = None) -> TogetherInfo:
    """Numbers of figure B, from a history in standard form and the facts of its analysis.

    Above `BAND_ABOVE` replicates of one batch size, or where each of them would leave too few
    epochs, their range and mean are drawn; at most `FACETS` batch sizes, evenly chosen.
    """
    points = curve_points(history, measure)
    sizes = tuple(int(size) for size in sorted(points["batch_size"].unique()))
    chosen = even_choice(sizes, FACETS)
    drawn = points[points["batch_size"].isin(chosen)]
    most = int(drawn.groupby("batch_size")["replicate"].nunique().max())
    banded = most > BAND_ABOVE or most * len(chosen) > 4 * BAND_ABOVE
    drawn, thinned = thin_epochs(drawn, 2 * len(chosen) * (1 if banded else most))
    drawn = _ranges(drawn) if banded else drawn.assign(low=drawn["value"], high=drawn["value"])
    band = f"Line: mean over up to {most} replicates; band: their range." if banded else ""
    left_out = f"Drawn: {len(chosen)} of {len(sizes)} batch sizes." if len(chosen) < len(sizes) else ""
    end = end_moment(history, facts)
    return TogetherInfo(
        measure=measure,
        batch_sizes=sizes,
        points=drawn.assign(
            panel=[f"batch {size}" for size in drawn["batch_size"]], order=drawn["batch_size"]
        ),
        banded=banded,
        starts=stage_starts(history),
        end=end,
        ends=_ends(end.of(points)),
        notes=tuple(note for note in (diverged_note(points), end.note, band, left_out, thinned) if note),
    )


def together_chart(info: TogetherInfo) -> alt.FacetChart:
    """Figure B: a panel for each batch size with all of its replicates."""
    panels, height = _panels(info)
    names: Literal["bottom", "top", "none"] = "bottom" if info.measure == "accuracy" else "top"
    rules = stage_rules(info.starts, names if panels.columns == 2 else "none")
    layers = [*rules, *curve_layers(info.points, info.measure, info.batch_sizes, faint=not info.banded)]
    if info.banded:
        band = alt.Chart().mark_area(opacity=0.25)
        colour = batch_size_colour(info.batch_sizes, legend=False)
        layers.insert(0, band.encode(x="epoch:Q", y="low:Q", y2="high:Q", color=colour, detail="part:N"))
    return faceted(layers, info.points, panels, height)


def together_figure(info: TogetherInfo) -> Figure:
    """Figure B with its finding."""
    return Figure(
        key=f"b-together-{info.measure}",
        label="B",
        title=info.title,
        caption=f"The replicates of a batch size together: reported training {info.measure} (dashed) "
        f"and validation {info.measure} (solid).",
        notes=info.notes,
        chart=together_chart(info),
        panels=_panels(info)[0],
    )


def _panels(info: TogetherInfo) -> tuple[Panels, int]:
    if info.points["batch_size"].nunique() > LARGE_PANELS:
        return Panels(columns=4, width=190, margin=20, frame=64), 110
    return Panels(columns=2, width=400, margin=20, frame=64), 200


def _ranges(points: pd.DataFrame) -> pd.DataFrame:
    grouped = points.groupby(["batch_size", "epoch", "part"], sort=True)["value"]
    table = grouped.agg(value="mean", low="min", high="max").reset_index()
    return table.assign(replicate="mean")


def _ends(at_end: pd.DataFrame) -> dict[int, tuple[float, float]]:
    train, val = (
        at_end[at_end["part"] == part].groupby("batch_size")["value"].mean().dropna() for part in PARTS
    )
    both = train.index.intersection(val.index).to_list()
    return {int(size): (float(train[size]), float(val[size])) for size in both}
