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
from batchscope.analysis.words import Figure, of_quantity, percent, some, target_text

__all__ = [
    "bounds_text",
    "goal",
    "misfit_text",
    "no_median_text",
    "scaling_text",
    "to_target_notes",
    "to_target_sentences",
    "undetermined_text",
]

_BADLY = 0.05
# Where so large a share of the updates to a target lies between two measurements, they are called coarse.
_COARSE = 0.2
# What the choice of learning rates by luck does to the critical batch size; held by simulation in the tests.
_NOT_SHIFTED = (
    "Every batch size has as many rates and trials as the others, so the critical batch size itself is "
    "shifted only where at some of them more rates are about equally good, or trials scatter more."
)
_SHIFTED = (
    "Batch sizes differ in their number of rates, or of trials a rate, so some are luckier than others, and "
    "the critical batch size is shifted too: it comes out too small where the smaller ones have more rates "
    "or fewer trials a rate, and too large where the larger ones do."
)


def goal(found: UpdatesToTarget) -> str:
    """For example ``a validation accuracy of 0.850``."""
    return target_text(found.metric, found.value)


def scaling_text(scaling: PerfectScaling, updates: str) -> str:
    """What is known of perfect scaling.

    Args:
        scaling: With a batch size to go from.
        updates: What the clause is about, a plural.

    Returns:
        For example ``updates keep within 20% of perfect scaling up to batch size 32, and no longer at 128``.
    """
    share = percent(scaling.tolerance)
    if scaling.up_to is None and scaling.leaves_at is None:
        return f"how far {updates} keep within {share} of perfect scaling cannot be told"
    if scaling.up_to is None:
        return f"{updates} are more than {share} above perfect scaling at batch size {scaling.leaves_at}"
    leaves = "" if scaling.leaves_at is None else f", and no longer at {scaling.leaves_at}"
    return f"{updates} keep within {share} of perfect scaling up to batch size {scaling.up_to}{leaves}"


def no_median_text(found: UpdatesToTarget) -> str:
    """That the target was reached by too few."""
    return f"At no batch size did enough trials reach {goal(found)} for a median"


def misfit_text(critical: CriticalBatchSize) -> str:
    """That the curve fits badly, if it does; begins with a space."""
    if not critical.lack_of_fit_p < _BADLY:
        return ""
    return (
        f" The curve fits badly (lack of fit, p = {critical.lack_of_fit_p:.2g}): take the value as rough, "
        "and its interval as too narrow."
    )


def bounds_text(found: Bounded, confidence: float) -> str:
    """An interval whose ends may be open, for example ``95% interval 160 to 260``; empty without an end."""
    what = f"{percent(confidence)} interval"
    low, high = (of_quantity(end) if math.isfinite(end) else "" for end in (found.low, found.high))
    if low and high:
        return f"{what} {low} to {high}"
    return f"{what} from {low}" if low else f"{what} up to {high}" if high else ""


def undetermined_text(found: UpdatesToTarget, confidence: float) -> str:
    """That a target has no critical batch size, why, and which end of its interval is known; a sentence.

    Args:
        found: Without one that is determined.
        confidence: Of the interval.
    """
    bounds = "" if found.critical is None else bounds_text(found.critical.batch_size, confidence)
    reason = found.reason if found.critical is None else found.critical.reason
    more = f" ({bounds})" if bounds else ""
    return f"The critical batch size for {goal(found)} is not determined{more}: {reason}."


def to_target_sentences(analysis: Analysis) -> list[Sentence]:
    """For each target that was asked for: what it takes, how that scales, and the critical batch size.

    - ``updates_to_target``: the medians at both ends, and where updates leave perfect scaling;
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
    """What a reader must know: columns, trials that never got there, chosen learning rates, measurements."""
    return [
        note
        for found in analysis.updates_to_target
        for note in (
            *_missing_column(found),
            *_not_reached(found),
            *_at_edge(found),
            *_chosen(found),
            *_coarse(found),
        )
    ]


def _updates(found: UpdatesToTarget, scaling: PerfectScaling) -> Sentence:
    known = [row for row in found.best if math.isfinite(row.updates.value)]
    figures: list[tuple[str, Figure]] = [("value", found.value)]
    if not known:
        return Sentence("target_not_reached", f"{no_median_text(found)}.", tuple(figures))
    each = [f"{of_quantity(row.updates.value)} updates at batch size {row.batch_size}" for row in known]
    ends = each[0] if len(each) == 1 else f"{each[0]} and {each[-1]}"
    text = f"To reach {goal(found)} takes {ends} (medians)"
    if len(known) > 1 and scaling.batch_size is not None:
        text += f"; {scaling_text(scaling, 'updates')}"
    figures += [(f"updates_at_{row.batch_size}", row.updates.value) for row in known]
    figures += [("perfect_scaling_up_to", scaling.up_to), ("leaves_perfect_scaling_at", scaling.leaves_at)]
    return Sentence("updates_to_target", f"{text}.", tuple(figures))


def _critical(found: UpdatesToTarget, critical: CriticalBatchSize, confidence: float) -> Sentence:
    size = critical.batch_size
    figures: list[tuple[str, Figure]] = [("value", found.value), ("critical_batch_size", size.value)]
    figures += [("low", size.low), ("high", size.high)]
    if critical.reason is not None:
        return Sentence("critical_batch_size_unknown", undetermined_text(found, confidence), tuple(figures))
    bounds = bounds_text(size, confidence)
    text = (
        f"The critical batch size for {goal(found)} is {of_quantity(size.value)} ({bounds}): there training "
        f"takes twice the fewest updates ({of_quantity(critical.updates_min.value)}) and twice the fewest "
        f"examples ({of_quantity(critical.examples_min.value)}) that any batch size is estimated to need."
    )
    if critical.extrapolated:
        text += " It lies outside the batch sizes at which the target was reached."
    text += misfit_text(critical)
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
        f"Some trials at their batch size's best learning rate have not reached {goal(found)}: {each}. Ended "
        "or still running, they count as later than their last updates; those that diverged as never there, "
        "and without a part in the critical batch size."
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
        f"({each}): a better one may lie beyond."
    )
    figures = tuple((f"learning_rate_at_{row.batch_size}", row.learning_rate) for row in rows)
    return [Sentence("target_learning_rate_at_edge", text, figures)]


def _chosen(found: UpdatesToTarget) -> list[Sentence]:
    critical = found.critical
    if critical is None or critical.status != "determined" or not found.several_rates:
        return []
    text = (
        f"The learning rates with the fewest updates to {goal(found)} were chosen by the trials that the "
        "critical batch size is then fitted to: of rates that are equally good in truth the luckiest is "
        "taken, so the fewest updates and examples come out too small and their intervals hold the truth "
        "less often than they say, the more so the more trials scatter, the more rates there are and the "
        f"fewer replicates. {_SHIFTED if _unequally_tried(found) else _NOT_SHIFTED}"
    )
    return [Sentence("target_learning_rate_optimism", text, (("updates_min", critical.updates_min.value),))]


def _unequally_tried(found: UpdatesToTarget) -> bool:
    """Whether batch sizes differ in their number of learning rates, or of trials at these."""
    tried: dict[int, list[int]] = {}
    for row in found.rates:
        tried.setdefault(row.batch_size, []).append(row.n_trials)
    return len({tuple(sorted(counts)) for counts in tried.values()}) > 1


def _coarse(found: UpdatesToTarget) -> list[Sentence]:
    rows = [row for row in found.best if row.resolution > _COARSE * row.updates.value]
    if not rows:
        return []
    text = (
        f"At batch size {_sizes(rows)} more than {percent(_COARSE)} of the updates to {goal(found)} lie "
        "between two measurements, so medians may be too high by as much; perfect scaling and the critical "
        "batch size allow for it. Measured more often, validation would tell it finer."
    )
    return [Sentence("target_measured_coarsely", text, (("n_batch_sizes", len(rows)),))]


def _sizes(rows: Sequence[RateToTarget]) -> str:
    return some([row.batch_size for row in rows])


def _rate(row: RateToTarget) -> str:
    return "unknown" if row.learning_rate is None else f"{row.learning_rate:g}"
