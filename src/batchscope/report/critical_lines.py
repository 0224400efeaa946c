"""The critical batch size of each target as a horizontal line, for charts with an axis in examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import pandas as pd

from batchscope.analysis.results import Analysis
from batchscope.analysis.to_target_findings import bounds_text, goal, misfit_text, undetermined_text
from batchscope.analysis.words import of_quantity
from batchscope.report.encodings import inline, tooltips

__all__ = ["NOT_DRAWN", "CriticalLine", "CriticalLines", "critical_layers", "critical_lines"]

# Of the first target, the second and so on; with the theme's four colours they tell twelve apart.
_DASHES = ([1, 0], [10, 3], [10, 3, 2, 3])


@dataclass(frozen=True)
class CriticalLine:
    """A critical batch size that is determined.

    Attributes:
        target: For example ``a validation accuracy of 0.850``.
        value: In examples, as are both ends.
        low: Lower end of its interval.
        high: Upper end.
        text: These in words, and whether the curve fits badly; a part of a sentence.
    """

    target: str
    value: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class CriticalLines:
    """Those of all targets that were asked for, in their order.

    Attributes:
        drawn: Of targets whose critical batch size is determined.
        undetermined: A sentence for each of the others: why, and which end of the interval is known.
    """

    drawn: tuple[CriticalLine, ...]
    undetermined: tuple[str, ...]

    @property
    def finding(self) -> str:
        """A clause for titles: the one that is drawn, or the range of several; empty without any."""
        if not self.drawn:
            return ""
        values = [line.value for line in self.drawn]
        if len(values) == 1:
            return f"the critical batch size for {self.drawn[0].target} is {of_quantity(values[0])}"
        low, high = of_quantity(min(values)), of_quantity(max(values))
        return f"critical batch sizes for {len(values)} targets are {low} to {high}"

    def caption(self, stages: int) -> list[str]:
        """What is drawn and what is not, in sentences; none without a target.

        Args:
            stages: How many have a panel with these lines.
        """
        told = "; ".join(line.text for line in self.drawn)
        parts = [f"Line and band: the critical batch size and its interval, {told}."] if told else []
        if told and stages > 1:
            parts.append("Its updates count from the start of training, so it is the same in each stage.")
        return [*parts, *(f"No line: {text[0].lower()}{text[1:]}" for text in self.undetermined)]


NOT_DRAWN = CriticalLines((), ())
"""Of a chart that has nothing to do with targets."""


def critical_lines(analysis: Analysis) -> CriticalLines:
    """What an analysis has of critical batch sizes."""
    confidence = analysis.facts.confidence
    drawn, undetermined = [], []
    for found in analysis.updates_to_target:
        critical = found.critical
        if critical is None or critical.status != "determined":
            undetermined.append(undetermined_text(found, confidence))
            continue
        size, target = critical.batch_size, goal(found)
        text = f"{of_quantity(size.value)} ({bounds_text(size, confidence)}) for {target}"
        text += ", from a curve that fits badly" if misfit_text(critical) else ""
        drawn.append(CriticalLine(target, size.value, size.low, size.high, text))
    return CriticalLines(tuple(drawn), tuple(undetermined))


def critical_layers(lines: Sequence[CriticalLine], axis: alt.Y) -> list[alt.Chart]:
    """A band and a line for each target from side to side, and a legend that names the targets.

    They use the channels stroke and fill, since colour is that of batch sizes.

    Args:
        lines: None gives no layers.
        axis: Of the column ``critical_batch_size``, in examples; bands that go on beyond it end there.
    """
    if not lines:
        return []
    names = [line.target for line in lines]
    table = pd.DataFrame(
        {
            "target": names,
            "critical_batch_size": [line.value for line in lines],
            "low": [line.low for line in lines],
            "high": [line.high for line in lines],
        }
    )
    colours = alt.Scale(domain=names)
    dashes = alt.Scale(domain=names, range=[_DASHES[place % len(_DASHES)] for place in range(len(names))])
    # The same for all channels, so that they share one.
    legend = alt.Legend(
        title="Critical batch size for", symbolType="stroke", symbolSize=400, columns=1, labelLimit=0
    )
    base = alt.Chart(inline(table)).encode(tooltip=tooltips("target", "critical_batch_size", "low", "high"))
    # Paler the more there are, so that lines are seen where bands overlap.
    band = base.mark_rect(fillOpacity=0.25 / math.sqrt(len(lines)), clip=True).encode(
        y="low:Q", y2="high:Q", fill=alt.Fill("target:N", scale=colours, legend=legend)
    )
    line = base.mark_rule(strokeWidth=2, clip=True).encode(
        y=axis,
        stroke=alt.Stroke("target:N", scale=colours, legend=legend),
        strokeDash=alt.StrokeDash("target:N", scale=dashes, legend=legend),
    )
    return [band, line]
