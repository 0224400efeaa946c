"""How the learning rates came about, and whether each batch size had one of its own."""

from __future__ import annotations

import numpy as np

from batchscope.analysis.learning_rates import LearningRates
from batchscope.analysis.panel import Bools, Floats, Panel
from batchscope.analysis.settings import RecipeFacts

__all__ = ["learning_rate_retuned", "without_grid"]

# A learning rate that goes by updates or by the clock may differ a little; no grid is as narrow.
_ALIKE = 0.01


def learning_rate_retuned(panel: Panel, recipe: RecipeFacts | None) -> bool | None:
    """Whether the learning rate was retuned for each batch size, as far as can be known.

    What a rule gives is not retuned; else the recipe's word counts. Without it, one learning rate for
    all batch sizes in every stage means that it was not; different ones are taken as retuned, since a
    history cannot tell tuning from a scaling rule. None where there is neither column nor word, or
    only one batch size.
    """
    if recipe is not None and recipe.learning_rate_rule is not None:
        return False
    if recipe is not None and recipe.learning_rate_retuned is not None:
        return recipe.learning_rate_retuned
    if panel.learning_rate is None or len(panel.batch_sizes) < 2:
        return None
    return any(_differs(panel, panel.learning_rate, stage) for stage in range(len(panel.stages)))


def without_grid(panel: Panel, retuned: bool | None, recipe: RecipeFacts | None) -> LearningRates:
    """How the learning rates of a history without a grid came about."""
    mixed = _mixed(panel)
    if recipe is not None and recipe.learning_rate_rule is not None:
        return LearningRates(recipe.learning_rate_rule, mixed=mixed)
    if mixed:
        return LearningRates("differ", mixed=mixed)
    return LearningRates(None if retuned is None else "differ" if retuned else "same")


def _mixed(panel: Panel) -> tuple[int, ...]:
    """Batch sizes of which replicates have different learning rates, as a grid numbered as replicates has."""
    if panel.learning_rate is None:
        return ()
    return tuple(
        int(size)
        for size, rates, stages in zip(panel.batch_sizes, panel.learning_rate, panel.stage_index, strict=True)
        if any(_is_mixed(rates, stages == stage) for stage in range(len(panel.stages)))
    )


def _is_mixed(rates: Floats, inside: Bools) -> bool:
    """Whether trials, (R, E), differ in their largest learning rate over as many rows as all have.

    So neither a warm-up, nor a trial that stops or lowers its rate ahead of others, makes a difference.
    """
    courses = [rate[there & np.isfinite(rate)] for rate, there in zip(rates, inside, strict=True)]
    courses = [course for course in courses if len(course)]
    if len(courses) < 2:
        return False
    shared = min(map(len, courses))
    largest = np.array([course[:shared].max() for course in courses])
    return bool(np.ptp(largest) > _ALIKE * np.abs(largest).max())


def _differs(panel: Panel, learning_rate: Floats, stage: int) -> bool:
    inside = (panel.stage_index == stage) & np.isfinite(learning_rate)
    rates = [
        frozenset(learning_rate[row][inside[row]].tolist())
        for row in range(len(panel.batch_sizes))
        if inside[row].any()
    ]
    return len(set(rates)) > 1
