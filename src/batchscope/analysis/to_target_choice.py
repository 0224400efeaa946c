"""Which of its learning rates a batch size stands at: the one that gets to a target soonest."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence

from batchscope.analysis.to_target_medians import median_of_trials
from batchscope.analysis.to_target_results import RateToTarget, TrialToTarget

__all__ = ["with_best"]


def with_best(
    rows: Sequence[RateToTarget],
    trials: Sequence[TrialToTarget],
    confidence: float,
    ended: frozenset[str] | None,
) -> list[RateToTarget]:
    """One batch size's learning rates with the best of them told.

    That is the one of the least median of updates; where none has a median, the one at which most trials
    got there. Rates are held against each other over the replicates that all of them share, as far as there
    are any: a rate that is a replicate ahead would else be judged by other seeds. Of equal ones the best has
    the most trials, then the least median over all of these, then is the smallest.

    Args:
        rows: Ascending.
        trials: Of these.
        confidence: Of the intervals.
        ended: Names of the trials that have ended; None where nobody knows.
    """
    judging = _judging(trials, ended)

    def rank(row: RateToTarget) -> tuple[float, float, int, float, float]:
        judged = [one for one in judging if one.learning_rate == row.learning_rate]
        reached = sum(one.outcome == "reached" for one in judged)
        return (
            _or_never(median_of_trials(judged, "updates", confidence).value),
            -reached / len(judged),
            -row.n_trials,
            _or_never(row.updates.value),
            row.learning_rate or 0.0,
        )

    best = min(rows, key=rank)
    edge = len(rows) > 1 and best in (rows[0], rows[-1]) and math.isfinite(best.updates.value)
    return [dataclasses.replace(row, best=row is best, at_edge=edge and row is best) for row in rows]


def _judging(trials: Sequence[TrialToTarget], ended: frozenset[str] | None) -> Sequence[TrialToTarget]:
    """The trials of the replicates in which all learning rates have been followed; all where there are none.

    A trial has been followed if it reached the target, diverged or ended. Where nobody knows which have
    ended, one that has gone on for as long as any took counts, for it is later than all.
    """
    longest = max(one.updates for one in trials)
    followed = defaultdict(set)
    for one in trials:
        over = one.updates >= longest if ended is None else one.trial in ended
        if one.outcome != "censored" or over:
            followed[one.replicate].add(one.learning_rate)
    rates = {one.learning_rate for one in trials}
    shared = {replicate for replicate, found in followed.items() if found == rates}
    return [one for one in trials if one.replicate in shared] or trials


def _or_never(median: float) -> float:
    return median if math.isfinite(median) else math.inf
