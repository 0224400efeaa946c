"""How much of what BatchNorm's averages held before a trial is left in them."""

from __future__ import annotations

from collections.abc import Sequence

from batchscope.schedule import StageSchedule, StageStart

__all__ = ["stale_weight"]


def stale_weight(
    momentum: float, stages: Sequence[StageSchedule], starts: Sequence[StageStart], ends: Sequence[int]
) -> float:
    """Product over the batches so far that moved the averages, of the momentum then in force.

    Args:
        momentum: The network's own.
        stages: Of the trial.
        starts: Of those that have begun.
        ends: Updates of the trial at which each of these ended, or has come to.
    """
    weight = 1.0
    for planned, start, end in zip(stages, starts, ends, strict=False):
        if planned.stage.batchnorm == "inference":
            continue
        given = planned.stage.batchnorm_momentum
        moves = (end - start.updates) * (planned.batch_size // planned.forward_batch)
        weight *= (momentum if given is None else given) ** moves
    return weight
