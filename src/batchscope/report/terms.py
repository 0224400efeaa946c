"""What the observed gap is made of: its four terms by batch size, stacked and with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import pandas as pd

from batchscope.analysis.estimates import TERMS, DecompositionRow
from batchscope.analysis.gap_finding import GapFinding, gap_finding, inference_sentence, term_phrase
from batchscope.analysis.results import Analysis
from batchscope.analysis.words import batch_sizes, number, percent
from batchscope.report.curves import even_choice
from batchscope.report.encodings import inline, tooltips, value_axis, value_domain
from batchscope.report.figure import Figure, Panels

__all__ = ["TermsInfo", "finding_title", "terms_chart", "terms_figure", "terms_info"]

PANELS = Panels(columns=2, width=380, margin=80)
HEIGHT = 260
OBSERVED = "observed gap"
NAMES = {
    "averaging": "averaging",
    "augmentation": "augmentation",
    "batchnorm": "BatchNorm",
    "generalization": "generalization",
}
ARROW = 9
"""Width of an arrowhead in pixels."""
_Layered = alt.LayerChart | alt.FacetChart
MOST_SIZES = 12
"""Four intervals side by side for more batch sizes would run into each other."""
ROOM = 0.5
"""For the ends of intervals on each side, of the range of the means. A 95% interval of two replicates
is 12.7 times as long as they are apart; drawn in full, it would flatten the means that it belongs to."""


@dataclass(frozen=True)
class TermsInfo:
    """Numbers of the figure.

    Attributes:
        points: Columns ``stage``, ``stage_number`` (from 1), ``epoch``, ``batch_size``, ``term``
            (of `NAMES`, or `OBSERVED`), ``place`` (its order, from 0; 4 for the observed gap),
            ``value`` (mean over replicates), ``low``, ``high`` (ends of the t-interval, NaN below
            two replicates) and ``replicates``; at the end of each stage.
        finding: What the largest gap is made of.
        margin: Gaps below it do not matter in practice.
        confidence: Coverage of the intervals.
        stack_domain: Axis on which the terms are piled up and the observed gap stands.
        term_domain: Axis on which the terms stand side by side.
        notes: What is missing or cut off.
    """

    points: pd.DataFrame
    finding: GapFinding
    margin: float
    confidence: float
    stack_domain: tuple[float, float]
    term_domain: tuple[float, float]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """The finding: what the largest gap is made of."""
        return finding_title(self.finding, self.margin)


def finding_title(finding: GapFinding, margin: float) -> str:
    """Puts a finding into a title, by its rule."""
    row, found = finding.row, finding.largest
    gap, amount = number(row.observed.mean), number(found.mean)
    when = f"(epoch {row.epoch})"
    if finding.rule == "gap_is_small":
        return (
            f"No batch size has an observed gap of {margin:g} or more; the largest is {gap} "
            f"at batch {row.batch_size} {when}"
        )
    phrase = term_phrase(row, finding.term)
    where = f"At batch {row.batch_size}, "
    unsure = ""
    if not found.low > 0:
        unsure = ", from one replicate" if found.n == 1 else ", not told apart from zero"
    if finding.rule == "gap_is_mixed":
        return f"{where}no single cause makes up half of the {gap} gap; {phrase} is {amount}{unsure} {when}"
    other = "" if finding.term == "generalization" else number(row.generalization.mean)
    if found.mean > row.observed.mean and amount != gap:
        rest = f", {other} from generalization" if other else ""
        return f"{where}the gap is {gap}: {amount} from {phrase}{unsure}{rest}, less what closes it {when}"
    rest = f"{',' if unsure else ''} and {other} generalization" if other else ""
    return f"{where}{amount} of the {gap} gap is {phrase}{unsure}{rest} {when}"


def terms_info(analysis: Analysis) -> TermsInfo | None:
    """Numbers of the figure; None where nothing was probed."""
    finding = gap_finding(analysis.decomposition, analysis.facts.margin)
    if finding is None:
        return None
    ends = analysis.decomposition.ends
    sizes = sorted({row.batch_size for row in ends})
    kept = even_choice(sizes, MOST_SIZES)
    numbers = {stage: place for place, stage in enumerate(dict.fromkeys(row.stage for row in ends), start=1)}
    rows = [found for row in ends if row.batch_size in kept for found in _points(row, numbers[row.stage])]
    points = pd.DataFrame(rows)
    inference = inference_sentence(analysis.decomposition)
    notes = [] if inference is None else [inference]
    if len(kept) < len(sizes):
        notes.append(f"Drawn: {len(kept)} of {len(sizes)} batch sizes.")
    alone = sorted({int(size) for size in points.loc[points["replicates"] == 1, "batch_size"]})
    if alone:
        notes.append(f"No interval from one replicate: batch {batch_sizes(alone)}.")
    stack_domain, term_domain = _stack_domain(points), _term_domain(points)
    if _beyond(_observed(points), stack_domain) or _beyond(_terms(points), term_domain):
        notes.append("Intervals with an arrowhead go on beyond the axis, which leaves the means readable.")
    return TermsInfo(
        points=points,
        finding=finding,
        margin=analysis.facts.margin,
        confidence=analysis.facts.confidence,
        stack_domain=stack_domain,
        term_domain=term_domain,
        notes=tuple(notes),
    )


def terms_chart(info: TermsInfo) -> alt.ConcatChart:
    """A row of two panels for each stage: the terms stacked, and each with its interval."""
    panels = []
    for stage, drawn in info.points.groupby("stage_number", sort=True):
        # By number, because a name is free text and would become part of an expression.
        here = alt.FieldEqualPredicate(field="stage_number", equal=int(str(stage)))
        base = alt.Chart().transform_filter(here)
        sizes = sorted(drawn["batch_size"].unique())
        when = _when(drawn)
        panels.append(_stacked(base, sizes, info.stack_domain).properties(title=when))
        panels.append(_dodged(base, sizes, info.term_domain).properties(title=f"{when}: each term"))
    sized = [panel.properties(width=PANELS.width, height=HEIGHT) for panel in panels]
    joined = alt.concat(*sized, data=inline(info.points), columns=PANELS.columns, spacing=24)
    # Otherwise both kinds of panel would leave room for each other's marks beside the batch size.
    apart: alt.ConcatChart = joined.resolve_scale(xOffset="independent")
    return apart


def terms_figure(info: TermsInfo, label: str = "G") -> Figure:
    """What the gap is made of with its finding."""
    return Figure(
        key="gap-terms",
        label=label,
        title=info.title,
        caption="Left: four terms, whose sum is the observed gap (diamond); those that close it are "
        f"below zero. Right: each term. Means over replicates, {percent(info.confidence)} t-intervals. "
        "Averaging: the reported running mean over the epoch, with dropout if the network has it, less "
        "the network at its end without. Augmentation: "
        "with less without. BatchNorm: its statistics against recalibrated ones, in training and in "
        "validation. Generalization: training less validation examples, both recalibrated.",
        notes=info.notes,
        chart=terms_chart(info),
        panels=PANELS,
    )


def _points(row: DecompositionRow, stage_number: int) -> list[dict[str, object]]:
    named = [*((NAMES[name], row.term(name)) for name in TERMS), (OBSERVED, row.observed)]
    return [
        {
            "stage": row.stage,
            "stage_number": stage_number,
            "epoch": row.epoch,
            "batch_size": row.batch_size,
            "term": name,
            "place": place,
            "value": found.mean,
            "low": found.low,
            "high": found.high,
            "replicates": found.n,
        }
        for place, (name, found) in enumerate(named)
    ]


def _when(drawn: pd.DataFrame) -> str:
    stage = str(drawn["stage"].iloc[0]).replace("_", " ").capitalize()
    first, last = int(drawn["epoch"].min()), int(drawn["epoch"].max())
    epochs = f"epoch {last}" if first == last else f"epochs {first} to {last}"
    return f"{stage}, {epochs}" if stage else epochs.capitalize()


def _stacked(base: alt.Chart, sizes: Sequence[int], domain: Sequence[float]) -> _Layered:
    """Bars from zero up and down, and beside them the observed gap with its interval."""
    title = "Training minus validation accuracy"
    y, stacked = value_axis("value", title, domain), value_axis("value", title, domain, stack="zero")
    slots = alt.Scale(domain=["terms", OBSERVED], paddingInner=0.1)
    terms = base.transform_filter(alt.FieldLTPredicate(field="place", lt=len(TERMS)))
    bars = terms.mark_bar().encode(
        x=_sizes(sizes),
        xOffset=alt.XOffset(datum="terms", scale=slots),
        y=stacked,
        color=_colour(),
        order=alt.Order("place:Q"),
        tooltip=_tips(),
    )
    observed = base.transform_filter(alt.FieldEqualPredicate(field="place", equal=len(TERMS))).encode(
        x=_sizes(sizes), xOffset=alt.XOffset(datum=OBSERVED, scale=slots), tooltip=_tips()
    )
    bar = observed.mark_rule(strokeWidth=2, style="ink", clip=True).encode(y="low:Q", y2="high:Q")
    mark = observed.mark_point(shape="diamond", filled=True, size=110, opacity=1, style="ink").encode(y=y)
    return alt.layer(bars, _zero(), bar, mark, *_arrowheads(observed, domain, style="ink"))


def _dodged(base: alt.Chart, sizes: Sequence[int], domain: Sequence[float]) -> _Layered:
    """Each term as a dot with its interval, side by side at each batch size."""
    here = base.transform_filter(alt.FieldLTPredicate(field="place", lt=len(TERMS))).encode(
        x=_sizes(sizes),
        xOffset=alt.XOffset("term:N", scale=alt.Scale(domain=list(NAMES.values()), paddingOuter=0.6)),
        color=_colour(),
        tooltip=_tips(),
    )
    y = value_axis("value", "Term of the gap", domain)
    bar = here.mark_rule(strokeWidth=2.5, clip=True).encode(y="low:Q", y2="high:Q")
    dot = here.mark_circle(size=70, opacity=1).encode(y=y)
    return alt.layer(_zero(), bar, dot, *_arrowheads(here, domain))


def _arrowheads(base: alt.Chart, domain: Sequence[float], style: str | None = None) -> list[alt.Chart]:
    """At the panel's edges, for intervals that go on beyond the axis."""
    look = alt.Undefined if style is None else style
    bottom, top = domain
    up = base.transform_filter(alt.FieldGTPredicate(field="high", gt=top))
    down = base.transform_filter(alt.FieldLTPredicate(field="low", lt=bottom))
    sides = ((up, "triangle-up", ARROW / 2), (down, "triangle-down", HEIGHT - ARROW / 2))
    return [
        cut.mark_point(shape=shape, filled=True, size=ARROW**2, opacity=1, style=look).encode(
            y=alt.value(place)
        )
        for cut, shape, place in sides
    ]


def _sizes(sizes: Sequence[int]) -> alt.X:
    axis = alt.Axis(labelAngle=0, labelOverlap=True, ticks=False)
    scale = alt.Scale(domain=[int(size) for size in sizes], paddingInner=0.25)
    return alt.X("batch_size:O", title="Batch size (examples)", axis=axis, scale=scale)


def _colour() -> alt.Color:
    names = list(NAMES.values())
    legend = alt.Legend(title=None, symbolType="square", symbolStrokeWidth=0, columns=2)
    return alt.Color("term:N", scale=alt.Scale(domain=names), legend=legend)


def _tips() -> list[alt.Tooltip]:
    return tooltips("stage", "epoch", "batch_size", "term", "value", "low", "high", "replicates")


def _zero() -> alt.Chart:
    table = alt.Chart(inline(pd.DataFrame({"zero": [0]})))
    rule: alt.Chart = table.mark_rule(strokeWidth=1.25).encode(y="zero:Q")
    return rule


def _stack_domain(points: pd.DataFrame) -> tuple[float, float]:
    terms, observed = _terms(points), _observed(points)
    where = [terms["stage_number"], terms["batch_size"]]
    up, down = terms["value"].clip(lower=0), terms["value"].clip(upper=0)
    piles = [side.groupby(where).sum() for side in (up, down)]
    return _domain(pd.concat([*piles, observed["value"]]), observed)


def _term_domain(points: pd.DataFrame) -> tuple[float, float]:
    terms = _terms(points)
    return _domain(terms["value"], terms)


def _domain(means: pd.Series, intervals: pd.DataFrame) -> tuple[float, float]:
    """Zero and all means, and of the intervals what lies within `ROOM`."""
    reached = pd.concat([means, intervals["low"], intervals["high"], pd.Series([0.0])])
    bottom, top = value_domain(reached, "gap")
    low, high = min(means.min(), 0.0), max(means.max(), 0.0)
    room = ROOM * (high - low) or math.inf
    return max(bottom, low - room), min(top, high + room)


def _beyond(points: pd.DataFrame, domain: Sequence[float]) -> bool:
    return bool(((points["low"] < domain[0]) | (points["high"] > domain[1])).any())


def _terms(points: pd.DataFrame) -> pd.DataFrame:
    return points[points["term"] != OBSERVED]


def _observed(points: pd.DataFrame) -> pd.DataFrame:
    return points[points["term"] == OBSERVED]
