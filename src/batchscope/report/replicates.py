"""Figures A and B: each replicate on its own, and the replicates of a batch size together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import altair as alt
import pandas as pd

from batchscope.report.curves import (
    PARTS,
    Measure,
    StageStart,
    curve_points,
    diverged_note,
    even_choice,
    last_common_epoch,
    stage_starts,
    thin_epochs,
)
from batchscope.report.encodings import (
    batch_size_colour,
    epoch_axis,
    hover_points,
    inline,
    part_dash,
    stage_rules,
    value_axis,
    value_domain,
)
from batchscope.report.figure import Figure, Panels
from batchscope.report.words import TOLERANCE, figure_text

__all__ = [
    "ReplicatesInfo",
    "TogetherInfo",
    "replicates_chart",
    "replicates_figure",
    "replicates_info",
    "together_chart",
    "together_figure",
    "together_info",
]

PANEL_BATCH_SIZES = 8
PANEL_REPLICATES = 6
BAND_ABOVE = 30
"""Above so many replicates a batch size shows their range and mean instead of each one."""
FACETS = 24
TOGETHER_PANELS = Panels(columns=2, width=380, margin=60)
_TOOLTIP = ("batch_size", "replicate", "part", "epoch", "value")


@dataclass(frozen=True)
class ReplicatesInfo:
    """Numbers of figure A.

    Attributes:
        measure: ``accuracy`` or ``loss``.
        batch_sizes: Of the whole study.
        points: Columns ``batch_size``, ``replicate``, ``epoch``, ``part``, ``value``, ``panel``.
        panels: Titles of the panels, in order.
        starts: Starts of later stages.
        epoch: Where the replicates' ends are compared.
        spread: Largest minus smallest value over replicates at `epoch`, by batch size; only of
            batch sizes with two replicates or more.
        part: Whose spread that is: ``validation`` where the history has it.
        notes: What is left out.
    """

    measure: Measure
    batch_sizes: tuple[int, ...]
    points: pd.DataFrame
    panels: tuple[str, ...]
    starts: tuple[StageStart, ...]
    epoch: int
    spread: dict[int, float]
    part: str
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """The finding: how far replicates end apart."""
        what = f"{self.part} {self.measure}"
        if not self.spread:
            return f"With one replicate per batch size nothing tells how far repeated trials differ in {what}"
        widest = max(self.spread, key=lambda size: self.spread[size])
        apart = figure_text(self.spread[widest])
        if self.spread[widest] < TOLERANCE:
            return f"Replicates agree to within {apart} in {what} at every batch size (epoch {self.epoch})"
        return (
            f"Replicates of batch {widest} end {apart} apart in {what}, the most of all (epoch {self.epoch})"
        )


@dataclass(frozen=True)
class TogetherInfo:
    """Numbers of figure B.

    Attributes:
        measure: ``accuracy`` or ``loss``.
        batch_sizes: Of the whole study.
        points: Columns ``batch_size``, ``replicate``, ``epoch``, ``part``, ``value``, ``low``,
            ``high``, ``panel``; with a band, ``value`` is the mean over replicates and ``low``
            to ``high`` their range, else both equal ``value``.
        banded: Whether the range over replicates is drawn instead of each of them.
        panels: Titles of the panels, in order.
        starts: Starts of later stages.
        epoch: Where training and validation are compared.
        ends: Mean training and validation value at `epoch`, by batch size; empty where the
            history lacks one of them.
        notes: What is left out.
    """

    measure: Measure
    batch_sizes: tuple[int, ...]
    points: pd.DataFrame
    banded: bool
    panels: tuple[str, ...]
    starts: tuple[StageStart, ...]
    epoch: int
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
                f"of each other at every batch size (epoch {self.epoch})"
            )
        train, val = self.ends[widest]
        return (
            f"Training and validation {self.measure} are furthest apart at batch {widest}: "
            f"{figure_text(train)} against {figure_text(val)} (epoch {self.epoch})"
        )


def replicates_info(history: pd.DataFrame, measure: Measure) -> ReplicatesInfo:
    """Numbers of figure A, from a history in standard form.

    At most `PANEL_BATCH_SIZES` batch sizes, evenly chosen, and the first `PANEL_REPLICATES`
    replicates get a panel; the notes say how many there are. The spread is taken over all.
    """
    points = curve_points(history, measure)
    sizes = tuple(int(size) for size in sorted(points["batch_size"].unique()))
    names = list(dict.fromkeys(points["replicate"]))
    chosen_sizes, chosen_names = even_choice(sizes, PANEL_BATCH_SIZES), names[:PANEL_REPLICATES]
    drawn = points[points["batch_size"].isin(chosen_sizes) & points["replicate"].isin(chosen_names)]
    drawn, thinned = thin_epochs(drawn, 2 * len(chosen_sizes) * len(chosen_names))
    drawn = drawn.assign(
        panel=[_panel(*key) for key in zip(drawn["batch_size"], drawn["replicate"], strict=True)]
    )
    there = set(drawn["panel"])
    panels = [_panel(size, name) for name in chosen_names for size in chosen_sizes]
    left_out = ""
    if len(chosen_sizes) < len(sizes) or len(chosen_names) < len(names):
        left_out = (
            f"Drawn: {len(chosen_names)} of {len(names)} replicates, "
            f"{len(chosen_sizes)} of {len(sizes)} batch sizes."
        )
    epoch = last_common_epoch(history)
    part = "validation" if (points["part"] == "validation").any() else "training"
    return ReplicatesInfo(
        measure=measure,
        batch_sizes=sizes,
        points=drawn,
        panels=tuple(panel for panel in panels if panel in there),
        starts=stage_starts(history),
        epoch=epoch,
        spread=_spread(points[(points["epoch"] == epoch) & (points["part"] == part)]),
        part=part,
        notes=tuple(note for note in (diverged_note(points), left_out, thinned) if note),
    )


def together_info(history: pd.DataFrame, measure: Measure) -> TogetherInfo:
    """Numbers of figure B, from a history in standard form.

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
    epoch = last_common_epoch(history)
    return TogetherInfo(
        measure=measure,
        batch_sizes=sizes,
        points=drawn.assign(panel=[_panel(size) for size in drawn["batch_size"]]),
        banded=banded,
        panels=tuple(_panel(size) for size in chosen),
        starts=stage_starts(history),
        epoch=epoch,
        ends=_ends(points[points["epoch"] == epoch]),
        notes=tuple(note for note in (diverged_note(points), band, left_out, thinned) if note),
    )


def replicates_chart(info: ReplicatesInfo) -> alt.FacetChart:
    """Figure A: a panel for each replicate at each batch size, training and validation in it."""
    layers = [*stage_rules(info.starts, "none"), *_lines(info, faint=False)]
    return _facets(layers, info, _small_panels(info), height=100)


def together_chart(info: TogetherInfo) -> alt.FacetChart:
    """Figure B: a panel for each batch size with all of its replicates."""
    names: Literal["bottom", "top"] = "bottom" if info.measure == "accuracy" else "top"
    layers = [*stage_rules(info.starts, names), *_lines(info, faint=not info.banded)]
    if info.banded:
        band = alt.Chart().mark_area(opacity=0.25)
        colour = batch_size_colour(info.batch_sizes, legend=False)
        layers.insert(0, band.encode(x="epoch:Q", y="low:Q", y2="high:Q", color=colour, detail="part:N"))
    return _facets(layers, info, TOGETHER_PANELS, height=200)


def replicates_figure(info: ReplicatesInfo) -> Figure:
    """Figure A with its finding."""
    return Figure(
        key=f"a-replicates-{info.measure}",
        title=info.title,
        caption=f"Each replicate's reported training {info.measure} (dashed) "
        f"and validation {info.measure} (solid).",
        notes=info.notes,
        chart=replicates_chart(info),
        panels=_small_panels(info),
    )


def together_figure(info: TogetherInfo) -> Figure:
    """Figure B with its finding."""
    return Figure(
        key=f"b-together-{info.measure}",
        title=info.title,
        caption=f"The replicates of a batch size together: reported training {info.measure} (dashed) "
        f"and validation {info.measure} (solid).",
        notes=info.notes,
        chart=together_chart(info),
        panels=TOGETHER_PANELS,
    )


def _lines(info: ReplicatesInfo | TogetherInfo, faint: bool) -> list[alt.Chart]:
    y = value_axis("value", info.measure.capitalize(), _domain(info))
    base = alt.Chart().encode(
        x=epoch_axis(),
        y=y,
        color=batch_size_colour(info.batch_sizes, legend=False),
        detail="replicate:N",
    )
    line = base.mark_line(strokeWidth=1.5 if faint else 2, opacity=0.8 if faint else 1)
    parts = tuple(part for part in PARTS if (info.points["part"] == part).any())
    return [line.encode(strokeDash=part_dash(parts)), hover_points(base, _TOOLTIP)]


def _facets(
    layers: list[alt.Chart], info: ReplicatesInfo | TogetherInfo, panels: Panels, height: int
) -> alt.FacetChart:
    header = alt.Facet("panel:N", title=None, sort=list(info.panels))
    layered = alt.layer(*layers, data=inline(info.points)).properties(width=panels.width, height=height)
    return layered.facet(facet=header, columns=panels.columns).properties(spacing=18)


def _small_panels(info: ReplicatesInfo) -> Panels:
    sizes = info.points["batch_size"].nunique()
    return Panels(columns=min(sizes, 4), width=180, margin=34)


def _domain(info: ReplicatesInfo | TogetherInfo) -> tuple[float, float]:
    shown = [info.points["value"]]
    if isinstance(info, TogetherInfo):
        shown += [info.points["low"], info.points["high"]]
    return value_domain(pd.concat(shown), info.measure)


def _panel(batch_size: int, replicate: str | None = None) -> str:
    return f"batch {batch_size}" + ("" if replicate is None else f", replicate {replicate}")


def _spread(at_end: pd.DataFrame) -> dict[int, float]:
    values = at_end.dropna(subset="value").groupby("batch_size")["value"]
    table = values.agg(["min", "max", "count"]).query("count >= 2")
    sizes = table.index.to_list()
    return {
        int(size): float(high - low)
        for size, low, high in zip(sizes, table["min"], table["max"], strict=True)
    }


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
