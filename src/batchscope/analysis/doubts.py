"""Why a batch size cannot be recommended, whatever it is recommended by."""

from __future__ import annotations

import numpy as np

from batchscope.analysis.learning_rates import LearningRates
from batchscope.analysis.panel import Bools, Panel
from batchscope.analysis.results import Sentence
from batchscope.analysis.words import batch_sizes, listed

__all__ = ["ENOUGH_REPLICATES", "learning_rate_doubts", "one_batch_size"]

# With 2 pairs the 95% t-interval is 12.7 standard errors wide on each side: it decides nothing.
ENOUGH_REPLICATES = 3


def one_batch_size(panel: Panel) -> list[Sentence]:
    """That there is nothing to choose from; none where there is."""
    if len(panel.batch_sizes) > 1:
        return []
    size = int(panel.batch_sizes[0])
    text = f"There is only batch size {size}, so there is nothing to compare it with."
    return [Sentence("one_batch_size", text, (("batch_size", size),))]


def learning_rate_doubts(panel: Panel, eligible: Bools, learning_rates: LearningRates) -> list[Sentence]:
    """What of the learning rates leaves open which batch size is better; none where there is but one.

    - ``learning_rate_not_retuned``: it is known that all batch sizes shared one learning rate;
    - ``learning_rate_scaled``: it is known that a rule gave each batch size its learning rate;
    - ``learning_rates_mixed``: an eligible batch size's replicates have different learning rates;
    - ``learning_rate_at_edge``: an eligible batch size's best learning rate is the smallest or largest of
      its grid, so that a better one may lie beyond.

    Args:
        panel: The whole history.
        eligible: (B,), which batch sizes there are to choose from.
        learning_rates: How they came about; where that is unknown, it is no reason by itself.
    """
    if len(panel.batch_sizes) == 1:
        return []
    doubts: list[Sentence] = []
    if learning_rates.how == "same":
        doubts.append(_not_retuned(panel))
    if learning_rates.how in ("linear", "sqrt"):
        doubts.append(_scaled(panel, learning_rates.how))
    return [*doubts, *_mixed(panel, eligible, learning_rates), *_at_edge(panel, eligible, learning_rates)]


def _not_retuned(panel: Panel) -> Sentence:
    known = np.array([]) if panel.learning_rate is None else panel.learning_rate[panel.recorded]
    rates = tuple(dict.fromkeys(known[np.isfinite(known)].tolist()))
    named = f" ({listed(f'{rate:g}' for rate in rates)})" if 0 < len(rates) <= 4 else ""
    text = (
        f"The learning rate was not retuned for each batch size: all {len(panel.batch_sizes)} shared "
        f"one{' in each stage' if len(panel.stages) > 1 else ''}{named}, which may suit some of them better "
        "than others."
    )
    return Sentence("learning_rate_not_retuned", text, (("n_batch_sizes", len(panel.batch_sizes)),))


def _scaled(panel: Panel, rule: str) -> Sentence:
    how = "in proportion to it" if rule == "linear" else "with its square root"
    text = (
        f"The learning rate was scaled with the batch size by a rule ({how}) and not retuned for each of the "
        f"{len(panel.batch_sizes)}; the rule may suit some of them better than others."
    )
    return Sentence("learning_rate_scaled", text, (("n_batch_sizes", len(panel.batch_sizes)),))


def _mixed(panel: Panel, eligible: Bools, learning_rates: LearningRates) -> list[Sentence]:
    sizes = [size for size in panel.batch_sizes[eligible].tolist() if size in learning_rates.mixed]
    if not sizes:
        return []
    text = f"The replicates of batch size {batch_sizes(sizes)} differ in their learning rates."
    return [Sentence("learning_rates_mixed", text, (("n_batch_sizes", len(sizes)),))]


def _at_edge(panel: Panel, eligible: Bools, learning_rates: LearningRates) -> list[Sentence]:
    possible = set(panel.batch_sizes[eligible].tolist())
    sizes = [point.batch_size for point in learning_rates.chosen if point.at_edge]
    sizes = [size for size in sizes if size in possible]
    if not sizes:
        return []
    text = (
        f"The best learning rate at batch size {batch_sizes(sizes)} is at the edge of the grid, and with a "
        "wider one the order of batch sizes might be another."
    )
    return [Sentence("learning_rate_at_edge", text, (("n_batch_sizes", len(sizes)),))]
