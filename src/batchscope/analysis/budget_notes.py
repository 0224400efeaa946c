"""What the kind of budget lets a comparison of batch sizes show."""

from __future__ import annotations

import numpy as np

from batchscope.analysis.facts import StudyFacts
from batchscope.analysis.panel import Panel
from batchscope.analysis.words import Sentence

__all__ = ["budget_notes"]


def budget_notes(facts: StudyFacts, panel: Panel) -> list[Sentence]:
    """``epoch_budget``: that the same epochs are fewer updates for larger batch sizes.

    Shallue et al. 2018 (arXiv 1811.03600) compare budgets: one in epochs favours small batch sizes, for large
    ones are stopped after few updates.
    """
    if len(facts.batch_sizes) < 2 or any(stage.budget != "epochs" for stage in facts.stages):
        return []
    if "updates" not in panel.costs:
        return []
    final = panel.at_end(panel.costs["updates"])
    means = [float(row[np.isfinite(row)].mean()) for row in final if np.isfinite(row).any()]
    if len(means) < len(final) or not means[0] > means[-1] > 0:
        return []
    smallest, largest = facts.batch_sizes[0], facts.batch_sizes[-1]
    ratio = means[0] / means[-1]
    text = (
        f"All batch sizes were given the same number of epochs: batch size {smallest} made {ratio:.3g} times "
        f"as many updates as batch size {largest}. Where a larger batch size ends worse, its fewer "
        "updates may be why; a budget in updates, or until a target, tells."
    )
    figures = (("batch_size", smallest), ("largest", largest), ("ratio", ratio))
    return [Sentence("epoch_budget", text, figures)]
