"""How well each batch size's mean is known, while its study still runs."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from batchscope.analysis.grid import at_chosen
from batchscope.analysis.moments import estimate
from batchscope.analysis.tuning import choose_learning_rates
from batchscope.errors import HistoryError
from batchscope.history import METRICS

__all__ = ["CI_CONFIDENCE", "half_width"]

CI_CONFIDENCE = 0.95


def half_width(history: pd.DataFrame, metric: str) -> float:
    """Half the t-interval of a metric's mean over the trials of one batch size, each at its own end.

    With a grid of learning rates, those at the one that is best so far count. Trials that diverged, with any
    loss or accuracy that is not finite, are left out, as they are from the mean.

    Args:
        history: In standard form, of one batch size; all of its trials have ended.
        metric: ``val_accuracy`` or ``val_loss``.

    Returns:
        Infinity where fewer than two trials have a finite figure, or all have the same: accuracies on few
        examples often tie, and say nothing of how they scatter then.

    Raises:
        HistoryError: The history has no such column.
    """
    if metric not in history.columns:
        raise HistoryError(f"until_ci needs {metric}, which the trials do not report; name the other metric")
    ended = frozenset(history["trial"])
    chosen = choose_learning_rates(history, metric, CI_CONFIDENCE, ended=ended)
    counted = history if chosen is None else at_chosen(history, chosen)
    ends = counted.groupby("trial", sort=False).tail(1)
    measured = [name for name in METRICS if name in ends.columns]
    finite = np.isfinite(ends[measured].to_numpy(dtype=np.float64)).all(axis=1)
    found = estimate(ends[metric].to_numpy(dtype=np.float64)[finite], CI_CONFIDENCE)
    return (found.high - found.low) / 2 if found.n >= 2 and found.sd > 0 else math.inf
