"""More replicates for those batch sizes whose mean is not known well enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

from batchscope.errors import HistoryError, Problem, StudyError
from batchscope.own_study import AnyStudy
from batchscope.records import Trial, TrialState
from batchscope.running.plan import replicate_of
from batchscope.running.store import Store, TrialStatus
from batchscope.spec import UntilCi

__all__ = ["Growth", "check_metric"]


class Growth:
    """Says which replicates are still asked for.

    Whether a batch size gets another is decided when all of its trials have ended, and by these alone, so
    that it is the same whatever runs beside them and however often the run is interrupted. One that
    has a failed trial waits until that was tried again; one whose trials all diverged gets none, for no
    number of them tells a mean.

    What was decided once stands: finished trials do not change.

    Args:
        study: The study.
        store: Its results.
        tell: Told each decision but that a mean is known well enough, once.
    """

    def __init__(self, study: AnyStudy, store: Store, tell: Callable[[str], None]) -> None:
        self._study, self._store, self._tell = study, store, tell
        self._decided: dict[tuple[int, int], bool] = {}

    def trials(self) -> list[Trial]:
        """The next replicate of every batch size that needs one; nothing while they are planned."""
        wanted = self._study.until_ci
        if wanted is None:
            return []
        statuses = self._store.trials()
        found: list[Trial] = []
        for size in sorted(self._study.batch_sizes):
            here = [status for status in statuses if status.trial.batch_size == size]
            replicates = max((status.trial.replicate for status in here), default=0)
            ended = all(status.state.is_finished() for status in here)
            if ended and replicates < wanted.max_replicates and self._needs(size, here, wanted):
                found += replicate_of(self._study, size, replicates + 1)
        return found

    def _needs(self, batch_size: int, statuses: Sequence[TrialStatus], wanted: UntilCi) -> bool:
        key = batch_size, len(statuses)
        if key not in self._decided:
            self._decided[key] = self._judge(batch_size, statuses, wanted)
        return self._decided[key]

    def _judge(self, batch_size: int, statuses: Sequence[TrialStatus], wanted: UntilCi) -> bool:
        from batchscope.analysis.narrowing import half_width

        none_more = f"no replicate of batch size {batch_size} is added: "
        if all(status.state is TrialState.DIVERGED for status in statuses):
            self._tell(f"{none_more}all of its {len(statuses)} trials diverged")
            return False
        history = self._store.history(self._study.name)
        try:
            known = half_width(history[history["batch_size"] == batch_size], wanted.metric)
        except HistoryError as error:  # of one batch size, and the others are worth going on
            self._tell(f"{none_more}its mean cannot be judged, for {error}")
            return False
        if known <= wanted.half_width:
            return False
        replicate = max(status.trial.replicate for status in statuses) + 1
        within = "by no two trials that differ" if math.isinf(known) else f"to \u00b1{known:.2g}"
        self._tell(
            f"replicate {replicate} of batch size {batch_size} is added: its mean {wanted.metric} is known "
            f"{within}, and \u00b1{wanted.half_width:g} is asked for"
        )
        return True


def check_metric(study: AnyStudy, unreported: Collection[str]) -> None:
    """Refuses a search by a metric that the trials do not report: it would find nothing for hours.

    Args:
        study: The study.
        unreported: Metrics that its records leave out.

    Raises:
        StudyError: The metric of `until_ci` is among them.
    """
    if study.until_ci is None or study.until_ci.metric not in unreported:
        return
    metric = study.until_ci.metric
    other = "val_loss" if metric == "val_accuracy" else "val_accuracy"
    rule = f"must be a metric that the trials report; they report {other}: set until_ci.metric to it"
    raise StudyError(study.name, [Problem("until_ci.metric", rule, metric)])
