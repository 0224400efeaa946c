"""How well each batch size's mean is known, while its study still runs."""

from __future__ import annotations

import math

import pandas as pd

from batchscope.analysis.grid import at_chosen, choose_learning_rates
from batchscope.analysis.moments import estimate
from batchscope.errors import HistoryError

__all__ = ["CI_CONFIDENCE", "half_width"]

CI_CONFIDENCE = 0.95


def half_width(history: pd.DataFrame, metric: str) -> float:
    """Half the t-interval of a metric's mean over the trials of one batch size, each at its own end.

    With a grid of learning rates, those at the one that is best so far count. Trials that diverged are
    left out, as they are from the mean.

    Args:
        history: In standard form, of one batch size; all of its trials have ended.
        metric: ``val_accuracy`` or ``val_loss``.

    Returns:
        Infinity where fewer than two trials have a finite figure.

    Raises:
        HistoryError: The history has no such column.
    """
    if metric not in history.columns:
        raise HistoryError(f"until_ci needs {metric}, which the trials do not report; name the other metric")
    ended = frozenset(history["trial"])
    chosen = choose_learning_rates(history, metric, CI_CONFIDENCE, ended=ended)
    counted = history if chosen is None else at_chosen(history, chosen)
    ends = counted.groupby("trial", sort=False).tail(1)[metric].to_numpy(dtype="float64")
    found = estimate(ends, CI_CONFIDENCE)
    return math.inf if found.n < 2 else (found.high - found.low) / 2
