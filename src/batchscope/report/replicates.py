"""Figure A: each replicate on its own."""

from __future__ import annotations

from dataclasses import dataclass

import altair as alt
import pandas as pd

from batchscope.analysis.results import StudyFacts
from batchscope.report.curves import (
    Measure,
    StageStart,
    curve_points,
    diverged_note,
    even_choice,
    stage_starts,
    thin_epochs,
)
from batchscope.report.encodings import stage_rules
from batchscope.report.facets import curve_layers, faceted
from batchscope.report.figure import Figure, Panels
from batchscope.report.moments import Moment, end_moment
from batchscope.report.words import TOLERANCE, figure_text

__all__ = ["ReplicatesInfo", "replicates_chart", "replicates_figure", "replicates_info"]

PANEL_BATCH_SIZES = 8
PANEL_REPLICATES = 6


@dataclass(frozen=True)
class ReplicatesInfo:
    """Numbers of figure A.

    Attributes:
        measure: ``accuracy`` or ``loss``.
        batch_sizes: Of the whole study.
        points: Columns ``batch_size``, ``replicate``, ``epoch``, ``part``, ``value``, ``panel``
            (its title) and ``order`` (its place).
        starts: Starts of later stages.
        end: Where the replicates are compared.
        spread: Largest minus smallest value over replicates at `end`, by batch size; only of
            batch sizes with two replicates or more.
        part: Whose spread that is: ``validation`` where the history has it.
        notes: What is left out.
    """

    measure: Measure
    batch_sizes: tuple[int, ...]
    points: pd.DataFrame
    starts: tuple[StageStart, ...]
    end: Moment
    spread: dict[int, float]
    part: str
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """The finding: how far replicates end apart; none where they end at a target of it."""
        what = f"{self.part} {self.measure}"
        target = self.end.target_of(self.part, self.measure)
        if target:
            return f"{what.capitalize()} of each replicate up to {target}, at which trials end"
        if not self.spread:
            return f"With one replicate per batch size nothing tells how far repeated trials differ in {what}"
        widest = max(self.spread, key=lambda size: self.spread[size])
        apart = figure_text(self.spread[widest])
        if self.spread[widest] < TOLERANCE:
            return f"Replicates agree to within {apart} in {what} at every batch size ({self.end.when})"
        return f"Replicates of batch {widest} end {apart} apart in {what}, the most of all ({self.end.when})"


def replicates_info(
    history: pd.DataFrame, measure: Measure, facts: StudyFacts | None = None
) -> ReplicatesInfo:
    """Numbers of figure A, from a history in standard form and the facts of its analysis.

    At most `PANEL_BATCH_SIZES` batch sizes, evenly chosen, and the first `PANEL_REPLICATES`
    replicates get a panel; the notes say how many there are. The spread is taken over all.
    """
    points = curve_points(history, measure)
    sizes = tuple(int(size) for size in sorted(points["batch_size"].unique()))
    names = list(dict.fromkeys(points["replicate"]))
    chosen_sizes, chosen_names = even_choice(sizes, PANEL_BATCH_SIZES), names[:PANEL_REPLICATES]
    drawn = points[points["batch_size"].isin(chosen_sizes) & points["replicate"].isin(chosen_names)]
    drawn, thinned = thin_epochs(drawn, 2 * len(chosen_sizes) * len(chosen_names))
    keys = [(name, size) for name in chosen_names for size in chosen_sizes]
    order = {key: place for place, key in enumerate(keys)}
    drawn_keys = list(zip(drawn["replicate"], drawn["batch_size"], strict=True))
    drawn = drawn.assign(
        panel=[f"batch {size}, rep. {name}" for name, size in drawn_keys],
        order=[order[key] for key in drawn_keys],
    )
    left_out = ""
    if len(chosen_sizes) < len(sizes) or len(chosen_names) < len(names):
        left_out = (
            f"Drawn: {len(chosen_names)} of {len(names)} replicates, "
            f"{len(chosen_sizes)} of {len(sizes)} batch sizes."
        )
    end = end_moment(history, facts)
    part = "validation" if (points["part"] == "validation").any() else "training"
    return ReplicatesInfo(
        measure=measure,
        batch_sizes=sizes,
        points=drawn,
        starts=stage_starts(history),
        end=end,
        spread=_spread(end.of(points[points["part"] == part])),
        part=part,
        notes=tuple(note for note in (diverged_note(points), end.note, left_out, thinned) if note),
    )


def replicates_chart(info: ReplicatesInfo) -> alt.FacetChart:
    """Figure A: a panel for each replicate at each batch size, training and validation in it."""
    curves = curve_layers(info.points, info.measure, info.batch_sizes, faint=False)
    return faceted([*stage_rules(info.starts, "none"), *curves], info.points, _panels(info), height=100)


def replicates_figure(info: ReplicatesInfo) -> Figure:
    """Figure A with its finding."""
    return Figure(
        key=f"a-replicates-{info.measure}",
        label="A" if info.measure == "accuracy" else "A (loss)",
        title=info.title,
        caption=f"Each replicate's reported training {info.measure} (dashed) "
        f"and validation {info.measure} (solid).",
        notes=info.notes,
        chart=replicates_chart(info),
        panels=_panels(info),
    )


def _panels(info: ReplicatesInfo) -> Panels:
    sizes = info.points["batch_size"].nunique()
    return Panels(columns=min(sizes, 4), width=190, margin=20, frame=64)


def _spread(at_end: pd.DataFrame) -> dict[int, float]:
    values = at_end.dropna(subset="value").groupby("batch_size")["value"]
    table = values.agg(["min", "max", "count"]).query("count >= 2")
    sizes = table.index.to_list()
    return {
        int(size): float(high - low)
        for size, low, high in zip(sizes, table["min"], table["max"], strict=True)
    }
