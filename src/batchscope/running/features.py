"""Ready features on disk: deleted as soon as no trial needs them."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterable, Set
from contextlib import suppress
from pathlib import Path

from batchscope.records import Trial

__all__ = ["FeatureCleaner", "delete_features", "delete_features_of", "room_for_features"]


class FeatureCleaner:
    """Deletes what belongs to a replicate when its last trial has ended.

    Names of files that belong to replicate 2 begin with ``r2-``, of those that all share with ``all-``.

    Args:
        folder: Where the features are; it need not be there.
        trials: Those that are still to end.
    """

    def __init__(self, folder: Path, trials: Iterable[Trial]) -> None:
        self._folder = folder
        self._left = Counter(trial.replicate for trial in trials)

    def added(self, trials: Iterable[Trial]) -> None:
        """More trials are still to end."""
        self._left.update(trial.replicate for trial in trials)

    def ended(self, trial: Trial) -> None:
        """A trial is over, well or not; one that failed is tried again in another session."""
        self._left[trial.replicate] -= 1
        if self._left[trial.replicate] <= 0:
            del self._left[trial.replicate]
            delete_features_of(self._folder, {trial.replicate})


def delete_features_of(folder: Path, replicates: Set[int]) -> None:
    """Deletes what belongs to one of these replicates."""
    for entry in list(folder.glob("r*-*")):
        owner = re.match(r"r(\d+)-", entry.name)
        if owner and int(owner[1]) in replicates:
            with suppress(OSError):  # as in `delete_features`
                entry.unlink()


def room_for_features(folder: Path, limit: int) -> int:
    """Bytes that features may take up: the limit, but no more than half of what is free on the disk.

    Args:
        folder: On that disk.
        limit: What the user allows.
    """
    return min(limit, shutil.disk_usage(folder).free // 2)


def delete_features(folder: Path) -> None:
    """Deletes all features; what the file system will not let go of takes up room and harms nothing."""
    shutil.rmtree(folder, ignore_errors=True)
