"""What each learning rate of a grid came to at each batch size, and which was best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import pandas as pd

from batchscope.analysis.results import Analysis, LearningRatePoint
from batchscope.analysis.to_target_results import TrialToTarget
from batchscope.analysis.words import batch_sizes, count, quantity_name, target_text
from batchscope.report.curves import POINTS
from batchscope.report.encodings import (
    batch_size_colour,
    count_axis,
    inline,
    tooltips,
    value_axis,
    value_domain,
)
from batchscope.report.figure import Figure, Panels

__all__ = ["LearningRatesInfo", "learning_rates_chart", "learning_rates_figure", "learning_rates_info"]

PANELS = Panels(columns=1, width=560, margin=78)
_MEANS = ["batch_size", "learning_rate", "value", "replicates", "best"]
_POINTS = ["batch_size", "learning_rate", "value", "kind"]


@dataclass(frozen=True)
class LearningRatesInfo:
    """Numbers of the learning rates' figure.

    Attributes:
        quantity: What the best was chosen by, in words.
        target: For example ``a validation accuracy of 0.850``, where that is updates to it; else empty.
        batch_sizes: Of the whole study.
        points: Columns ``batch_size``, ``learning_rate``, ``value`` and ``kind`` (``trial``), a row for each
            trial that came to its end; none where there are too many to draw. With a target, for each that
            reached it, and for each that has not (``censored``), which stands at its last updates.
        means: Columns ``batch_size``, ``learning_rate``, ``value`` (mean over these trials; with a
            target, their median, where there is one), ``replicates`` and ``best``.
        optimistic: Whether the best was chosen by the metric that is analysed.
        notes: What is left out.
    """

    quantity: str
    target: str
    batch_sizes: tuple[int, ...]
    points: pd.DataFrame
    means: pd.DataFrame
    optimistic: bool
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """The finding: how the best learning rate goes with batch size."""
        best = self.means[self.means["best"]]
        pairs = list(zip(best["batch_size"].tolist(), best["learning_rate"].tolist(), strict=True))
        rates = [rate for _, rate in pairs]
        (first, low), (last, high) = pairs[0], pairs[-1]
        if len(set(rates)) == 1:
            everywhere = len(pairs) == len(self.batch_sizes) > 1
            where = "every batch size" if everywhere else f"batch {batch_sizes([size for size, _ in pairs])}"
            return f"The best learning rate is {low:g} at {where}"
        verb = {tuple(sorted(rates)): "rises", tuple(sorted(rates, reverse=True)): "falls"}.get(
            tuple(rates), "goes"
        )
        return f"The best learning rate {verb} from {low:g} at batch {first} to {high:g} at batch {last}"


def learning_rates_info(analysis: Analysis) -> LearningRatesInfo | None:
    """Numbers of the learning rates' figure; None without a grid, or with no finite figure to draw."""
    found, goal = analysis.learning_rates, analysis.learning_rates.goal
    means = _medians(found.points) if goal is not None else _means(found.points)
    if not means["best"].any():
        return None
    points = _to_target(found.trials) if goal is not None else _finals(found.points)
    return LearningRatesInfo(
        quantity="updates" if goal is not None else quantity_name(found.chosen_by or ""),
        target="" if goal is None else target_text(goal.metric, goal.value),
        batch_sizes=analysis.facts.batch_sizes,
        points=points if len(points) <= POINTS else points.iloc[:0],
        means=means,
        optimistic=found.optimistic,
        notes=_notes(found.points) if goal is None else _notes_to_target(found.points),
    )


def learning_rates_chart(info: LearningRatesInfo) -> alt.LayerChart | alt.FacetChart:
    """A line of means or medians for each batch size, its trials as dots or triangles, its best as a ring."""
    values = pd.concat([info.points["value"], info.means["value"]])
    if info.target:
        y = count_axis("value", "Updates to the target", values)
    else:
        domain = value_domain(values, info.quantity.split()[-1])
        y = value_axis("value", info.quantity.capitalize(), domain)
    x = _rate_axis(sorted(set(info.means["learning_rate"])))
    tips = tooltips("batch_size", "learning_rate", "value", "replicates")
    data = pd.concat([info.means.assign(kind="mean"), info.points], ignore_index=True)
    kind = alt.Chart().transform_filter
    colour = batch_size_colour(info.batch_sizes)
    means = kind(alt.datum.kind == "mean").encode(x=x, y=y, color=colour)
    dots = kind(alt.datum.kind == "trial").mark_circle(size=34, opacity=0.6)
    censored = kind(alt.datum.kind == "censored").mark_point(filled=False, shape="triangle-up", size=60)
    ring = means.transform_filter(alt.FieldEqualPredicate(field="best", equal=True))
    layered = alt.layer(
        means.mark_line(strokeWidth=1.75),
        dots.encode(x=x, y=y, color=colour),
        *([censored.encode(x=x, y=y, color=colour)] if info.target else []),
        means.mark_circle(opacity=0, size=90).encode(tooltip=tips),
        ring.mark_point(size=190, strokeWidth=2.5, opacity=1).encode(tooltip=tips),
        data=inline(data),
    )
    return layered.properties(width=PANELS.width, height=300)


def learning_rates_figure(info: LearningRatesInfo, label: str) -> Figure:
    """The learning rates with their finding."""
    return Figure(
        key="learning-rates",
        label=label,
        title=info.title,
        caption=_caption_to_target(info) if info.target else _caption(info),
        notes=info.notes,
        chart=learning_rates_chart(info),
        panels=PANELS,
    )


def _caption(info: LearningRatesInfo) -> str:
    by = (
        "The best was chosen by the figures shown, which are optimistic there."
        if info.optimistic
        else "No other figure rests on the examples that it was measured on; the replicates are the same."
    )
    return (
        f"{info.quantity.capitalize()} at the end of training. Dots: trials; lines: their means; rings: the "
        f"best learning rate of each batch size, at which all other figures compare them. {by}"
    )


def _caption_to_target(info: LearningRatesInfo) -> str:
    parts = [f"Updates to {info.target}, at which trials end. Dots: trials that got there."]
    if (info.points["kind"] == "censored").any():
        parts.append(
            "Open triangles: trials that have not, ended or still running; they stand at their last updates, "
            "and so lie higher."
        )
    parts.append(
        "Lines: medians, where enough trials got there; rings: the best learning rate of each batch size (of "
        "those that missed the target least often the soonest, over the replicates that all share), at which "
        "all other figures compare them. As the same trials chose it, its updates are too few."
    )
    return " ".join(parts)


def _means(points: Sequence[LearningRatePoint]) -> pd.DataFrame:
    rows = [
        (point.batch_size, point.learning_rate, found.mean, found.n, point.chosen)
        for point in points
        if (found := point.selection) is not None and math.isfinite(found.mean)
    ]
    return pd.DataFrame(rows, columns=_MEANS)


def _medians(points: Sequence[LearningRatePoint]) -> pd.DataFrame:
    rows = [
        (point.batch_size, point.learning_rate, found.updates.value, found.n_trials, point.chosen)
        for point in points
        if (found := point.to_target) is not None and found.updates.value > 0
    ]
    return pd.DataFrame(rows, columns=_MEANS)


def _finals(points: Sequence[LearningRatePoint]) -> pd.DataFrame:
    rows = [
        (point.batch_size, point.learning_rate, value, "trial") for point in points for value in point.finals
    ]
    return pd.DataFrame(rows, columns=_POINTS)


def _to_target(trials: Sequence[TrialToTarget]) -> pd.DataFrame:
    kinds = {"reached": "trial", "censored": "censored"}
    rows = [
        (trial.batch_size, trial.learning_rate, trial.updates, kinds[trial.outcome])
        for trial in trials
        if trial.outcome in kinds and trial.updates > 0
    ]
    return pd.DataFrame(rows, columns=_POINTS)


def _rate_axis(rates: list[float]) -> alt.X:
    """A logarithmic axis with the learning rates themselves as ticks."""
    return alt.X(
        "learning_rate:Q",
        title="Learning rate (log scale)",
        scale=alt.Scale(type="log", domain=[rates[0] / 1.3, rates[-1] * 1.3], nice=False),
        axis=alt.Axis(values=rates, format="~g", labelOverlap=True),
    )


def _notes(points: Sequence[LearningRatePoint]) -> tuple[str, ...]:
    diverged, missing = (
        sum(getattr(point, name) for point in points) for name in ("n_diverged", "n_missing")
    )
    notes = []
    if diverged:
        notes.append(f"{count(diverged, 'trial')} diverged and cannot be drawn.")
    if missing:
        verb = "has" if missing == 1 else "have"
        notes.append(f"{count(missing, 'trial')} {verb} not come to the end and cannot be drawn.")
    return tuple(notes)


def _notes_to_target(points: Sequence[LearningRatePoint]) -> tuple[str, ...]:
    diverged = sum(point.n_diverged for point in points)
    rows = [point.to_target for point in points if point.chosen and point.to_target is not None]
    without = [row.batch_size for row in rows if not row.updates.value > 0]
    notes = []
    if diverged:
        notes.append(f"{count(diverged, 'trial')} diverged before the target and cannot be drawn.")
    if without:
        notes.append(f"Batch {batch_sizes(without)} has no ring: too few trials got there for a median.")
    return tuple(notes)
