"""What figures A and B share: curves of training and validation, in a panel for each group."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from batchscope.report.curves import PARTS, Measure
from batchscope.report.encodings import (
    batch_size_colour,
    epoch_axis,
    hover_points,
    inline,
    part_dash,
    value_axis,
    value_domain,
)
from batchscope.report.figure import Panels

__all__ = ["curve_layers", "faceted"]

_TOOLTIP = ("batch_size", "replicate", "part", "epoch", "value")


def curve_layers(
    points: pd.DataFrame, measure: Measure, batch_sizes: Sequence[int], *, faint: bool
) -> list[alt.Chart]:
    """A line for each replicate and part, coloured by batch size, and points that show a tooltip.

    Args:
        points: Columns ``batch_size``, ``replicate``, ``epoch``, ``part``, ``value``, and perhaps
            ``low`` and ``high``, which the axis then has room for.
        measure: ``accuracy`` or ``loss``.
        batch_sizes: Of the whole study.
        faint: Thinner and paler lines, where several share a panel.
    """
    shown = pd.concat([points[name] for name in ("value", "low", "high") if name in points.columns])
    base = alt.Chart().encode(
        x=epoch_axis((0, int(points["epoch"].max()))),
        y=value_axis("value", measure.capitalize(), value_domain(shown, measure)),
        color=batch_size_colour(batch_sizes, legend=False),
        detail="replicate:N",
    )
    line = base.mark_line(strokeWidth=1.5 if faint else 2, opacity=0.8 if faint else 1)
    parts = tuple(part for part in PARTS if (points["part"] == part).any())
    return [line.encode(strokeDash=part_dash(parts)), hover_points(base, _TOOLTIP)]


def faceted(layers: Sequence[alt.Chart], points: pd.DataFrame, panels: Panels, height: int) -> alt.FacetChart:
    """The layers once for each value of the column ``panel``, in the order of the column ``order``."""
    header = alt.Facet("panel:N", title=None, sort=alt.EncodingSortField(field="order", op="min"))
    layered = alt.layer(*layers, data=inline(points)).properties(width=panels.width, height=height)
    return layered.facet(facet=header, columns=panels.columns).properties(spacing=18)
