"""Notes on a grid of learning rates: which trials it took, and what the choice may have done."""

from __future__ import annotations

import math

from batchscope.analysis.choice import FEWEST
from batchscope.analysis.learning_rates import LearningRates
from batchscope.analysis.results import Analysis
from batchscope.analysis.settings import Target
from batchscope.analysis.words import Figure, Sentence, count, number, quantity_name, target_text

__all__ = ["learning_rate_notes"]


def learning_rate_notes(analysis: Analysis) -> list[Sentence]:
    """``learning_rates_left_out`` and ``learning_rate_optimism``; none without a grid."""
    return [*_not_chosen(analysis), *_optimism(analysis)]


def _not_chosen(analysis: Analysis) -> list[Sentence]:
    points = [point for point in analysis.learning_rates.points if not point.chosen]
    if not points:
        return []
    trials = sum(point.n_trials for point in points)
    text = (
        f"{count(trials, 'trial')} at learning rates that were not chosen count for that choice alone; all "
        "other figures leave them out."
    )
    return [Sentence("learning_rates_left_out", text, (("n_trials", trials),))]


def _optimism(analysis: Analysis) -> list[Sentence]:
    """What the replicates' part in the choice of a learning rate may have done to the figures."""
    found = analysis.learning_rates
    if found.goal is not None:
        return _optimism_of_updates(found, found.goal)
    if not found.optimism:
        return []
    text = (
        "The replicates that chose the learning rates are those that are compared: what favoured a learning "
        "rate in them by chance favours its figures too, on any images."
    )
    known = [row for row in found.optimism if math.isfinite(row.estimate)]
    if not known:
        text += (
            f" By how much cannot be told: it takes {FEWEST} replicates in which every learning rate has "
            "ended, and that no trial at the best has diverged."
        )
        return [Sentence("learning_rate_optimism", text, (("mean", None),))]
    mean = sum(row.estimate for row in known) / len(known)
    most = max(known, key=lambda row: row.estimate)
    where = (
        "" if len(known) == len(found.optimism) else f" ({len(known)} of {len(found.optimism)} batch sizes)"
    )
    text += (
        " By choosing each replicate's learning rate by the others alone, this is estimated at "
        f"{number(mean)} of the mean {quantity_name(analysis.facts.metric)} on average over batch "
        f"sizes{where}, and at most {number(most.estimate)} (batch size {most.batch_size})."
    )
    if found.optimistic:
        text += " What the images add to that, which chose too, is not in it."
    figures: list[tuple[str, Figure]] = [("mean", mean), ("most", most.estimate)]
    figures += [(f"estimate_at_{row.batch_size}", row.estimate) for row in known]
    return [Sentence("learning_rate_optimism", text, tuple(figures))]


def _optimism_of_updates(found: LearningRates, goal: Target) -> list[Sentence]:
    """Without an estimate: replicates that leave each other out tell of means, and these are medians."""
    if len(found.points) == len(found.chosen):
        return []
    text = (
        f"The learning rates with the fewest updates to {target_text(goal.metric, goal.value)} were chosen "
        "by the trials whose updates are then told: of rates that are equally good in truth the luckiest is "
        "taken, so the updates, examples and seconds to it come out too few. By how much is not "
        "estimated."
    )
    return [Sentence("learning_rate_optimism", text, (("mean", None),))]
