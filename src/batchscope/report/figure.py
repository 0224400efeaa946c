"""A figure: a chart with the finding it shows, and what a reader must know to read it."""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import altair as alt

from batchscope.report.encodings import HOVER

__all__ = ["Figure", "Panels"]

CHARACTER_WIDTH = 7.6
"""Pixels that one character of a 15-pixel semibold title takes on average, on the wide side."""


@dataclass(frozen=True)
class Panels:
    """How a chart is divided, so that a page can set it anew for the width it has.

    Attributes:
        columns: Panels side by side where there is room.
        width: Width of one panel's plot in pixels.
        margin: Width that axis and spacing take beside each panel, in pixels.
        frame: Width that is taken once, for an axis that all panels of a row share.
    """

    columns: int
    width: int
    margin: int
    frame: int = 0

    @property
    def total(self) -> int:
        """Width of the whole chart in pixels, roughly."""
        return self.columns * (self.width + self.margin) + self.frame


@dataclass(frozen=True)
class Figure:
    """One figure of a report.

    Attributes:
        key: Name of its files and its place in the page.
        label: What it is called, for example ``A``; A to D are the 2019 study's.
        title: The finding, as a sentence without a full stop.
        caption: What is drawn, in full sentences.
        notes: What was left out or went wrong, in full sentences; often none.
        chart: Without title; its data are inline, and its top-level data are what a reader may
            want to have.
        panels: How it is divided.
    """

    key: str
    label: str
    title: str
    caption: str
    notes: tuple[str, ...]
    chart: alt.TopLevelMixin
    panels: Panels

    def spec(self) -> dict[str, Any]:
        """The Vega-Lite specification without title and theme; the caller's own."""
        found: dict[str, Any] = json.loads(self._spec)
        return found

    @cached_property
    def _spec(self) -> str:
        # Altair would hold the whole chart against its schema for a quarter of a second each time.
        spec: dict[str, Any] = self.chart.to_dict(validate=False)
        spec.pop("config", None)
        spec["datasets"] = {name: json.loads(rows) for name, rows in spec["datasets"].items()}
        spec["description"] = self.title
        return json.dumps(spec)

    def picture_title(self) -> dict[str, Any]:
        """Title, caption and notes as Vega-Lite's title, in lines as long as the chart is wide."""
        letters = max(48, int(self.panels.total / CHARACTER_WIDTH))
        return {
            "text": textwrap.wrap(self.title, letters),
            "subtitle": textwrap.wrap(" ".join([self.caption, *self.notes]), int(letters * 1.2)),
            "fontSize": 15,
            "offset": 14,
            "subtitlePadding": 6,
            "subtitleLineHeight": 16,
            "frame": "bounds",
        }

    def picture_spec(self) -> dict[str, Any]:
        """The Vega-Lite specification of a picture: with its title, without hover layers."""
        return {**_without_hover(self.spec()), "title": self.picture_title()}


def _without_hover(spec: dict[str, Any]) -> dict[str, Any]:
    """A copy of a specification without the layers that only answer to the pointer."""
    copied = dict(spec)
    if "layer" in spec:
        copied["layer"] = [_without_hover(layer) for layer in spec["layer"] if not _is_hover(layer)]
    if "concat" in spec:
        copied["concat"] = [_without_hover(panel) for panel in spec["concat"]]
    if "spec" in spec:
        copied["spec"] = _without_hover(spec["spec"])
    return copied


def _is_hover(layer: dict[str, Any]) -> bool:
    """Altair numbers equal names of layers, hence the prefix."""
    return str(layer.get("name", "")).startswith(HOVER)
