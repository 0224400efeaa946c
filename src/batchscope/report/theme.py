"""Colours and type of all charts: one ordered colour scale by batch size, on light and on dark ground.

Lightness falls steadily from the smallest batch size to the largest, so the order can be read in
greyscale and with any colour vision; the hue runs from orange over magenta to indigo on both
grounds. Every colour keeps a contrast of at least 3:1 with its ground (WCAG 2.2, 1.4.11).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["DARK", "LIGHT", "Ground", "batch_size_colours", "chart_config"]

FONT = "system-ui, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"


@dataclass(frozen=True)
class Ground:
    """The colours that go with one background.

    Attributes:
        paper: The background itself.
        ink: Titles and labels.
        muted: Axis titles and secondary text.
        rule: Axis lines, ticks and reference lines.
        grid: Grid lines.
        anchors: The batch-size scale from smallest to largest, evenly spaced.
        terms: Of the terms that the gap is made of, in their order: cool hues and a grey, apart from
            the batch-size scale, and told from each other with any colour vision.
    """

    paper: str
    ink: str
    muted: str
    rule: str
    grid: str
    anchors: tuple[str, ...]
    terms: tuple[str, ...]


LIGHT = Ground(
    paper="#ffffff",
    ink="#1b1f24",
    muted="#4d5561",
    rule="#737b87",
    grid="#e4e7eb",
    anchors=("#d97c08", "#d2372a", "#a5106c", "#66118a", "#1f1676"),
    terms=("#666869", "#1593d6", "#0a4148", "#8a9629"),
)
DARK = Ground(
    paper="#14171c",
    ink="#eceff3",
    muted="#b3bac4",
    rule="#8a929e",
    grid="#2b3038",
    anchors=("#ffca8f", "#ff9c85", "#f36fae", "#b968dc", "#6a66e6"),
    terms=("#6d7071", "#4f95e0", "#aef2f7", "#b4c142"),
)


def batch_size_colours(count: int, ground: Ground) -> tuple[str, ...]:
    """The colours of `count` batch sizes, smallest first, as ``#rrggbb``.

    They are taken at even steps along the ground's anchors, linear in sRGB; one batch size alone
    takes the middle.
    """
    if count == 1:
        return (ground.anchors[len(ground.anchors) // 2],)
    return tuple(_between(ground.anchors, index / (count - 1)) for index in range(count))


def chart_config(colours: tuple[str, ...], ground: Ground, font: str = FONT) -> dict[str, Any]:
    """Vega-Lite's ``config`` for charts on one ground.

    Args:
        colours: Of all batch sizes of the study, smallest first; any CSS colours.
        ground: Its fields may hold any CSS colours too.
        font: CSS font family.
    """
    label = {"labelFont": font, "labelFontSize": 12, "labelColor": ground.muted}
    title = {"titleFont": font, "titleFontSize": 12, "titleColor": ground.muted, "titleFontWeight": "normal"}
    return {
        "background": None,
        "font": font,
        "padding": 6,
        "range": {"ordinal": list(colours), "category": list(ground.terms)},
        "style": {"ink": {"color": ground.ink}},
        "bar": {"stroke": ground.paper, "strokeWidth": 1},
        "view": {"stroke": None},
        "axis": {
            **label,
            **title,
            "domainColor": ground.rule,
            "tickColor": ground.rule,
            "gridColor": ground.grid,
            "titlePadding": 8,
            "labelPadding": 4,
            "tickSize": 4,
        },
        "axisX": {"grid": False},
        "axisY": {"domain": False, "ticks": False},
        "header": {
            **label,
            **title,
            "labelColor": ground.ink,
            "labelFontWeight": 600,
            "labelAnchor": "start",
            "labelPadding": 6,
        },
        "legend": {
            **label,
            **title,
            "orient": "top",
            "symbolType": "stroke",
            "symbolStrokeWidth": 3,
            "symbolSize": 240,
        },
        "title": {
            "font": font,
            "subtitleFont": font,
            "color": ground.ink,
            "subtitleColor": ground.muted,
            "fontSize": 13,
            "fontWeight": 600,
            "subtitleFontSize": 12,
            "anchor": "start",
            "frame": "group",
        },
        "text": {"font": font, "fontSize": 12, "color": ground.muted},
        "rule": {"color": ground.rule},
        "mark": {"color": ground.rule},
    }


def _between(anchors: tuple[str, ...], share: float) -> str:
    place = share * (len(anchors) - 1)
    left = min(int(place), len(anchors) - 2)
    rest = place - left
    pairs = zip(_channels(anchors[left]), _channels(anchors[left + 1]), strict=True)
    return "#" + "".join(f"{round(low + (high - low) * rest):02x}" for low, high in pairs)


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
