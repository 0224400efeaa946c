"""What is said of updates to a target: in the verdict, and in the notes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from batchscope.analysis.results import Analysis, Sentence
from batchscope.analysis.to_target_results import (
    Bounded,
    CriticalBatchSize,
    PerfectScaling,
    RateToTarget,
    UpdatesToTarget,
)
from batchscope.analysis.words import Figure, number, of_quantity, percent, quantity_name, some

__all__ = ["bounds_text", "goal", "scaling_clause", "to_target_notes", "to_target_sentences"]

_BADLY = 0.05
# Where so large a share of the updates to a target lies between two measurements, they are called coarse.
_COARSE = 0.2


def goal(found: UpdatesToTarget) -> str:
    """For example ``a validation accuracy of 0.850``."""
    return f"a {quantity_name(found.metric)} of {number(found.value)}"


def scaling_clause(scaling: PerfectScaling) -> str:
    """For example ``within 20% of perfect scaling up to batch size 64, and leave it at 128``."""
    leaves = "" if scaling.leaves_at is None else f", and leave it at {scaling.leaves_at}"
    return f"within {percent(scaling.tolerance)} of perfect scaling up to batch size {scaling.up_to}{leaves}"


def bounds_text(found: Bounded, confidence: float) -> str:
    """An interval whose ends may be open, for example ``95% interval 160 to 260``; empty without an end."""
    what = f"{percent(confidence)} interval"
    low, high = (of_quantity(end) if math.isfinite(end) else "" for end in (found.low, found.high))
    if low and high:
        return f"{what} {low} to {high}"
    return f"{what} from {low}" if low else f"{what} up to {high}" if high else ""


def to_target_sentences(analysis: Analysis) -> list[Sentence]:
    """For each target that was asked for: what it takes, how that scales, and the critical batch size.

    - ``updates_to_target``: the medians at both ends, and where they leave perfect scaling;
    - ``target_not_reached``: no batch size has one;
    - ``critical_batch_size`` or ``critical_batch_size_unknown``.
    """
    confidence = analysis.facts.confidence
    sentences = []
    for found in analysis.updates_to_target:
        if found.scaling is None or found.critical is None:
            continue
        sentences.append(_updates(found, found.scaling))
        if found.scaling.batch_size is not None:
            sentences.append(_critical(found, found.critical, confidence))
    return sentences


def to_target_notes(analysis: Analysis) -> list[Sentence]:
    """What a reader must know: columns, trials that never got there, edges of grids, coarse measurements."""
    return [
        note
        for found in analysis.updates_to_target
        for note in (*_missing_column(found), *_not_reached(found), *_at_edge(found), *_coarse(found))
    ]


def _updates(found: UpdatesToTarget, scaling: PerfectScaling) -> Sentence:
    known = [row for row in found.best if math.isfinite(row.updates.value)]
    figures: list[tuple[str, Figure]] = [("value", found.value)]
    if not known:
        text = f"At no batch size did more than half of the trials reach {goal(found)}."
        return Sentence("target_not_reached", text, tuple(figures))
    each = [f"{of_quantity(row.updates.value)} updates at batch size {row.batch_size}" for row in known]
    ends = each[0] if len(each) == 1 else f"{each[0]} and {each[-1]}"
    text = f"To reach {goal(found)} takes {ends} (medians)"
    if len(known) > 1 and scaling.batch_size is not None:
        text += f"; updates keep {scaling_clause(scaling)}"
    figures += [(f"updates_at_{row.batch_size}", row.updates.value) for row in known]
    figures += [("perfect_scaling_up_to", scaling.up_to), ("leaves_perfect_scaling_at", scaling.leaves_at)]
    return Sentence("updates_to_target", f"{text}.", tuple(figures))


def _critical(found: UpdatesToTarget, critical: CriticalBatchSize, confidence: float) -> Sentence:
    size = critical.batch_size
    figures: list[tuple[str, Figure]] = [("value", found.value), ("critical_batch_size", size.value)]
    figures += [("low", size.low), ("high", size.high)]
    bounds = bounds_text(size, confidence)
    if critical.reason is not None:
        more = f" ({bounds})" if bounds else ""
        text = f"The critical batch size for {goal(found)} is not determined{more}: {critical.reason}."
        return Sentence("critical_batch_size_unknown", text, tuple(figures))
    text = (
        f"The critical batch size for {goal(found)} is {of_quantity(size.value)} ({bounds}): there training "
        "takes "
        f"twice the fewest updates ({of_quantity(critical.updates_min.value)}) and twice the fewest examples "
        f"({of_quantity(critical.examples_min.value)}) that any batch size is estimated to need."
    )
    if critical.extrapolated:
        text += " It lies outside the batch sizes that were tried."
    if critical.lack_of_fit_p < _BADLY:
        text += f" The curve fits badly (lack of fit, p = {critical.lack_of_fit_p:.2g}): take it as rough."
    figures += [("updates_min", critical.updates_min.value), ("examples_min", critical.examples_min.value)]
    return Sentence("critical_batch_size", text, (*figures, ("lack_of_fit_p", critical.lack_of_fit_p)))


def _missing_column(found: UpdatesToTarget) -> list[Sentence]:
    if found.reason is None:
        return []
    text = f"Updates to {goal(found)} cannot be told: {found.reason}."
    return [Sentence("target_without_column", text, (("value", found.value),))]


def _not_reached(found: UpdatesToTarget) -> list[Sentence]:
    rows = [row for row in found.best if row.n_reached < row.n_trials]
    if not rows:
        return []
    each = some(
        [f"{row.n_trials - row.n_reached} of {row.n_trials} at batch size {row.batch_size}" for row in rows]
    )
    text = (
        f"Some trials at their batch size's best learning rate did not reach {goal(found)}: {each}. They "
        "count as "
        "later than all that did; those that diverged have no part in the critical batch size."
    )
    total = sum(row.n_trials - row.n_reached for row in rows)
    return [Sentence("target_not_reached_by_all", text, (("value", found.value), ("n_trials", total)))]


def _at_edge(found: UpdatesToTarget) -> list[Sentence]:
    rows = [row for row in found.best if row.at_edge]
    if not rows:
        return []
    each = some([f"{_rate(row)} at batch size {row.batch_size}" for row in rows])
    text = (
        f"The learning rate with the fewest updates to {goal(found)} lies at the edge of what was tried "
        f"({each}): a "
        "better one may lie beyond."
    )
    figures = tuple((f"learning_rate_at_{row.batch_size}", row.learning_rate) for row in rows)
    return [Sentence("target_learning_rate_at_edge", text, figures)]


def _coarse(found: UpdatesToTarget) -> list[Sentence]:
    rows = [row for row in found.best if row.resolution > _COARSE * row.updates.value]
    if not rows:
        return []
    text = (
        f"At batch size {_sizes(rows)} more than {percent(_COARSE)} of the updates to {goal(found)} lie "
        "between two "
        "measurements, so medians may be too high by as much; the critical batch size allows for it. "
        "Measured "
        "more often, validation would tell it finer."
    )
    return [Sentence("target_measured_coarsely", text, (("n_batch_sizes", len(rows)),))]


def _sizes(rows: Sequence[RateToTarget]) -> str:
    return some([row.batch_size for row in rows])


def _rate(row: RateToTarget) -> str:
    return "unknown" if row.learning_rate is None else f"{row.learning_rate:g}"
