"""The verdict's first sentence: is there a gap, and does it follow the number of updates?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from batchscope.analysis.results import (
    Analysis,
    Comparison,
    Estimate,
    Figure,
    Sentence,
    StudyFacts,
    UpdatesShare,
)
from batchscope.analysis.settings import Target
from batchscope.analysis.words import interval, number, percent, quantity_name, target_text

__all__ = [
    "MOST",
    "WIDE",
    "ShareRule",
    "headline",
    "headline_share",
    "leading_share",
    "share_clause",
    "share_rule",
]

ShareRule = Literal["follows_updates", "beyond_updates", "may_follow_updates"]

# The number of updates explains a difference if it explains more than half of its variance.
MOST = 0.5
# A share whose interval covers more than half of the way from nothing to all is known roughly.
WIDE = 0.5


@dataclass(frozen=True)
class _Effect:
    """What a larger batch size does to the gap, or to the metric where there is no gap.

    Attributes:
        quantity: ``gap``, ``val_accuracy`` or ``val_loss``.
        facts: Of the study; it tells where the quantity is measured.
        smaller: The smallest batch size with a finite mean.
        larger: The largest one.
        at_smaller: Mean over replicates.
        at_larger: Mean over replicates.
        harm: By how much the quantity is worse at the larger batch size; negative if it is better.
        low: Lower end of the paired interval of the harm; NaN where there is none, as is its upper end.
        high: Upper end.
    """

    quantity: str
    facts: StudyFacts
    smaller: int
    larger: int
    at_smaller: float
    at_larger: float
    harm: float
    low: float
    high: float

    @property
    def figures(self) -> tuple[tuple[str, Figure], ...]:
        return (
            *self.facts.end_figures,
            ("smaller_batch_size", self.smaller),
            ("larger_batch_size", self.larger),
            (f"{self.quantity}_at_smaller", self.at_smaller),
            (f"{self.quantity}_at_larger", self.at_larger),
        )

    @property
    def difference_bounds(self) -> tuple[float, float]:
        """The interval of the difference itself, larger batch size minus smaller."""
        return (-self.high, -self.low) if self.quantity == "val_accuracy" else (self.low, self.high)

    @property
    def clause(self) -> str:
        return (
            f"the {quantity_name(self.quantity)} at {self.facts.when} is {number(self.at_smaller)} at batch "
            f"size {self.smaller} and {number(self.at_larger)} at batch size {self.larger}"
        )


def headline(analysis: Analysis) -> Sentence:
    """Draws the first sentence from the gap, or from the metric where there is no gap.

    Where probes have measured what the gap is made of, it is not called one of generalization.

    The harm is how much worse the quantity is at the largest batch size than at the smallest (of
    those with finite figures at the end). The share is that of `headline_share`. Rules, ``gap_`` or
    ``metric_`` in front of each name:

    - ``follows_updates``, ``beyond_updates``, ``may_follow_updates``: harm >= margin, and what
      `share_rule` says of the share; ``beyond_updates`` also where all batch sizes end after the
      same number of updates, which then cannot be what sets them apart;
    - ``grows``: harm >= margin, no share;
    - ``steady``: harm between -margin and margin;
    - ``shrinks``: harm <= -margin;
    - ``undecided``, ahead of all of these: the interval of the harm contains 0 and does not lie
      between -margin and margin, so the data show neither a difference nor that there is none.

    ``one_batch_size`` and ``nothing_finite`` where there are not two batch sizes to hold
    against each other; ``ends_at_target`` where trials end at a target, for that makes their ends alike.
    """
    if len(analysis.facts.batch_sizes) == 1:
        size = analysis.facts.batch_sizes[0]
        text = f"There is only batch size {size}: what the batch size does cannot be seen."
        return Sentence("one_batch_size", text, (("batch_size", size),))
    if analysis.facts.goal is not None:
        return _ends_at_target(analysis.facts.goal)
    effect = _effect(analysis)
    if effect is None:
        facts = analysis.facts
        text = f"Fewer than two batch sizes have finite figures at {facts.when}: they cannot be compared."
        return Sentence("nothing_finite", text, facts.end_figures)
    if effect.quantity != "gap":
        subject = "What looks like harm done by larger batches"
    elif analysis.decomposition.rows:
        subject = "The growth of the observed gap with batch size"
    else:
        subject = "What looks like a generalization gap"
    return _sentence(effect, subject, headline_share(analysis))


def _ends_at_target(goal: Target) -> Sentence:
    text = (
        f"Trials end when they reach {target_text(goal.metric, goal.value)}: batch sizes are compared by "
        "what that takes, and not by how good they are at the end."
    )
    return Sentence("ends_at_target", text, (("value", goal.value), ("most_epochs", goal.epochs)))


def headline_share(analysis: Analysis) -> UpdatesShare | None:
    """The share of the stage in which batch sizes differ most at matched epochs; None without.

    Only stages that give all batch sizes the same number of epochs count, and the last one must be
    such: otherwise batch sizes end where they have been given equally many updates (or examples)
    already, and what matching these changes says nothing about the differences at the end.
    """
    facts = analysis.facts
    if not facts.equal_epochs(facts.stages[-1].name):
        return None
    return leading_share(tuple(share for share in analysis.updates_share if facts.equal_epochs(share.stage)))


def leading_share(shares: tuple[UpdatesShare, ...]) -> UpdatesShare | None:
    """Of shares that are known, that of the stage in which batch sizes differ most; None without."""
    known = [share for share in shares if math.isfinite(share.share)]
    return max(known, key=lambda share: share.variance_at_matched_epochs, default=None)


def share_rule(share: UpdatesShare) -> ShareRule:
    """What a known share supports.

    share_alike, which a wide range of batch sizes does not inflate, must agree with share:

    - ``follows_updates``: share and share_alike >= `MOST`, the share's interval above 0;
    - ``beyond_updates``: the interval of share_alike below `MOST`;
    - ``may_follow_updates``: neither, no interval, or no share_alike. These data cannot tell.
    """
    # One by one: min() of a figure and NaN gives whichever comes first.
    if share.share >= MOST and share.share_alike >= MOST and share.low > 0:
        return "follows_updates"
    return "beyond_updates" if share.high_alike < MOST else "may_follow_updates"


def share_clause(share: UpdatesShare, confidence: float) -> str:
    """What matching the number of updates does to the variance between batch sizes, in words."""
    where = f"in {share.stage}, " if share.stage else ""
    bounds = _bounded(share.low, share.high, confidence)
    alike = "; among batch sizes that reach the same numbers of updates, "
    if math.isfinite(share.share_alike):
        alike += f"{percent(share.share_alike)}{_bounded(share.low_alike, share.high_alike, confidence)}"
    else:
        alike += "it cannot be told"
    name = quantity_name(share.quantity)
    if share.share < 0:
        return (
            f"{where}comparing batch sizes at the same number of updates instead of the same epoch makes the "
            f"variance of {name} between them {1 - share.share:.2g} times as large (explained share "
            f"{percent(share.share)}{bounds}{alike})"
        )
    return (
        f"{where}{percent(share.share)}{bounds} of the variance of {name} between batch sizes at the "
        f"same epoch is gone at the same number of updates{alike}"
    )


def _bounded(low: float, high: float, confidence: float) -> str:
    return f" ({interval(low, high, confidence, 'percent')})" if math.isfinite(low) else " (no interval)"


def _effect(analysis: Analysis) -> _Effect | None:
    rows = analysis.final
    quantity = "gap" if rows[0].gap is not None else analysis.facts.metric
    means = {row.batch_size: _mean(getattr(row, quantity)) for row in rows}
    finite = [size for size, mean in means.items() if math.isfinite(mean)]
    if len(finite) < 2:
        return None
    smaller, larger = finite[0], finite[-1]
    sign = -1.0 if quantity == "val_accuracy" else 1.0
    harm = sign * (means[larger] - means[smaller])
    low, high = _bounds(analysis.comparisons, quantity, smaller, larger, sign)
    at_smaller, at_larger = means[smaller], means[larger]
    return _Effect(quantity, analysis.facts, smaller, larger, at_smaller, at_larger, harm, low, high)


def _mean(estimate: Estimate | None) -> float:
    return float("nan") if estimate is None else estimate.mean


def _bounds(
    comparisons: tuple[Comparison, ...], quantity: str, smaller: int, larger: int, sign: float
) -> tuple[float, float]:
    for found in comparisons:
        if (found.quantity, found.reference, found.batch_size) == (quantity, smaller, larger):
            low, high = sorted((sign * found.low, sign * found.high))
            return low, high
    return float("nan"), float("nan")


def _sentence(effect: _Effect, subject: str, share: UpdatesShare | None) -> Sentence:
    margin, confidence = effect.facts.margin, effect.facts.confidence
    prefix = "gap" if effect.quantity == "gap" else "metric"
    # A difference of exactly the margin counts, whatever its last bit.
    if effect.low <= 0 <= effect.high and max(-effect.low, effect.high) >= margin * (1 - 1e-9):
        return _undecided(effect, prefix, share, confidence)
    if abs(effect.harm) < margin * (1 - 1e-9):
        return _steady(effect, prefix, margin, confidence)
    if effect.harm < 0:
        return _shrinks(effect, prefix)
    if effect.facts.end_updates is not None:
        return _at_equal_updates(effect, subject, prefix)
    if share is None:
        return _grows(effect, prefix)
    return _explained(effect, subject, share, prefix, confidence)


def _explained(
    effect: _Effect, subject: str, share: UpdatesShare, prefix: str, confidence: float
) -> Sentence:
    rule, link = share_rule(share), "and"
    if rule == "follows_updates":
        link = "but"
        opening = f"{subject} follows the number of updates"
    elif rule == "beyond_updates":
        # A wide range of batch sizes inflates the first share: it speaks against the second, which decides.
        link = "although" if share.share >= MOST else link
        opening = f"{subject} is for the most part not explained by the number of updates"
    else:
        opening = f"{subject} may follow the number of updates, but these data leave it open"
    clause = share_clause(share, confidence)
    text = f"{opening}: {effect.clause}, {link} {clause}.{_width(share)}{_doubt(effect)}"
    return Sentence(f"{prefix}_{rule}", text, (*effect.figures, *_share_figures(share), *_harm(effect)))


def _at_equal_updates(effect: _Effect, subject: str, prefix: str) -> Sentence:
    text = (
        f"{subject} is not explained by the number of updates, which is the same for all batch sizes: "
        f"{effect.clause}.{_doubt(effect)}"
    )
    return Sentence(f"{prefix}_beyond_updates", text, (*effect.figures, *_harm(effect)))


def _share_figures(share: UpdatesShare) -> tuple[tuple[str, Figure], ...]:
    return (
        ("stage", share.stage),
        ("share", share.share),
        ("share_low", share.low),
        ("share_high", share.high),
        ("share_alike", share.share_alike),
        ("share_alike_low", share.low_alike),
        ("share_alike_high", share.high_alike),
    )


def _undecided(effect: _Effect, prefix: str, share: UpdatesShare | None, confidence: float) -> Sentence:
    text = (
        f"These data cannot tell whether the {quantity_name(effect.quantity)} depends on batch "
        f"size{_equally(effect)}: at {effect.facts.when} it is {number(effect.at_smaller)} at batch size "
        f"{effect.smaller} and {number(effect.at_larger)} at batch size {effect.larger}, a difference of "
        f"{number(effect.at_larger - effect.at_smaller)} ({interval(*effect.difference_bounds, confidence)})."
    )
    figures = (*effect.figures, *_harm(effect))
    if share is None:
        return Sentence(f"{prefix}_undecided", text, figures)
    clause = share_clause(share, confidence)
    text += f" {clause[0].upper()}{clause[1:]}.{_width(share)}"
    return Sentence(f"{prefix}_undecided", text, (*figures, *_share_figures(share)))


def _grows(effect: _Effect, prefix: str) -> Sentence:
    verb = "wider" if prefix == "gap" else "worse"
    text = (
        f"The {quantity_name(effect.quantity)} is {verb} at larger batches, and whether the number of "
        "updates explains it cannot be told: "
        f"{effect.clause}.{_doubt(effect)}"
    )
    return Sentence(f"{prefix}_grows", text, (*effect.figures, *_harm(effect)))


def _steady(effect: _Effect, prefix: str, margin: float, confidence: float) -> Sentence:
    text = (
        f"The {quantity_name(effect.quantity)} hardly changes with batch size{_equally(effect)}: "
        f"{effect.clause}, a difference of {number(abs(effect.harm))}, less than the margin of {margin:g}."
    )
    if effect.high >= margin:
        text += (
            f" With these replicates, larger batches may still be worse by as much as {number(effect.high)} "
            f"({interval(effect.low, effect.high, confidence)})."
        )
    return Sentence(f"{prefix}_steady", text, (*effect.figures, *_harm(effect), ("margin", margin)))


def _shrinks(effect: _Effect, prefix: str) -> Sentence:
    verb = "narrower" if prefix == "gap" else "better"
    text = (
        f"The {quantity_name(effect.quantity)} is {verb} at larger batches{_equally(effect)}: "
        f"{effect.clause}.{_doubt(effect)}"
    )
    return Sentence(f"{prefix}_shrinks", text, (*effect.figures, *_harm(effect)))


def _equally(effect: _Effect) -> str:
    return " at the same number of updates" if effect.facts.end_updates is not None else ""


def _harm(effect: _Effect) -> tuple[tuple[str, Figure], ...]:
    return (("harm", effect.harm), ("harm_low", effect.low), ("harm_high", effect.high))


def _width(share: UpdatesShare) -> str:
    """Says so where the share is known only roughly."""
    if max(share.high - share.low, share.high_alike - share.low_alike) > WIDE:
        return " The intervals are wide; more replicates would tell how much of it."
    return ""


def _doubt(effect: _Effect) -> str:
    """Says so where there is no interval to tell the effect from chance by."""
    return " Without more replicates, chance cannot be ruled out." if math.isnan(effect.low) else ""
