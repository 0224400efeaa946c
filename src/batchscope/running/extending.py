"""A study that is given more while its run's folder holds results: replicates, a search, targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from batchscope.loading import extension
from batchscope.own_study import AnyStudy
from batchscope.running.folder import RunFolder
from batchscope.running.growth import check_metric
from batchscope.running.plan import plan_trials
from batchscope.running.store import Store

__all__ = ["extend", "is_finished"]


def extend(study: AnyStudy, place: RunFolder, store: Store, tell: Callable[[str], None]) -> Mapping[str, str]:
    """Takes over into the folder's study file what no trial that is planned depends on.

    Args:
        study: The study that is asked for.
        place: The run's folder, which was claimed for it.
        store: Its results.
        tell: Told each change.

    Returns:
        Facts for the session that trains what was added; none where nothing changed.

    Raises:
        StudyError: It searches by a metric that the stored trials do not report.
        RunFolderError: The study file cannot be written.
    """
    changes = extension(place.study(), study)
    if not changes:
        return {}
    check_metric(study, store.unreported() or ())
    place.extend(study)
    for change in changes:
        tell(f"the study was changed: {change}")
    return {"study changed": "; ".join(changes)}


def is_finished(study: AnyStudy, store: Store) -> bool:
    """Whether all that the study plans has ended well, and what was added to it."""
    statuses = store.trials()
    planned = {status.trial for status in statuses}
    return planned.issuperset(plan_trials(study)) and all(status.state.is_finished() for status in statuses)
