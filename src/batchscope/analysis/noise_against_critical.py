"""The gradient noise scale held against the critical batch size, in sentences.

McCandlish et al. 2018, arXiv 1812.06162, predict the second by the first, to an order of magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from batchscope.analysis.gradient_findings import FEWEST_REPLICATES, ORDER_OF_MAGNITUDE
from batchscope.analysis.noise_scale import NoiseScaleRow
from batchscope.analysis.results import Analysis
from batchscope.analysis.to_target_findings import goal, misfit_text
from batchscope.analysis.to_target_results import Bounded, CriticalBatchSize, UpdatesToTarget
from batchscope.analysis.words import Figure, Sentence, batch_sizes, of_quantity

__all__ = ["noise_against_critical_sentences"]

_Agreement = Literal["same", "other", "open", "misfit", "one_replicate"]

_PLACES = ("inside", "above", "below")
_AGREEMENTS: dict[_Agreement, str] = {
    "same": "they do",
    "other": "they do not",
    "open": "the intervals do not tell whether they do",
    "misfit": (
        "the curve of the critical batch size fits badly, and its interval is too narrow to tell whether "
        "they do"
    ),
    "one_replicate": "one replicate does not tell whether they do",
}


def noise_against_critical_sentences(analysis: Analysis) -> list[Sentence]:
    """One for each target with a critical batch size, where the last stage has a noise scale at its end.

    The estimate of each batch size's noise scale lies inside the critical batch size's interval, above it
    or below it (`noise_scale_against_critical`). Both agree to an order of magnitude where all of one
    interval is less than 10 times all of the other, either way, and do not where the intervals are apart by
    10 times or more. Simplified: both ends are taken at their worst together, which is cautious. Neither is
    said with one replicate, nor where the curve of the critical batch size fits badly, whose interval is then
    too narrow.
    """
    ends = analysis.noise_scale.ends
    rows = [row for row in ends if row.stage == ends[-1].stage and math.isfinite(row.noise_scale)]
    if not rows:
        return []
    return [
        _sentence(found, found.critical, rows)
        for found in analysis.updates_to_target
        if found.critical is not None and found.critical.status == "determined"
    ]


def _sentence(found: UpdatesToTarget, fit: CriticalBatchSize, rows: Sequence[NoiseScaleRow]) -> Sentence:
    critical = fit.batch_size
    places: dict[str, list[int]] = {name: [] for name in _PLACES}
    agreements: dict[_Agreement, list[int]] = {name: [] for name in _AGREEMENTS}
    figures: list[tuple[str, Figure]] = [("stage", rows[0].stage), ("value", found.value)]
    figures += [("critical_batch_size", critical.value), ("low", critical.low), ("high", critical.high)]
    figures.append(("lack_of_fit_p", fit.lack_of_fit_p))
    for row in rows:
        name = f"batch_size_{row.batch_size}"
        figures += [(name, row.noise_scale), (f"{name}_low", row.low), (f"{name}_high", row.high)]
        places[_place(row, critical)].append(row.batch_size)
        agreements[_agreement(row, fit)].append(row.batch_size)
    interval = (
        f"the interval of the critical batch size for {goal(found)} ({of_quantity(critical.low)} to "
        f"{of_quantity(critical.high)})"
    )
    taken = [(name, sizes) for name, sizes in places.items() if sizes]
    placed = [
        f"{name} {'it' if place else interval} at batch size {batch_sizes(sizes)}"
        for place, (name, sizes) in enumerate(taken)
    ]
    told = {_AGREEMENTS[name]: batch_sizes(sizes) for name, sizes in agreements.items() if sizes}
    agreed = list(told) if len(told) == 1 else [f"{text} at batch size {at}" for text, at in told.items()]
    text = (
        f"At the end of {rows[0].stage or 'training'} the estimated gradient noise scale lies "
        f"{'; '.join(placed)}. McCandlish et al. 2018 expect both to agree to an order of magnitude: "
        f"{'; '.join(agreed)}."
    )
    return Sentence("noise_scale_against_critical", text, tuple(figures))


def _place(row: NoiseScaleRow, critical: Bounded) -> str:
    if row.noise_scale > critical.high:
        return "above"
    return "below" if row.noise_scale < critical.low else "inside"


def _agreement(row: NoiseScaleRow, fit: CriticalBatchSize) -> _Agreement:
    if row.n < FEWEST_REPLICATES:
        return "one_replicate"
    if misfit_text(fit):
        return "misfit"
    critical = fit.batch_size
    # Comparisons with NaN, where there is no interval, are false.
    if row.low * ORDER_OF_MAGNITUDE > critical.high and row.high < ORDER_OF_MAGNITUDE * critical.low:
        return "same"
    far_above = row.low >= ORDER_OF_MAGNITUDE * critical.high
    far_below = row.high * ORDER_OF_MAGNITUDE <= critical.low
    return "other" if far_above or far_below else "open"
