"""Validation against epochs beside validation against updates, stage by stage."""

from __future__ import annotations

import math
from dataclasses import dataclass

import altair as alt
import numpy as np
import pandas as pd

from batchscope.analysis.headline import ShareRule, leading_share, share_rule
from batchscope.analysis.results import Analysis, StudyFacts, UpdatesShare
from batchscope.analysis.words import interval, percent, quantity_name
from batchscope.report.curves import Measure, curve_points, diverged_note, thin_epochs
from batchscope.report.encodings import (
    batch_size_colour,
    epoch_axis,
    hover_points,
    inline,
    updates_axis,
    value_axis,
    value_domain,
)
from batchscope.report.figure import Figure, Panels
from batchscope.report.words import Level, figure_text, level_sentence

__all__ = [
    "UpdatesInfo",
    "panel_finding",
    "share_sentence",
    "updates_chart",
    "updates_figure",
    "updates_info",
]

PANELS = Panels(columns=2, width=380, margin=72)


@dataclass(frozen=True)
class UpdatesInfo:
    """Numbers of the figure.

    Attributes:
        quantity: ``val_accuracy`` or ``val_loss``.
        batch_sizes: Of the whole study.
        points: Columns ``stage``, ``stage_number`` (from 1), ``batch_size``, ``epoch``,
            ``updates`` (from the stage's start), ``value`` (mean over replicates with a finite
            figure) and ``replicates``.
        shares: Of the stages that are drawn, in the order of training.
        ends: Mean at the end, by batch size; those that have one.
        facts: Of the study.
        notes: What is left out.
    """

    quantity: str
    batch_sizes: tuple[int, ...]
    points: pd.DataFrame
    shares: tuple[UpdatesShare, ...]
    ends: tuple[Level, ...]
    facts: StudyFacts
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """The finding: what matching updates instead of epochs does to the variance between batch sizes.

        Where no stage has the same number of epochs for all: how the metric goes with batch size at
        the ends.
        """
        equal_epochs = tuple(share for share in self.shares if self.facts.equal_epochs(share.stage))
        leading = leading_share(equal_epochs)
        if leading is not None:
            return share_sentence(leading, self.facts.confidence)
        name = quantity_name(self.quantity).capitalize()
        if self.facts.goal is not None and self.facts.ends_alike(self.quantity):
            target = figure_text(self.facts.goal.value)
            return f"{name} against epochs and against updates, up to the target of {target}"
        if equal_epochs or not self.ends:
            return f"{name} against epochs and against updates"
        return level_sentence(name, self.ends, f"({self.facts.when_short})")


_FINDINGS: dict[ShareRule, str] = {
    "follows_updates": "most of the variance between batch sizes follows the number of updates",
    "beyond_updates": "the number of updates does not explain most of the variance between batch sizes",
    "may_follow_updates": "these data cannot tell how much of the variance between batch sizes follows the "
    "number of updates",
}
_SHORT: dict[ShareRule, str] = {
    "follows_updates": "Updates explain most",
    "beyond_updates": "Updates do not explain most",
    "may_follow_updates": "Updates: cannot tell",
}


_CAPTION = (
    "Means over replicates. Batch sizes were not given the same number of epochs, and end at their own."
)
_SHARE_CAPTION = (
    "Means over replicates. Where curves that lie apart against epochs coincide against updates, it is the "
    "number of updates that sets them apart. Like for like: each number of updates is held against the same "
    "batch sizes at matched epochs."
)


def share_sentence(found: UpdatesShare, confidence: float) -> str:
    """Says what the number of updates explains, by `share_rule`, with the figures.

    Args:
        found: With a finite share: positive where matching updates instead of epochs shrinks the
            variance between batch sizes, negative where it makes it grow.
        confidence: Coverage of its intervals.
    """
    finding = _FINDINGS[share_rule(found)]
    where = f"In {_stage_name(found.stage)}, {finding}" if found.stage else finding.capitalize()
    effect = (
        f"removes {percent(found.share)} of it"
        if found.share >= 0
        else f"makes it {percent(-found.share)} larger"
    )
    alike = _alike(found)
    if math.isfinite(found.low):
        effect += f" ({interval(found.low, found.high, confidence, 'percent')})"
    if math.isfinite(found.low_alike):
        alike += f" ({percent(found.low_alike)} to {percent(found.high_alike)})"
    return f"{where}: matching updates instead of epochs {effect}, {alike}"


def panel_finding(found: UpdatesShare) -> tuple[str, str]:
    """The finding in the few words that a panel has room for, and its figures."""
    if not math.isfinite(found.share):
        return "By updates", "no share"
    return _SHORT[share_rule(found)], f"{percent(found.share)}, {_alike(found)}"


def _alike(found: UpdatesShare) -> str:
    """The share like for like, which too few epochs may leave without a figure."""
    told = percent(found.share_alike) if math.isfinite(found.share_alike) else "not known"
    return f"like for like {told}"


def updates_info(history: pd.DataFrame, analysis: Analysis) -> UpdatesInfo | None:
    """Numbers of the figure; None where the history has no column ``updates``."""
    quantity = analysis.facts.metric
    if "updates" not in history.columns:
        return None
    measure: Measure = "accuracy" if quantity == "val_accuracy" else "loss"
    points = curve_points(history, measure)
    points = points[points["part"] == "validation"].drop(columns="part")
    points["stage"] = history["stage"].to_numpy() if "stage" in history.columns else ""
    points["updates"] = _stage_updates(history, points)
    grouped = points.groupby(["stage", "batch_size", "epoch"], sort=False)
    means = grouped.agg(updates=("updates", "mean"), value=("value", "mean"), replicates=("value", "count"))
    drawn, thinned = thin_epochs(means.reset_index(), points["batch_size"].nunique())
    stages = set(drawn["stage"])
    shares = tuple(share for share in analysis.updates_share if share.stage in stages)
    numbers = {share.stage: number for number, share in enumerate(shares, start=1)}
    return UpdatesInfo(
        quantity=quantity,
        batch_sizes=analysis.facts.batch_sizes,
        points=drawn.assign(stage_number=drawn["stage"].map(numbers)),
        shares=shares,
        ends=_ends(analysis),
        facts=analysis.facts,
        notes=tuple(note for note in (diverged_note(points), thinned) if note),
    )


def updates_chart(info: UpdatesInfo) -> alt.ConcatChart:
    """A row of two panels for each stage: against epochs, against updates."""
    measure = "accuracy" if info.quantity == "val_accuracy" else "loss"
    domain = value_domain(info.points["value"], measure)
    panels = []
    for number, share in enumerate(info.shares, start=1):
        # By number, because a name is free text and would become part of an expression.
        here = alt.FieldEqualPredicate(field="stage_number", equal=number)
        base = (
            alt.Chart()
            .transform_filter(here)
            .encode(
                y=value_axis("value", quantity_name(info.quantity).capitalize(), domain),
                color=batch_size_colour(info.batch_sizes),
            )
        )
        title = _stage_name(share.stage).capitalize() or "All epochs"
        drawn = info.points[info.points["stage"] == share.stage]
        limits = int(drawn["epoch"].min()) - 1, int(drawn["epoch"].max())
        by_epochs = alt.layer(*_line(base.encode(x=epoch_axis(limits)))).properties(title=title)
        finding, figures = _panel_title(share, info.facts)
        x = updates_axis(drawn["updates"], "Updates since the stage's start")
        by_updates = alt.layer(*_line(base.encode(x=x)))
        panels += [by_epochs, by_updates.properties(title=alt.TitleParams(finding, subtitle=figures))]
    sized = [panel.properties(width=PANELS.width, height=230) for panel in panels]
    return alt.concat(*sized, data=inline(info.points), columns=PANELS.columns, spacing=24)


def updates_figure(info: UpdatesInfo, label: str = "E") -> Figure:
    """Validation against epochs and updates with its finding."""
    return Figure(
        key="epochs-and-updates",
        label=label,
        title=info.title,
        caption=_SHARE_CAPTION
        if any(info.facts.equal_epochs(share.stage) for share in info.shares)
        else _CAPTION,
        notes=info.notes,
        chart=updates_chart(info),
        panels=PANELS,
    )


def _panel_title(share: UpdatesShare, facts: StudyFacts) -> tuple[str, str]:
    if facts.equal_epochs(share.stage):
        return panel_finding(share)
    by_updates = any(stage.budget == "updates" for stage in facts.stages if stage.name == share.stage)
    return "By updates", "of which all batch sizes were given the same number" if by_updates else ""


def _ends(analysis: Analysis) -> tuple[Level, ...]:
    found = ((row.batch_size, getattr(row, analysis.facts.metric)) for row in analysis.final)
    return tuple(Level(size, estimate.mean) for size, estimate in found if math.isfinite(estimate.mean))


def _line(base: alt.Chart) -> list[alt.Chart]:
    tooltip = hover_points(base, ("stage", "batch_size", "epoch", "updates", "value", "replicates"))
    return [base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=22)), tooltip]


def _stage_updates(history: pd.DataFrame, points: pd.DataFrame) -> pd.Series:
    """Updates counted from the stage's start: less those of the trial's earlier stages."""
    keys = ["batch_size", "replicate", "stage"]
    table = points.assign(updates=history["updates"].to_numpy()).sort_values("epoch", kind="stable")
    trial = table.groupby(keys[:2], sort=False)
    before = trial["updates"].shift(fill_value=0)
    starts = table.groupby(keys, sort=False)["epoch"].transform("min") == table["epoch"]
    offset = before.where(starts).groupby([table[key] for key in keys], sort=False).transform("max")
    return (table["updates"] - offset).reindex(points.index).astype(np.int64)


def _stage_name(stage: str) -> str:
    return stage.replace("_", " ")
