"""What trials had spent at the measurement of validation before the one that a row tells of."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from batchscope.history import WITHIN, parts_measured

__all__ = ["costs_before"]


def costs_before(history: pd.DataFrame, costs: Iterable[str]) -> pd.DataFrame:
    """For each row the costs at the measurement before its own: within its epoch, else in the row before.

    What validation is first measured to be at a row came about after that, since the trial's start; 0 where
    there is none. Within an epoch examples are counted as updates times batch size, and seconds are taken to
    pass evenly, as by `batchscope.analysis.measurements.trial_courses`.

    Args:
        history: With one trial for each batch size and replicate.
        costs: Columns of it: ``updates``, ``examples``, ``seconds``.

    Returns:
        These columns, with the history's index.
    """
    names = list(costs)
    ahead = history.sort_values("epoch").groupby(["batch_size", "replicate"])[names].shift(1)
    before = ahead.reindex(history.index).fillna(0.0)
    within = [f"{WITHIN}{part}_updates" for part in parts_measured(history)]
    if "updates" not in names or not within:
        return before
    ends, starts = (table["updates"].to_numpy(dtype=np.float64) for table in (history, before))
    inside = history[within].to_numpy(dtype=np.float64)
    known = (inside >= starts[:, None]) & (inside < ends[:, None])
    latest = np.where(known, inside, starts[:, None]).max(axis=1)
    share = np.divide(latest - starts, ends - starts, out=np.zeros_like(ends), where=ends > starts)
    for name in names:
        spent = share * (history[name] - before[name])
        if name == "examples":
            spent = (latest - starts) * history["batch_size"]
        before[name] += spent
    return before
