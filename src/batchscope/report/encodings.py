"""The encodings that all charts share: colour by batch size, dashes by part, the axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import altair as alt
import numpy as np
import pandas as pd

from batchscope.report.curves import PARTS, StageStart, even_choice

__all__ = [
    "HOVER",
    "batch_size_axis",
    "batch_size_colour",
    "count_axis",
    "epoch_axis",
    "hover_points",
    "inline",
    "log_axis",
    "part_dash",
    "stage_rules",
    "tooltips",
    "updates_axis",
    "value_axis",
    "value_domain",
    "whole_ticks",
]

HOVER = "hover"
"""Name of layers that only answer to the pointer; pictures go without them."""
LEGEND_ENTRIES = 12
AXIS_TICKS = 12
EPOCH_TICKS = 6
DECIMALS = 6


def inline(table: pd.DataFrame) -> alt.InlineData:
    """A table as inline data: rows in JSON, figures with six decimals, NaN as null.

    It is handed over as text, because Altair would check every value of every row against its
    schema, which takes seconds.
    """
    rows = table.to_json(orient="records", double_precision=DECIMALS)
    return alt.InlineData(values=rows, format=alt.JsonDataFormat(type="json"))


def batch_size_colour(batch_sizes: Sequence[int], legend: bool = True) -> alt.Color:
    """Colour by batch size, on the one ordered scale of the theme."""
    shown = even_choice(batch_sizes, LEGEND_ENTRIES)
    return alt.Color(
        "batch_size:O",
        scale=alt.Scale(domain=list(batch_sizes)),
        legend=alt.Legend(title="Batch size (examples)", values=shown) if legend else None,
    )


def part_dash(parts: Sequence[str]) -> alt.StrokeDash:
    """Validation solid, training dashed."""
    domain = [part for part in reversed(PARTS) if part in parts]
    dashes = [[1, 0] if part == "validation" else [4, 3] for part in domain]
    return alt.StrokeDash(
        "part:N", scale=alt.Scale(domain=domain, range=dashes), legend=alt.Legend(title=None, symbolSize=400)
    )


def batch_size_axis(batch_sizes: Sequence[int], title: str = "Batch size (examples)") -> alt.X:
    """A logarithmic axis to base 2 with the batch sizes themselves as ticks."""
    low, high = min(batch_sizes), max(batch_sizes)
    margin = 2 ** max(0.3, 0.06 * math.log2(high / low))
    return alt.X(
        "batch_size:Q",
        title=title,
        scale=alt.Scale(type="log", base=2, domain=[low / margin, high * margin], nice=False),
        axis=alt.Axis(values=even_choice(batch_sizes, AXIS_TICKS), format="d", labelOverlap=True),
    )


def epoch_axis(limits: tuple[int, int]) -> alt.X:
    """Epochs, counted on through the stages; ticks at whole epochs only.

    Args:
        limits: First and last value of the axis, first < last.
    """
    return alt.X(
        "epoch:Q",
        title="Epoch",
        scale=alt.Scale(domain=list(limits), nice=False, zero=False),
        axis=alt.Axis(values=whole_ticks(*limits), format="d", labelOverlap=True),
    )


def whole_ticks(first: int, last: int) -> list[int]:
    """Whole numbers at round steps (1, 2 or 5 times a power of ten), at most `EPOCH_TICKS`.

    Args:
        first: No tick lies below it.
        last: No tick lies above it, first <= last.
    """
    steps = (factor * 10**power for power in itertools.count() for factor in (1, 2, 5))
    # -(-first // step) * step is the first multiple of a step from `first` on.
    found = (range(-(-first // step) * step, last + 1, step) for step in steps)
    return list(next(ticks for ticks in found if len(ticks) <= EPOCH_TICKS))


def updates_axis(updates: pd.Series, title: str) -> alt.X:
    """Updates on a logarithmic axis with ticks at 1, 2 and 5 times powers of ten.

    Args:
        updates: All that the axis must hold; those below 1 have no place on it.
        title: What they are counted from.
    """
    positive = updates[updates > 0]
    low, high = (float(positive.min()), float(positive.max())) if len(positive) else (1.0, 10.0)
    domain = [low / 1.15, max(high, low) * 1.15]
    return alt.X(
        "updates:Q",
        title=f"{title} (log scale)",
        scale=alt.Scale(type="log", domain=domain, nice=False),
        axis=alt.Axis(format=",d", values=_one_two_five(*domain), labelOverlap=True),
    )


def count_axis(field: str, title: str, values: pd.Series) -> alt.Y:
    """Counts upwards on a logarithmic axis with ticks at 1, 2 and 5 times powers of ten.

    Args:
        field: Column of the data.
        title: What is counted.
        values: All that the axis must hold, above 0.
    """
    domain = [float(values.min()) / 1.3, float(values.max()) * 1.3]
    return alt.Y(
        f"{field}:Q",
        title=f"{title} (log scale)",
        scale=alt.Scale(type="log", domain=domain, nice=False),
        axis=alt.Axis(format=",d", values=_one_two_five(*domain), labelOverlap=True),
    )


def value_axis(
    field: str, title: str, domain: Sequence[float], stack: Literal["zero"] | None = None
) -> alt.Y:
    """A quantitative axis over a given domain, not forced to hold zero.

    Args:
        field: Column of the data.
        title: What it shows, with its unit.
        domain: First and last value of the axis.
        stack: ``zero`` piles marks of one place up from zero, negative ones down.
    """
    return alt.Y(
        f"{field}:Q",
        title=title,
        scale=alt.Scale(domain=list(domain), nice=False, zero=False),
        axis=alt.Axis(tickCount=5),
        stack=alt.Undefined if stack is None else stack,
    )


def log_axis(field: str, title: str, values: pd.Series) -> alt.Y:
    """A logarithmic axis with ticks at 1, 2 and 5 times powers of ten, or more, and room around the values.

    Args:
        field: Column of the data.
        title: What it shows, with its unit.
        values: All that the axis must hold; those that are not above 0 and finite do not count.
    """
    shown = values[np.isfinite(values) & (values > 0)]
    low, high = (float(shown.min()) / 1.15, float(shown.max()) * 1.15) if len(shown) else (1.0, 10.0)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low >= 10 else (1, 1.1, 1.2, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    ticks = [step * 10.0**power for power in powers for step in steps]
    return alt.Y(
        f"{field}:Q",
        title=title,
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(values=[tick for tick in ticks if low <= tick <= high], format=",~g"),
    )


def value_domain(values: pd.Series, measure: str) -> tuple[float, float]:
    """Limits of an axis: the data, widened to round steps; an accuracy ends at 1 at most.

    All of the data are inside. Values that are not finite do not count; without any the axis
    runs from 0 to 1.
    """
    finite = values[np.isfinite(values)]
    if finite.empty:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    step = _round_step((high - low) / 5 or abs(high) / 10 or 1.0)
    bottom, top = math.floor(low / step) * step, math.ceil(high / step) * step
    if bottom == top:
        bottom, top = bottom - step, top + step
    if measure == "accuracy" and high <= 1.0:
        bottom, top = max(bottom, 0.0), min(top, 1.0)
    elif measure == "loss" and low >= 0:
        bottom = 0.0
    return round(bottom, 10), round(top, 10)


def stage_rules(starts: Sequence[StageStart], names: Literal["top", "bottom", "none"]) -> list[alt.Chart]:
    """A vertical rule between two stages, with the later stage's name beside it.

    Args:
        starts: From `batchscope.report.curves.stage_starts`; none gives no layers.
        names: Where the names stand: away from where the curves of later stages run.
    """
    if not starts:
        return []
    table = pd.DataFrame(
        {
            "start": [start.epoch - 0.5 for start in starts],
            "stage": [f"{start.stage.replace('_', ' ')} starts" for start in starts],
        }
    )
    base = alt.Chart(inline(table)).encode(x="start:Q")
    rule = base.mark_rule(strokeDash=[2, 3], strokeWidth=1.25)
    if names == "none":
        return [rule]
    bottom = names == "bottom"
    label = base.mark_text(align="left", baseline="bottom" if bottom else "top", dx=5, dy=-3 if bottom else 3)
    return [rule, label.encode(text="stage:N", y=alt.value("height") if bottom else alt.value(0))]


def tooltips(*fields: str) -> list[alt.Tooltip]:
    """What a mark says under the pointer, field by field."""
    words = ("replicate", "part", "stage", "target", "term")
    return [
        alt.Tooltip(f"{field}:{'N' if field in words else 'Q'}", title=field.replace("_", " "))
        for field in fields
    ]


def hover_points(base: alt.Chart, fields: Sequence[str]) -> alt.Chart:
    """Points that cannot be seen, large enough to be hit, that show a tooltip."""
    circles = base.mark_circle(opacity=0, size=90).encode(tooltip=tooltips(*fields))
    points: alt.Chart = circles.properties(name=HOVER)
    return points


def _one_two_five(low: float, high: float) -> list[int]:
    """The numbers 1, 2 and 5 times a power of ten that lie between two limits."""
    powers = range(math.floor(math.log10(max(low, 1))), math.ceil(math.log10(high)) + 1)
    return [step * 10**power for power in powers for step in (1, 2, 5) if low <= step * 10**power <= high]


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return float(next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999))
