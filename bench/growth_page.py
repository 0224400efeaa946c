"""What growth's measurements look like: a table and a chart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np
import pandas as pd
import vl_convert

from batchscope.report.render import PICTURE_FONT, SCALE
from batchscope.report.theme import LIGHT, chart_config

__all__ = ["SERIES", "Measurement", "Point", "growth_chart", "growth_table", "straight"]

SERIES = ("Images", "Replicates", "Batch sizes")
_PANEL = (200, 150)
_Chart = alt.LayerChart | alt.FacetChart


@dataclass(frozen=True)
class Point:
    """A run that is measured.

    Attributes:
        series: What grows.
        count: How many there are of that.
        images: Training and validation together.
        replicates: Of each batch size.
        batch_sizes: All of them.
    """

    series: str
    count: int
    images: int
    replicates: int
    batch_sizes: tuple[int, ...]


@dataclass(frozen=True)
class Measurement:
    """What was seen of a run.

    Attributes:
        point: The run.
        seconds: From its start to its exit.
        page_seconds: Of them, after the last trial ended.
        memory: Bytes at the peak, pages of mapped files among them.
        private: Bytes at the peak that are no file's.
        disk: Bytes that its cache took up at the peak.
    """

    point: Point
    seconds: float
    page_seconds: float
    memory: int
    private: int
    disk: int


@dataclass(frozen=True)
class Straight:
    """A least-squares line through a series' seconds.

    Attributes:
        start: Seconds where the count is 0.
        each: Seconds that one more takes.
        worst: Largest distance of a point from the line, as a share of the point's seconds.
    """

    start: float
    each: float
    worst: float


def straight(counts: Sequence[float], seconds: Sequence[float]) -> Straight:
    """The line through measurements, and how far from it they are."""
    each, start = (float(value) for value in np.polyfit(counts, seconds, 1))
    seen = np.asarray(seconds, dtype=float)
    worst = float(np.max(np.abs(start + each * np.asarray(counts, dtype=float) - seen) / seen))
    return Straight(start, each, worst)


def growth_table(measured: Sequence[Measurement]) -> str:
    """One row a run, and below what the lines through them say."""
    head = ("Grows", "Images", "Replicates", "Batch sizes", "Time, s", "of which page, s", "Memory, GB")
    names = (*head, "of which not of files, GB", "Cache on disk, GB")
    rows = [names, ("---",) * len(names), *(_cells(each) for each in measured)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\n" + "\n".join(_sentence(name, measured) for name in SERIES)


def _cells(each: Measurement) -> tuple[str, ...]:
    point = each.point
    return (
        point.series.lower(),
        f"{point.images:,}",
        str(point.replicates),
        _span(point.batch_sizes),
        f"{each.seconds:.0f}",
        f"{each.page_seconds:.0f}",
        *(f"{size / 1e9:.1f}" for size in (each.memory, each.private, each.disk)),
    )


def _span(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes)) if len(sizes) < 3 else f"{len(sizes)}: {sizes[0]} to {sizes[-1]}"


def _sentence(series: str, measured: Sequence[Measurement]) -> str:
    found = [each for each in measured if each.point.series == series]
    line = straight([each.point.count for each in found], [each.seconds for each in found])
    unit, times = ("1,000 images", 1000) if series == SERIES[0] else (series.lower()[:-1], 1)
    return (
        f"- {series}: {line.each * times:.1f} s for each further {unit}, on top of {line.start:.0f} s; the "
        f"runs lie within {line.worst:.0%} of that line."
    )


def growth_chart(measured: Sequence[Measurement]) -> bytes:
    """PNG: minutes with their line above, gigabytes below, a column for each series."""
    highest = max(each.memory for each in measured) / 1e9
    columns = [_column([each for each in measured if each.point.series == name], highest) for name in SERIES]
    width, height = _PANEL
    rows = [
        alt.hconcat(
            *(column[row].properties(width=width, height=height) for column in columns),
            bounds="flush",
            spacing=80,
        )
        for row in range(2)
    ]
    spec = alt.vconcat(*rows).to_dict()
    config = chart_config(LIGHT.terms, LIGHT, PICTURE_FONT)
    spec["config"] = {**config, "background": LIGHT.paper, "padding": 16}
    return bytes(vl_convert.vegalite_to_png(json.dumps(spec), scale=SCALE))


def _column(found: Sequence[Measurement], highest: float) -> tuple[_Chart, _Chart]:
    name = found[0].point.series
    counts = [each.point.count for each in found]
    minutes = [each.seconds / 60 for each in found]
    line = straight(counts, minutes)
    time = pd.DataFrame({"count": counts, "minutes": minutes})
    fit = pd.DataFrame({"count": [0, max(counts)]})
    fit["minutes"] = line.start + line.each * fit["count"]
    x = alt.X(
        "count:Q",
        title=name,
        scale=alt.Scale(domainMin=0, nice=False, padding=8),
        axis=alt.Axis(tickCount=5, format="~s"),
    )
    y = alt.Y("minutes:Q", title="Minutes", scale=alt.Scale(domain=[0, 1.1 * max(minutes)], nice=True))
    above = alt.layer(
        alt.Chart(fit).mark_line(color=LIGHT.rule, strokeWidth=1.5).encode(x, y),
        alt.Chart(time).mark_point(filled=True, size=50, opacity=1, color=LIGHT.ink).encode(x, y),
    )
    sizes = {"all": "memory", "without mapped files": "private"}
    memory = pd.DataFrame(
        [
            {"count": each.point.count, "GB": getattr(each, field) / 1e9, "Memory": label}
            for each in found
            for label, field in sizes.items()
        ]
    )
    below = alt.layer(
        alt.Chart(memory)
        .mark_line(point=alt.OverlayMarkDef(size=50))
        .encode(
            x,
            alt.Y("GB:Q", title="Peak memory, GB", scale=alt.Scale(domain=[0, 1.1 * highest], nice=True)),
            alt.Color(
                "Memory:N",
                scale=alt.Scale(domain=list(sizes), range=list(LIGHT.terms[:2])),
                legend=alt.Legend(title="Memory", orient="bottom"),
            ),
        )
    )
    return above, below
