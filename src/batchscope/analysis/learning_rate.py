"""How the learning rates came about, and whether each batch size had one of its own."""

from __future__ import annotations

import numpy as np

from batchscope.analysis.learning_rates import LearningRates
from batchscope.analysis.panel import Floats, Panel
from batchscope.analysis.settings import RecipeFacts

__all__ = ["learning_rate_retuned", "without_grid"]


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


def without_grid(retuned: bool | None, recipe: RecipeFacts | None) -> LearningRates:
    """How the learning rates of a history without a grid came about."""
    if recipe is not None and recipe.learning_rate_rule is not None:
        return LearningRates(recipe.learning_rate_rule)
    return LearningRates(None if retuned is None else "differ" if retuned else "same")


def _differs(panel: Panel, learning_rate: Floats, stage: int) -> bool:
    inside = (panel.stage_index == stage) & np.isfinite(learning_rate)
    rates = [
        frozenset(learning_rate[row][inside[row]].tolist())
        for row in range(len(panel.batch_sizes))
        if inside[row].any()
    ]
    return len(set(rates)) > 1
