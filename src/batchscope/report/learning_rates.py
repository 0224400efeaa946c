"""What each learning rate of a grid came to at each batch size, and which was best."""

from __future__ import annotations

import math
from dataclasses import dataclass

import altair as alt
import pandas as pd

from batchscope.analysis.results import Analysis, LearningRatePoint
from batchscope.analysis.words import count, quantity_name
from batchscope.report.curves import POINTS
from batchscope.report.encodings import batch_size_colour, inline, tooltips, value_axis, value_domain
from batchscope.report.figure import Figure, Panels

__all__ = ["LearningRatesInfo", "learning_rates_chart", "learning_rates_figure", "learning_rates_info"]

PANELS = Panels(columns=1, width=560, margin=78)


@dataclass(frozen=True)
class LearningRatesInfo:
    """Numbers of the learning rates' figure.

    Attributes:
        quantity: What the best was chosen by.
        batch_sizes: Of the whole study.
        points: Columns ``batch_size``, ``learning_rate``, ``value``, a row for each trial that came to its
            end; none where there are too many to draw.
        means: Columns ``batch_size``, ``learning_rate``, ``value`` (mean over these trials),
            ``replicates`` and ``best``.
        optimistic: Whether the best was chosen by the metric that is analysed.
        notes: What is left out.
    """

    quantity: str
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
            where = "every batch size" if len(pairs) > 1 else f"batch {first}"
            return f"The best learning rate is {low:g} at {where}"
        verb = {tuple(sorted(rates)): "rises", tuple(sorted(rates, reverse=True)): "falls"}.get(
            tuple(rates), "goes"
        )
        return f"The best learning rate {verb} from {low:g} at batch {first} to {high:g} at batch {last}"


def learning_rates_info(analysis: Analysis) -> LearningRatesInfo | None:
    """Numbers of the learning rates' figure; None without a grid, or with no finite figure to draw."""
    found = analysis.learning_rates
    drawn = [point for point in found.points if math.isfinite(point.selection.mean)]
    if not any(point.chosen for point in drawn):
        return None
    points = pd.DataFrame(
        [(point.batch_size, point.learning_rate, value) for point in drawn for value in point.finals],
        columns=["batch_size", "learning_rate", "value"],
    )
    means = pd.DataFrame(
        [
            (point.batch_size, point.learning_rate, point.selection.mean, point.selection.n, point.chosen)
            for point in drawn
        ],
        columns=["batch_size", "learning_rate", "value", "replicates", "best"],
    )
    return LearningRatesInfo(
        quantity=found.chosen_by or "",
        batch_sizes=analysis.facts.batch_sizes,
        points=points if len(points) <= POINTS else points.iloc[:0],
        means=means,
        optimistic=found.optimistic,
        notes=_notes(found.points),
    )


def learning_rates_chart(info: LearningRatesInfo) -> alt.LayerChart | alt.FacetChart:
    """A line of means for each batch size, its trials as dots, its best as a ring."""
    name = quantity_name(info.quantity)
    domain = value_domain(pd.concat([info.points["value"], info.means["value"]]), name.split()[-1])
    y = value_axis("value", name.capitalize(), domain)
    x = _rate_axis(sorted(set(info.means["learning_rate"])))
    tips = tooltips("batch_size", "learning_rate", "value", "replicates")
    data = pd.concat([info.means.assign(kind="mean"), info.points.assign(kind="trial")], ignore_index=True)
    kind = alt.Chart().transform_filter
    colour = batch_size_colour(info.batch_sizes)
    means = kind(alt.datum.kind == "mean").encode(x=x, y=y, color=colour)
    dots = kind(alt.datum.kind == "trial").mark_circle(size=34, opacity=0.6)
    ring = means.transform_filter(alt.FieldEqualPredicate(field="best", equal=True))
    layered = alt.layer(
        means.mark_line(strokeWidth=1.75),
        dots.encode(x=x, y=y, color=colour),
        means.mark_circle(opacity=0, size=90).encode(tooltip=tips),
        ring.mark_point(size=190, strokeWidth=2.5, opacity=1).encode(tooltip=tips),
        data=inline(data),
    )
    return layered.properties(width=PANELS.width, height=300)


def learning_rates_figure(info: LearningRatesInfo, label: str) -> Figure:
    """The learning rates with their finding."""
    name = quantity_name(info.quantity)
    by = (
        "The best was chosen by the figures shown, which are optimistic there."
        if info.optimistic
        else "No other figure rests on the examples that it was measured on; the replicates are the same."
    )
    return Figure(
        key="learning-rates",
        label=label,
        title=info.title,
        caption=f"{name.capitalize()} at the end of training. Dots: trials; lines: their means; rings: the "
        f"best learning rate of each batch size, at which all other figures compare them. {by}",
        notes=info.notes,
        chart=learning_rates_chart(info),
        panels=PANELS,
    )


def _rate_axis(rates: list[float]) -> alt.X:
    """A logarithmic axis with the learning rates themselves as ticks."""
    return alt.X(
        "learning_rate:Q",
        title="Learning rate (log scale)",
        scale=alt.Scale(type="log", domain=[rates[0] / 1.3, rates[-1] * 1.3], nice=False),
        axis=alt.Axis(values=rates, format="~g", labelOverlap=True),
    )


def _notes(points: tuple[LearningRatePoint, ...]) -> tuple[str, ...]:
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
