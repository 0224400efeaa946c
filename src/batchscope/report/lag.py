"""How far BatchNorm's moving averages lag behind, by updates."""

from __future__ import annotations

from dataclasses import dataclass

import altair as alt
import numpy as np
import pandas as pd

from batchscope.analysis.results import Analysis
from batchscope.report.encodings import (
    batch_size_colour,
    hover_points,
    inline,
    updates_axis,
    value_axis,
    value_domain,
)
from batchscope.report.figure import Figure, Panels
from batchscope.report.words import Level, level_sentence

__all__ = ["LagInfo", "lag_chart", "lag_figure", "lag_info"]

PANELS = Panels(columns=2, width=380, margin=72)
COLUMNS = {
    "distance": "probe_batchnorm_lag_mean",
    "largest": "probe_batchnorm_lag_max",
    "weight": "probe_batchnorm_stale_weight",
}
TOLERANCE = 0.01
"""Distances closer than a hundredth of a standard deviation are not called a rise or a fall."""
CURVE_POINTS = 80


@dataclass(frozen=True)
class LagInfo:
    """Numbers of the figure.

    Attributes:
        batch_sizes: Of the whole study.
        points: Columns ``batch_size``, ``stage``, ``epoch``, ``updates``, ``distance`` (of the
            moving averages from the recalibrated ones in units of the recalibrated standard
            deviation, mean over layers), ``largest`` (of the layer where it is largest) and
            ``weight`` (that the averages from before the training still have), NaN without such a
            column, and ``replicates``; means over replicates.
        ends: Distance at each batch size's last probed epoch; where trials have ends of their own, the mean
            over their last probes in the last stage that was probed at this batch size.
        momentum: Of which the weight is the power at the number of updates; None where it is none.
    """

    batch_sizes: tuple[int, ...]
    points: pd.DataFrame
    ends: tuple[Level, ...]
    momentum: float | None

    @property
    def title(self) -> str:
        """The finding: how the distance goes with batch size at the last probe."""
        name = "The distance of BatchNorm's moving averages from the recalibrated ones"
        return level_sentence(name, self.ends, "(in standard deviations, at the last probe)", TOLERANCE)


def lag_info(history: pd.DataFrame, analysis: Analysis) -> LagInfo | None:
    """Numbers of the figure; None without a column of updates or of the distance, or without figures."""
    if "updates" not in history.columns or COLUMNS["distance"] not in history.columns:
        return None
    table = history[["batch_size", "replicate", "epoch", "updates"]].assign(
        stage=history["stage"] if "stage" in history.columns else "",
        **{name: history.get(column, np.nan) for name, column in COLUMNS.items()},
    )
    table = table[np.isfinite(table["distance"]) & (table["updates"] > 0)]
    if table.empty:
        return None
    grouped = table.groupby(["batch_size", "stage", "epoch"], sort=True)
    means = grouped.agg(
        updates=("updates", "mean"),
        **{name: (name, "mean") for name in COLUMNS},
        replicates=("distance", "count"),
    )
    points = means.reset_index().sort_values(["batch_size", "epoch"], ignore_index=True)
    last = _own_ends(table) if analysis.facts.own_ends else points.groupby("batch_size").tail(1)
    return LagInfo(
        batch_sizes=analysis.facts.batch_sizes,
        points=points,
        ends=tuple(
            Level(int(size), float(distance))
            for size, distance in zip(last["batch_size"], last["distance"], strict=True)
        ),
        momentum=_momentum(table),
    )


def _own_ends(table: pd.DataFrame) -> pd.DataFrame:
    """Mean distance at the trials' last probes, a row for each batch size."""
    probes = table.sort_values("epoch", kind="stable").groupby(["batch_size", "replicate"]).tail(1)
    stage = probes.groupby("batch_size")["stage"].transform("last")
    means = probes[probes["stage"] == stage].groupby("batch_size")["distance"].mean()
    return means.reset_index()


def lag_chart(info: LagInfo) -> alt.ConcatChart:
    """The distance against updates, and beside it the weight that stale statistics have."""
    distance = alt.layer(*_marks(info, "distance", "Standard deviations", joined=True))
    panels = [distance.properties(title=alt.TitleParams("Distance", subtitle="mean over layers"))]
    if info.points["weight"].notna().any():
        layers = [*_power_curve(info), *_marks(info, "weight", "Share of the average", joined=False)]
        curve = "" if info.momentum is None else f"dashed: {info.momentum:.6g} to the power of updates"
        title = alt.TitleParams("Weight of the starting averages", subtitle=curve)
        panels.append(alt.layer(*layers).properties(title=title))
    sized = [panel.properties(width=PANELS.width, height=250) for panel in panels]
    return alt.concat(*sized, data=inline(info.points), columns=PANELS.columns, spacing=24)


def lag_figure(info: LagInfo, label: str = "H") -> Figure:
    """The lag with its finding."""
    return Figure(
        key="batchnorm-lag",
        label=label,
        title=info.title,
        caption="Distance of the moving averages, by which validation is normalised, from statistics "
        "recomputed from clean training examples, in units of their standard deviation: means over "
        "layers and replicates at the probed epochs.",
        notes=(),
        chart=lag_chart(info),
        panels=PANELS,
    )


def _marks(info: LagInfo, field: str, name: str, *, joined: bool) -> list[alt.Chart]:
    base = alt.Chart().encode(
        x=updates_axis(info.points["updates"], "Updates"),
        y=value_axis(field, name, _domain(info.points[field])),
        color=batch_size_colour(info.batch_sizes),
    )
    tips = hover_points(base, ("stage", "batch_size", "epoch", "updates", "distance", "largest", "weight"))
    line = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=40))
    return [line if joined else base.mark_circle(size=45, opacity=1), tips]


def _power_curve(info: LagInfo) -> list[alt.Chart]:
    """momentum^n over the updates drawn."""
    if info.momentum is None:
        return []
    updates = np.geomspace(info.points["updates"].min(), info.points["updates"].max(), CURVE_POINTS)
    table = pd.DataFrame({"updates": updates, "weight": info.momentum**updates})
    curve = alt.Chart(inline(table)).mark_line(strokeWidth=1.5, strokeDash=[4, 3])
    return [
        curve.encode(
            x=updates_axis(info.points["updates"], "Updates"),
            y=value_axis("weight", "Share of the average", _domain(info.points["weight"])),
        )
    ]


def _domain(values: pd.Series) -> tuple[float, float]:
    return value_domain(pd.concat([values, pd.Series([0.0])]), "loss")


def _momentum(table: pd.DataFrame) -> float | None:
    """The one number whose power at the number of updates is the weight, everywhere; else None."""
    # Tiny weights say no more than that they are tiny.
    known = table[(table["weight"] > 1e-12) & (table["weight"] < 1)]
    if known.empty:
        return None
    roots = known["weight"] ** (1 / known["updates"])
    middle = float(roots.median())
    fits = np.isclose(known["weight"], middle ** known["updates"], rtol=1e-3)
    return middle if fits.all() else None
