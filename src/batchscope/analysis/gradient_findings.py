"""What the gradient noise scale and sharpness say, in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

from batchscope.analysis.noise_scale import NoiseScaleRow
from batchscope.analysis.results import Analysis
from batchscope.analysis.sharpness import SharpnessRow
from batchscope.analysis.words import Figure, Sentence, batch_sizes, count, minus, percent

__all__ = [
    "FEWEST_REPLICATES",
    "INTERVAL_OVER",
    "ORDER_OF_MAGNITUDE",
    "gradient_notes",
    "noise_scale_sentences",
    "rounded",
    "sharpness_sentences",
]

_Row = TypeVar("_Row", NoiseScaleRow, SharpnessRow)

INTERVAL_OVER = {
    "replicates_and_batches": "over replicates and batches of images",
    "replicates": "over replicates",
    "batches": "over batches of its only replicate",
}
"""What an interval of the noise scale is over, in words."""

ORDER_OF_MAGNITUDE = 10
"""As far as the noise scale tells where larger batches stop to save updates."""

FEWEST_REPLICATES = 2
"""The interval of one replicate does not tell how runs differ, so nothing is judged by it."""


def noise_scale_sentences(analysis: Analysis) -> list[Sentence]:
    """One for each stage at whose end it was measured (`noise_scale`).

    A batch size counts as well below where its noise scale's interval begins at 10 times the batch size or
    more, and as well above where it ends at a tenth or less. With one replicate neither is said.
    """
    rows = [row for row in analysis.noise_scale.ends if math.isfinite(row.noise_scale)]
    stages = _by_stage(rows)
    return [_noise_scale(stage, found, analysis, last=stage == stages[-1][0]) for stage, found in stages]


def sharpness_sentences(analysis: Analysis) -> list[Sentence]:
    """One for each stage at whose end it was measured (`sharpness`)."""
    return [_sharpness(stage, found) for stage, found in _by_stage(analysis.sharpness.ends)]


def gradient_notes(analysis: Analysis) -> list[Sentence]:
    """Where no noise scale could be had, and whose curvature was not found."""
    notes = []
    lost = [row for row in analysis.noise_scale.ends if not math.isfinite(row.noise_scale)]
    for stage, found in _by_stage(lost):
        sizes = [row.batch_size for row in found]
        text = (
            f"At the end of {stage or 'training'} the gradient noise scale has no estimate at batch size "
            f"{batch_sizes(sizes)}: the mean gradient is too small to be told from none amid its noise."
        )
        notes.append(Sentence("noise_scale_unknown", text, (("stage", stage), ("n_batch_sizes", len(sizes)))))
    unconverged = sum(row.n_unconverged for row in analysis.sharpness.rows)
    if unconverged:
        text = (
            f"The largest eigenvalue of the Hessian was not found in {count(unconverged, 'measurement')}, "
            "for the iteration did not converge; means are over the others."
        )
        notes.append(Sentence("hessian_not_converged", text, (("n_unconverged", unconverged),)))
    return notes


def rounded(value: float) -> str:
    """Two significant digits, in whole numbers from 10 on: ``0.34``, ``3.4``, ``34``, ``3,400``."""
    if not math.isfinite(value):
        return "unknown"
    text = f"{float(f'{value:.2g}'):,.0f}" if abs(value) >= 9.95 else f"{value:.2g}"
    return minus(text)


def _noise_scale(stage: str, rows: Sequence[NoiseScaleRow], analysis: Analysis, *, last: bool) -> Sentence:
    confidence = analysis.facts.confidence
    low, high = rows[0], rows[-1]
    shown = [low] if low is high else [low, high]
    told = " and ".join(
        f"{rounded(row.noise_scale)} at batch size {row.batch_size}{_interval(row, confidence)}"
        for row in shown
    )
    judged = [row for row in rows if row.n >= FEWEST_REPLICATES]
    below = [row.batch_size for row in judged if row.low >= ORDER_OF_MAGNITUDE * row.batch_size]
    above = [row.batch_size for row in judged if row.batch_size >= ORDER_OF_MAGNITUDE * row.high]
    text = f"At the end of {stage or 'training'} the gradient noise scale is {told}"
    placed = [
        f"batch size {batch_sizes(sizes)} {'lies' if len(sizes) == 1 else 'lie'} well {where} it"
        for sizes, where in ((below, "below"), (above, "above"))
        if sizes
    ]
    text += f"; {' and '.join(placed)}." if placed else "."
    if last:
        text += (
            " Roughly, to an order of magnitude and as far as its assumptions hold, the noise scale tells "
            "the batch size beyond which larger batches save few updates (McCandlish et al. 2018). This is "
            "at the end, where it is largest as a rule; earlier it is smaller."
        )
    figures: tuple[tuple[str, Figure], ...] = (("stage", stage),)
    for row in shown:
        name = f"batch_size_{row.batch_size}"
        figures += ((name, row.noise_scale), (f"{name}_low", row.low), (f"{name}_high", row.high))
    return Sentence("noise_scale", text, figures)


def _interval(row: NoiseScaleRow, confidence: float) -> str:
    if row.over is None or math.isnan(row.low):
        return ""
    ends = (
        f"from {rounded(row.low)} up, without an end"
        if row.unbounded
        else (f"{rounded(row.low)} to {rounded(row.high)}")
    )
    return f" ({percent(confidence)} interval {ends}, {INTERVAL_OVER[row.over]})"


def _sharpness(stage: str, rows: Sequence[SharpnessRow]) -> Sentence:
    first, last = rows[0], rows[-1]
    figures: tuple[tuple[str, Figure], ...] = (
        ("stage", stage),
        ("first_batch_size", first.batch_size),
        ("first_hessian_top", first.hessian_top.mean),
        ("first_box", first.box.mean),
        ("last_batch_size", last.batch_size),
        ("last_hessian_top", last.hessian_top.mean),
        ("last_box", last.box.mean),
    )
    text = f"At the end of {stage or 'training'} the largest curvature of the training loss is {_told(first)}"
    text += f", and {_told(last)}." if last is not first else "."
    return Sentence("sharpness", text, figures)


def _told(row: SharpnessRow) -> str:
    return (
        f"{rounded(row.hessian_top.mean)} at batch size {row.batch_size} (Keskar's sharpness "
        f"{rounded(row.box.mean)})"
    )


def _by_stage(rows: Iterable[_Row]) -> list[tuple[str, list[_Row]]]:
    found: dict[str, list[_Row]] = {}
    for row in rows:
        found.setdefault(row.stage, []).append(row)
    return list(found.items())
