"""Whether each batch size had a learning rate of its own."""

from __future__ import annotations

import numpy as np

from batchscope.analysis.panel import Floats, Panel
from batchscope.analysis.settings import RecipeFacts

__all__ = ["learning_rate_retuned"]


def learning_rate_retuned(panel: Panel, recipe: RecipeFacts | None) -> bool | None:
    """Whether the learning rate was retuned for each batch size, as far as can be known.

    The recipe's word counts. Without it, one learning rate for all batch sizes in every stage
    means that it was not; different ones are taken as retuned, since a history cannot tell
    tuning from a scaling rule. None where there is neither column nor word, or only one batch size.
    """
    if recipe is not None and recipe.learning_rate_retuned is not None:
        return recipe.learning_rate_retuned
    if panel.learning_rate is None or len(panel.batch_sizes) < 2:
        return None
    return any(_differs(panel, panel.learning_rate, stage) for stage in range(len(panel.stages)))


def _differs(panel: Panel, learning_rate: Floats, stage: int) -> bool:
    inside = (panel.stage_index == stage) & np.isfinite(learning_rate)
    rates = [
        frozenset(learning_rate[row][inside[row]].tolist())
        for row in range(len(panel.batch_sizes))
        if inside[row].any()
    ]
    return len(set(rates)) > 1
