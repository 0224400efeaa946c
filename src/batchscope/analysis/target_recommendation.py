"""Which batch size gets to the target at which trials end at the least cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from batchscope.analysis.comparisons import paired_t
from batchscope.analysis.doubts import ENOUGH_REPLICATES, learning_rate_doubts, one_batch_size
from batchscope.analysis.learning_rates import LearningRates
from batchscope.analysis.panel import Bools, Floats, Panel
from batchscope.analysis.results import Choice, Recommendation, Sentence
from batchscope.analysis.settings import Settings, Target
from batchscope.analysis.targets import TargetRow, reached_by_all
from batchscope.analysis.words import batch_sizes, some, target_text

__all__ = ["recommend_to_target"]


def recommend_to_target(
    panel: Panel, goal: Target, rows: Sequence[TargetRow], settings: Settings, learning_rates: LearningRates
) -> Recommendation:
    """The batch size that got to the target with the least of each cost, of those that always did.

    Trials end there, so that no batch size is better at the end than another. A batch size is eligible if
    every one of its trials got there. Each cost (updates, examples, seconds) picks the one with the least
    mean over replicates, of equal ones the smallest. Another one is its rival if the paired t-interval of
    the logarithm of their ratio does not lie above 0, or there is none; nor does it where the other's trials
    are taken to have got there at the measurement before, for they did so at some time since. A cost that is
    NaN picks none.

    These data cannot tell if any of these holds:

    - ``one_batch_size``: there is nothing to choose from;
    - ``target_not_always_reached``: no batch size is eligible;
    - ``still_running``: a batch size of which no trial has missed the target so far has trials that have not
      ended, or not begun;
    - ``too_few_replicates``: an eligible batch size has fewer than `ENOUGH_REPLICATES`;
    - those of `batchscope.analysis.doubts.learning_rate_doubts`.

    Args:
        panel: The whole history, of which a trial has ended.
        goal: The target.
        rows: What it took, by batch size.
        settings: Margin and confidence.
        learning_rates: How they came about; where that is unknown, it is no reason by itself.
    """
    reached = reached_by_all(panel, rows)
    sizes = tuple(row.batch_size for row in reached)
    eligible = np.isin(panel.batch_sizes, sizes)
    reasons = one_batch_size(panel)
    if not reached:
        text = f"At no batch size did every trial reach {target_text(goal.metric, goal.value)}."
        reasons.append(Sentence("target_not_always_reached", text, (("value", goal.value),)))
    reasons += _still_running(panel, rows)
    reasons += _replicates(reached)
    reasons += learning_rate_doubts(panel, eligible, learning_rates)
    return Recommendation(
        status="cannot_tell" if reasons else "recommended",
        quantity=goal.metric,
        margin=settings.margin,
        epoch=panel.end_epoch,
        best_batch_size=None,
        best_mean=math.nan,
        within_margin=sizes,
        choices=_choices(panel, eligible, settings.confidence) if reached else (),
        reasons=tuple(reasons),
    )


def _still_running(panel: Panel, rows: Sequence[TargetRow]) -> list[Sentence]:
    """The slowest end last and would drop out without a word; a target that was missed is an answer."""
    begun: Bools = np.asarray(panel.recorded.any(axis=2))
    own = panel.ends.own
    diverged: Bools = begun & panel.diverged[:, :, -1]
    over: Bools = diverged if own is None else diverged | (own >= 0)
    planned = panel.plan.planned if panel.plan is not None else frozenset()
    to_end = _pairs(panel, begun & ~over) | (planned - _pairs(panel, begun))
    n_over = Counter(size for size, _ in _pairs(panel, over))
    n_reached = Counter({row.batch_size: row.n_reached for row in rows})
    numbers = sorted(Counter(size for size, _ in to_end).items())
    waited_for = [(size, n) for size, n in numbers if n_over[size] <= n_reached[size]]
    if not waited_for:
        return []
    each = some([f"{n} at batch size {size}" for size, n in waited_for])
    text = f"Trials that have not ended may still get to the target at less cost: {each}."
    return [Sentence("still_running", text, (("n_trials", sum(n for _, n in waited_for)),))]


def _pairs(panel: Panel, marks: Bools) -> set[tuple[int, int]]:
    """Batch size and replicate of each mark, (B, R)."""
    return {(int(panel.batch_sizes[row]), int(panel.replicates[place])) for row, place in np.argwhere(marks)}


def _replicates(rows: Sequence[TargetRow]) -> list[Sentence]:
    few = [row for row in rows if row.n_trials < ENOUGH_REPLICATES]
    if not few:
        return []
    least = min(row.n_trials for row in few)
    text = (
        f"Too few replicates: at least {ENOUGH_REPLICATES} are needed, but batch size "
        f"{batch_sizes([row.batch_size for row in few])} {'has' if len(few) == 1 else 'have'} as few as "
        f"{least}."
    )
    return [Sentence("too_few_replicates", text, (("needed", ENOUGH_REPLICATES), ("fewest", least)))]


def _choices(panel: Panel, eligible: Bools, confidence: float) -> tuple[Choice, ...]:
    places = np.flatnonzero(eligible)
    choices = []
    for cost, values in panel.costs.items():
        spent, before = (panel.at_end(every)[places] for every in (values, panel.costs_before[cost]))
        mean = np.array([row[np.isfinite(row)].mean() if np.isfinite(row).any() else np.nan for row in spent])
        if not np.isfinite(mean).all():
            continue
        cheapest = int(mean.argmin())
        dearer = _is_dearer(spent, spent[cheapest], confidence) & _is_dearer(
            before, spent[cheapest], confidence
        )
        rivals = [place for place in range(len(places)) if place != cheapest and not dearer[place]]
        choices.append(
            Choice(
                cost=cost,
                batch_size=int(panel.batch_sizes[places[cheapest]]),
                spent=float(mean[cheapest]),
                epoch=None,
                best_spent=math.nan,
                rivals=tuple(int(panel.batch_sizes[places[place]]) for place in rivals),
            )
        )
    return tuple(choices)


def _is_dearer(spent: Floats, cheapest: Floats, confidence: float) -> Bools:
    """(B,), whether the interval of log ratios to the cheapest, (B, R) to (R,), lies above 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(spent) - np.log(cheapest)
    low = paired_t(ratio, confidence)[2]
    # The interval leaves out what is not finite: a trial that may have got there at no cost at all.
    result: Bools = (low > 0) & ~(spent == 0).any(axis=1)
    return result
