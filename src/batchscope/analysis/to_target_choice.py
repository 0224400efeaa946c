"""Which of its learning rates a batch size stands at: the one that gets to a target soonest."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

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

    Where it is known which trials have ended, that is the one at which the smallest share of them missed the
    target, for a batch size is judged by trials that all got there; then, and else at once, the one of the
    least median of updates; where none has a median, the one at which most trials got there. Rates are held
    against each other over the replicates that all of them share, as far as there are any: a rate that is a
    replicate ahead would else be judged by other seeds. Of equal ones the best has the most trials, then the
    least median over all of these, then is the smallest. It is at the edge only if no rate within is as good.

    Args:
        rows: Ascending.
        trials: Of these.
        confidence: Of the intervals.
        ended: Names of the trials that have ended; None where nobody knows.
    """
    judging = _judging(trials, ended)
    standings = [
        _standing(row, [one for one in judging if one.learning_rate == row.learning_rate], confidence, ended)
        for row in rows
    ]
    best = min(standings, key=lambda one: (one.missed, one.median, *one.then))
    soonest = min(standings, key=lambda one: (one.median, one.missed, *one.then))
    edge = (
        math.isfinite(best.row.updates.value)
        and best in (standings[0], standings[-1])
        and len(standings) > 1
        and not any(_as_good(one, best) for one in standings[1:-1])
    )
    return [
        dataclasses.replace(
            one.row,
            best=one is best,
            at_edge=edge and one is best,
            passed_over=one is soonest and one is not best,
        )
        for one in standings
    ]


@dataclass(frozen=True)
class _Standing:
    """What speaks for a learning rate; the least is the best.

    Attributes:
        row: The rate.
        missed: Share of the judging trials that are known to have missed the target.
        median: Of these trials' updates; infinite without one.
        not_there: Share of these trials that have not reached it, whether they go on or not.
        of_all: Median over all of its trials; infinite without one.
    """

    row: RateToTarget
    missed: float
    median: float
    not_there: float
    of_all: float

    @property
    def then(self) -> tuple[float, int, float, float]:
        """What decides where neither the share that missed nor the median does."""
        return self.not_there, -self.row.n_trials, self.of_all, self.row.learning_rate or 0.0


def _as_good(one: _Standing, best: _Standing) -> bool:
    """Whether nothing speaks against a rate but that it has fewer trials or is larger."""
    alike = (one.missed, one.median, one.not_there) == (best.missed, best.median, best.not_there)
    return alike and (one.row.n_trials < best.row.n_trials or one.of_all == best.of_all)


def _standing(
    row: RateToTarget, judged: Sequence[TrialToTarget], confidence: float, ended: frozenset[str] | None
) -> _Standing:
    reached = sum(one.outcome == "reached" for one in judged)
    missed = [
        one
        for one in judged
        if ended is not None
        and (one.outcome == "diverged" or (one.outcome == "censored" and one.trial in ended))
    ]
    return _Standing(
        row=row,
        missed=len(missed) / len(judged),
        median=_or_never(median_of_trials(judged, "updates", confidence).value),
        not_there=1 - reached / len(judged),
        of_all=_or_never(row.updates.value),
    )


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
