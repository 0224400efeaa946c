"""More replicates for those batch sizes whose mean is not known well enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from batchscope.analysis.narrowing import half_width
from batchscope.own_study import AnyStudy
from batchscope.records import Trial
from batchscope.running.plan import replicate_of
from batchscope.running.store import Store, TrialStatus

__all__ = ["Addition", "additions"]


@dataclass(frozen=True)
class Addition:
    """A replicate that is added.

    Attributes:
        trials: Of one batch size, one for each learning rate.
        reason: Why, for people.
    """

    trials: tuple[Trial, ...]
    reason: str


def additions(study: AnyStudy, store: Store) -> list[Addition]:
    """The next replicate of every batch size that needs one.

    Whether a batch size does is decided when all of its trials have ended, and by these alone, so that
    it is the same whatever runs beside them and however often the run is interrupted. One that has a
    failed trial waits until that was tried again.

    Args:
        study: The study.
        store: Its results.

    Raises:
        HistoryError: The trials do not report the metric.
    """
    if study.until_ci is None:
        return []
    statuses = store.trials()
    due = [size for size in sorted(study.batch_sizes) if _is_due(study, _of(statuses, size))]
    if not due:
        return []
    history = store.history(study.name)
    found = (_next(study, size, _of(statuses, size), history) for size in due)
    return [addition for addition in found if addition is not None]


def _of(statuses: Sequence[TrialStatus], batch_size: int) -> list[TrialStatus]:
    return [status for status in statuses if status.trial.batch_size == batch_size]


def _is_due(study: AnyStudy, statuses: Sequence[TrialStatus]) -> bool:
    most = study.until_ci.max_replicates if study.until_ci is not None else 0
    return all(status.state.is_finished() for status in statuses) and _replicates(statuses) < most


def _replicates(statuses: Sequence[TrialStatus]) -> int:
    return max((status.trial.replicate for status in statuses), default=0)


def _next(
    study: AnyStudy, batch_size: int, statuses: Sequence[TrialStatus], history: pd.DataFrame
) -> Addition | None:
    wanted = study.until_ci
    if wanted is None:
        return None
    known = half_width(history[history["batch_size"] == batch_size], wanted.metric)
    if known <= wanted.half_width:
        return None
    replicate = _replicates(statuses) + 1
    within = "by no two trials that differ" if math.isinf(known) else f"to \u00b1{known:.2g}"
    reason = (
        f"replicate {replicate} of batch size {batch_size} is added: its mean {wanted.metric} is known "
        f"{within}, and \u00b1{wanted.half_width:g} is asked for"
    )
    return Addition(tuple(replicate_of(study, batch_size, replicate)), reason)
