"""Which batch size for what: the most accurate, the fastest, what it costs, whether it fits in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from batchscope.analysis.panel import Panel
from batchscope.analysis.settings import Settings
from batchscope.analysis.standing import Standing, find_standing, settled, sign_of, spent_by
from batchscope.analysis.targets import TargetRow, reached_by_all
from batchscope.records import PEAK_MEMORY

__all__ = ["PracticalRow", "practical_rows"]


@dataclass(frozen=True)
class PracticalRow:
    """What one batch size is good for.

    Attributes:
        batch_size: Examples per update.
        metric: Mean at the end over replicates.
        within_margin: Whether that is within the margin of the best; where trials end at a target, whether
            every one reached it.
        seconds: Of training until the mean is within the margin for good, or to the target, mean over
            replicates; None where it does not get there, or the history has no such column or gaps in it.
        price: What these seconds cost at `Settings.price_per_hour`, in its currency; None without either.
            It is that of the whole machine: where N trials ran side by side, up to N times a trial's share.
        peak_memory: Bytes, the most that any replicate took in any stage; None where it was not measured.
        fits: Whether that is no more than `Settings.memory_limit`; None without either.
        purposes: Of ``most_accurate`` and ``fastest``, those that it is the best for; with a limit of
            memory, among those that fit. Where trials end at a target none is the most accurate.
    """

    batch_size: int
    metric: float
    within_margin: bool
    seconds: float | None
    price: float | None
    peak_memory: float | None
    fits: bool | None
    purposes: tuple[str, ...]


def practical_rows(
    panel: Panel, quantity: str, settings: Settings, to_goal: Sequence[TargetRow] = ()
) -> tuple[PracticalRow, ...]:
    """By batch size, those with a finite mean at the end and no trial that diverged.

    Seconds are those of `batchscope.analysis.recommendation.recommend`, or where trials end at a target of
    `batchscope.analysis.target_recommendation.recommend_to_target`, without evaluation, probes and what
    was made ready before. They say nothing of whether a difference is real; the recommendation does.

    Args:
        panel: The whole history.
        quantity: ``val_accuracy`` or ``val_loss``.
        settings: Margin, price and limit.
        to_goal: What it took to get to the target at which trials end; empty where they end otherwise.
    """
    standing = find_standing(panel, quantity)
    if standing is None:
        return ()
    there = _at_target(panel, to_goal) if to_goal else _within(panel, standing, settings.margin)
    eligible = [int(row) for row in np.flatnonzero(standing.eligible)]
    seconds = {row: value for row, value in there.items() if math.isfinite(value)}
    memory = {row: _memory(panel, row) for row in eligible}
    fits = {row: _fits(memory[row], settings.memory_limit) for row in eligible}
    possible = [row for row in eligible if fits[row] is not False]
    purposes = _purposes(standing, possible, seconds)
    if to_goal:
        purposes.pop("most_accurate", None)
    return tuple(
        PracticalRow(
            batch_size=int(panel.batch_sizes[row]),
            metric=sign_of(quantity) * float(standing.final_mean[row]),
            within_margin=row in there,
            seconds=seconds.get(row),
            price=_price(seconds.get(row), settings.price_per_hour),
            peak_memory=memory[row],
            fits=fits[row],
            purposes=tuple(name for name, best in purposes.items() if best == row),
        )
        for row in eligible
    )


def _within(panel: Panel, standing: Standing, margin: float) -> dict[int, float]:
    """Seconds by row of those within the margin; NaN where unknown."""
    there = settled(panel, standing, margin)
    if "seconds" not in panel.costs:
        return dict.fromkeys(there, math.nan)
    return spent_by(panel, standing, "seconds", there)


def _at_target(panel: Panel, to_goal: Sequence[TargetRow]) -> dict[int, float]:
    """Seconds by row of those of which every trial reached the target; NaN where unknown."""
    rows = {int(size): row for row, size in enumerate(panel.batch_sizes)}
    return {
        rows[found.batch_size]: math.nan if found.seconds is None else found.seconds.mean
        for found in reached_by_all(panel, to_goal)
    }


def _purposes(standing: Standing, possible: Sequence[int], seconds: dict[int, float]) -> dict[str, int]:
    """The row that is best for each purpose; of equals the smallest batch size."""
    found = {}
    if possible:
        found["most_accurate"] = max(possible, key=lambda row: (standing.final_mean[row], -row))
    timed = [row for row in possible if row in seconds]
    if timed:
        found["fastest"] = min(timed, key=lambda row: (seconds[row], row))
    return found


def _price(seconds: float | None, per_hour: float | None) -> float | None:
    return None if seconds is None or per_hour is None else seconds / 3600 * per_hour


def _memory(panel: Panel, row: int) -> float | None:
    """The most of any replicate: one that exceeds the limit fails, whatever the others take."""
    if PEAK_MEMORY not in panel.probes:
        return None
    measured = panel.probes[PEAK_MEMORY][row]
    known = measured[np.isfinite(measured)]
    return float(known.max()) if known.size else None


def _fits(peak: float | None, limit: int | None) -> bool | None:
    return None if peak is None or limit is None else peak <= limit
