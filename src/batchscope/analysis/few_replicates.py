"""How well a mean is known with so few replicates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from batchscope.analysis.estimates import Estimate
from batchscope.analysis.moments import t_quantile
from batchscope.analysis.results import Analysis, Sentence
from batchscope.analysis.words import count, number, of_quantity, quantity_name

__all__ = ["FEW_REPLICATES", "few_replicates_sentences"]

# From five on, the 95% quantile of Student's t is below 1.5 times the normal one (2.78 / 1.96).
FEW_REPLICATES = 5
# What the width of the intervals is compared with.
_MORE_REPLICATES = 10
_ONE = (
    "There is one replicate: no interval and no test exist, and a difference between batch sizes may be "
    "chance."
)

_Row = tuple[int, Estimate]


def few_replicates_sentences(analysis: Analysis) -> list[Sentence]:
    """``few_replicates``: how wide the widest interval is, where a batch size has fewer than five.

    It is that of the metric at the end or, where trials end at a target, of the updates to it, over batch
    sizes all of whose trials got there. These are known no better than to what lies between two measurements.
    """
    facts = analysis.facts
    if facts.goal is not None:
        whole = [row for row in analysis.to_goal if row.n_reached == row.n_trials]
        spent = [(row.batch_size, row.updates) for row in whole]
    else:
        spent = [(row.batch_size, getattr(row, facts.metric)) for row in analysis.final]
    rows = [(size, found) for size, found in spent if found is not None and found.n > 0]
    if not rows or min(found.n for _, found in rows) >= FEW_REPLICATES:
        return []
    fewest = min(found.n for _, found in rows)
    measured = [(size, found) for size, found in rows if found.n > 1]
    if not measured:
        return [Sentence("few_replicates", _ONE, (("fewest", fewest),))]
    if facts.goal is not None:
        return [_of_updates(measured, fewest, analysis)]
    return [_of_metric(max(measured, key=lambda row: row[1].high - row[1].low), fewest, analysis)]


def _of_metric(row: _Row, fewest: int, analysis: Analysis) -> Sentence:
    size, found = row
    half, with_more = _halves(found, analysis.facts.confidence)
    margin = analysis.facts.margin
    width = (
        "intervals are wide" if half >= margin else f"the widest interval is within the margin of {margin:g}"
    )
    text = (
        f"With {count(fewest, 'replicate')} {width}: the mean "
        f"{quantity_name(analysis.facts.metric)} at batch size {size} is known to "
        f"\u00b1{number(half)} (from {count(found.n, 'replicate')}); "
        f"{_MORE_REPLICATES} replicates with the same spread would give \u00b1{number(with_more)}."
    )
    return _sentence(text, row, fewest, half, with_more)


def _of_updates(rows: Sequence[_Row], fewest: int, analysis: Analysis) -> Sentence:
    between = {row.batch_size: row.resolution or 0.0 for row in analysis.to_goal}
    known = {
        size: [max(half, between[size]) for half in _halves(found, analysis.facts.confidence)]
        for size, found in rows
    }
    size, found = max(rows, key=lambda row: known[row[0]][0] / row[1].mean)
    half, with_more = known[size]
    text = (
        f"With {count(fewest, 'replicate')} the mean updates to the target are known worst at batch size "
        f"{size}, {of_quantity(found.mean)} \u00b1{of_quantity(half)} (from {count(found.n, 'replicate')}); "
        f"{_MORE_REPLICATES} replicates with the same spread would give \u00b1{of_quantity(with_more)}"
        f"{', the updates between two measurements' if with_more == between[size] else ''}."
    )
    sentence = _sentence(text, (size, found), fewest, half, with_more)
    return dataclasses.replace(sentence, figures=(*sentence.figures, ("resolution", between[size])))


def _halves(found: Estimate, confidence: float) -> tuple[float, float]:
    """Half of the interval, and what it would be with more replicates."""
    half = float(t_quantile(found.n, confidence)) * found.sd / math.sqrt(found.n)
    with_more = float(t_quantile(_MORE_REPLICATES, confidence)) * found.sd / math.sqrt(_MORE_REPLICATES)
    return half, with_more


def _sentence(text: str, row: _Row, fewest: int, half: float, with_more: float) -> Sentence:
    figures = (
        ("fewest", fewest),
        ("batch_size", row[0]),
        ("half_width", half),
        ("half_width_with_10", with_more),
    )
    return Sentence("few_replicates", text, figures)
