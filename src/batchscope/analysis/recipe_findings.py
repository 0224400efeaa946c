"""The verdict's sentences on the recipe: at which learning rates, and whether targets were reached."""

from __future__ import annotations

import math

from batchscope.analysis.results import Analysis, LearningRatePoint, LearningRates, Sentence, TargetRow
from batchscope.analysis.words import (
    Figure,
    batch_sizes,
    of_quantity,
    quantity_name,
    some,
    target_text,
)

__all__ = ["learning_rate_sentences", "mixed_sentences", "target_sentences"]

_COSTS = ("updates", "examples", "seconds")


def learning_rate_sentences(analysis: Analysis) -> list[Sentence]:
    """How far learning rates put the comparison in doubt, where the recommendation does not say it.

    - ``learning_rate_chosen``: each batch size is compared at its own best of a grid; with what was
      chosen by, that figures are optimistic where that is the metric itself, and where none got to the
      target often enough to be chosen by its updates;
    - ``learning_rate_passed_over``: at some, diverged trials alone decided against the best mean, or trials
      that missed the target at which they end against the least median of updates to it;
    - ``learning_rate_at_edge``: the best of some is the smallest or largest that was tried;
    - ``learning_rate_unknown``: nothing tells.
    """
    found = analysis.learning_rates
    if found.how == "grid":
        return [_chosen(found, len(analysis.facts.stages)), *_passed_over(found), *_at_edge(found)]
    if found.how is not None or len(analysis.facts.batch_sizes) == 1:
        return []
    text = (
        "Nothing tells whether the learning rate was retuned for each batch size; if it was not, batch sizes "
        "are compared at a learning rate that may suit some of them better."
    )
    return [Sentence("learning_rate_unknown", text)]


def mixed_sentences(analysis: Analysis) -> list[Sentence]:
    """``learning_rates_mixed``: replicates of a batch size do not share their learning rate."""
    mixed = analysis.learning_rates.mixed
    if not mixed:
        return []
    text = (
        f"The replicates of batch size {batch_sizes(mixed)} have different learning rates, so their mean and "
        "spread mix these with chance. If they were tried to find the best, number replicates from 1 at each "
        "learning rate and give each trial a name of its own in the column trial: each batch size is then "
        "compared at its best."
    )
    return [Sentence("learning_rates_mixed", text, (("n_batch_sizes", len(mixed)),))]


def target_sentences(analysis: Analysis) -> list[Sentence]:
    """For each stage that ends at a target, which batch sizes missed it and what it took the others."""
    stages = dict.fromkeys(row.stage for row in analysis.targets)
    return [
        sentence
        for stage in stages
        for sentence in _targets([row for row in analysis.targets if row.stage == stage])
    ]


def _chosen(found: LearningRates, n_stages: int) -> Sentence:
    best = found.chosen
    tried = sorted({point.learning_rate for point in found.points})
    each = some([f"{point.learning_rate:g} at batch size {point.batch_size}" for point in best])
    where = f" in {found.stage}" if n_stages > 1 else ""
    text = (
        f"Each batch size is compared at its own best of {len(tried)} learning rates{where} ({tried[0]:g} to "
        f"{tried[-1]:g}), chosen {_chosen_by(found)}: {each}.{_without_median(found)}"
    )
    figures: list[tuple[str, Figure]] = [("n_learning_rates", len(tried)), ("chosen_by", found.chosen_by)]
    figures += [(f"learning_rate_at_{point.batch_size}", point.learning_rate) for point in best]
    return Sentence("learning_rate_chosen", text, tuple(figures))


def _chosen_by(found: LearningRates) -> str:
    if found.goal is not None:
        goal = target_text(found.goal.metric, found.goal.value)
        return f"by the fewest updates to {goal}, at which trials end (medians over replicates)"
    if found.optimistic:
        return f"by the {quantity_name(found.chosen_by or '')} itself, so that the figures are optimistic"
    return "by the same replicates on validation examples on which no other figure rests"


def _without_median(found: LearningRates) -> str:
    """Says where no learning rate has a median of updates; begins with a space."""
    rows = [point.to_target for point in found.points if point.to_target is not None]
    known = {row.batch_size for row in rows if math.isfinite(row.updates.value)}
    sizes = [row.batch_size for row in rows if row.best and row.batch_size not in known]
    if not sizes:
        return ""
    return (
        f" At batch size {batch_sizes(sizes)} too few trials got there at any of them for a median; the one "
        "at which most did is taken, of equal ones the smallest."
    )


def _passed_over(found: LearningRates) -> list[Sentence]:
    points = [point for point in found.points if point.passed_over]
    if not points:
        return []
    each = some(
        [f"{point.learning_rate:g} at batch size {point.batch_size} ({_lost(point)})" for point in points]
    )
    why = (
        "trials diverged there, though the others ended better than at the best"
        if found.goal is None
        else "more trials missed the target there, though the median is less than at the best"
    )
    text = f"Learning rates were passed over because {why}: {each}."
    figures = tuple((f"learning_rate_at_{point.batch_size}", point.learning_rate) for point in points)
    return [Sentence("learning_rate_passed_over", text, figures)]


def _lost(point: LearningRatePoint) -> str:
    """How many trials were lost, of those that have begun."""
    if point.to_target is None:
        return f"{point.n_diverged} of {point.n_trials} diverged"
    missed = point.n_trials - point.to_target.n_reached - point.n_missing
    return f"{missed} of {point.n_trials} missed it"


def _at_edge(found: LearningRates) -> list[Sentence]:
    edges = [point for point in found.chosen if point.at_edge]
    if not edges:
        return []
    each = some([f"{_side(point, found)} at batch size {point.batch_size}" for point in edges])
    text = (
        f"The best learning rate lies at the edge of what was tried ({each}): a better one may lie beyond, "
        "and these batch sizes may be compared at less than their best."
    )
    figures = tuple((f"learning_rate_at_{point.batch_size}", point.learning_rate) for point in edges)
    return [Sentence("learning_rate_at_edge", text, figures)]


def _side(point: LearningRatePoint, found: LearningRates) -> str:
    tried = [other.learning_rate for other in found.points if other.batch_size == point.batch_size]
    return f"the {'smallest' if point.learning_rate == min(tried) else 'largest'}, {point.learning_rate:g},"


def _targets(rows: list[TargetRow]) -> list[Sentence]:
    sentences = []
    missed = [row for row in rows if row.n_missed]
    if missed:
        each = some([f"{row.n_missed} of {row.n_trials} at batch size {row.batch_size}" for row in missed])
        text = (
            f"The target of {_goal(rows[0])}{_in(rows[0])} was not reached within {rows[0].most_epochs} "
            f"epochs by some trials: {each}. Their figures are those of the epoch that they got to."
        )
        total = sum(row.n_missed for row in missed)
        figures = (("n_missed", total), ("value", rows[0].value), ("most_epochs", rows[0].most_epochs))
        sentences.append(Sentence("target_missed", text, figures))
    whole = [row for row in rows if row.n_reached and row.n_reached == row.n_trials]
    if len(whole) > 1:
        sentences += _cheapest(whole)
    return sentences


def _cheapest(rows: list[TargetRow]) -> list[Sentence]:
    parts, figures = [], [("value", rows[0].value)]
    for cost in _COSTS:
        spent = {row.batch_size: found.mean for row in rows if (found := row.spent(cost)) is not None}
        if not spent or not all(mean >= 0 for mean in spent.values()):
            continue
        least, most = min(spent, key=lambda size: spent[size]), max(spent, key=lambda size: spent[size])
        fewest, highest = of_quantity(spent[least]), of_quantity(spent[most])
        parts.append(
            f"with the fewest {cost} at batch size {least} ({fewest}, against up to {highest} at batch size "
            f"{most})"
            if fewest != highest
            else f"with equally many {cost} at all of them ({fewest})"
        )
        figures += [(f"batch_size_by_{cost}", least), (cost, spent[least]), (f"most_{cost}", spent[most])]
    if not parts:
        return []
    sizes = batch_sizes([row.batch_size for row in rows])
    text = (
        f"The target of {_goal(rows[0])}{_in(rows[0])} was reached by every trial of batch size {sizes}: "
        f"{'; '.join(parts)}."
    )
    return [Sentence("target_reached", text, tuple(figures))]


def _goal(row: TargetRow) -> str:
    return target_text(row.metric, row.value)


def _in(row: TargetRow) -> str:
    return f" in {row.stage}" if row.stage else ""
