"""How the batch sizes stand at the end, and what it took them to get within the margin of the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from batchscope.analysis.moments import mean_and_sd
from batchscope.analysis.panel import Bools, Floats, Panel

__all__ = ["Standing", "find_standing", "settled", "sign_of", "spent_by", "within_margin"]


@dataclass(frozen=True)
class Standing:
    """How the batch sizes stand at the end, higher being better.

    Attributes:
        score: (B, R, E) float64, the metric, its sign turned if it is a loss. Where trials have ends of
            their own, NaN for those that have not ended.
        mean: (B, E) float64, over replicates.
        final: (B, R) float64, the score at the batch size's end.
        final_mean: (B,) float64, over replicates.
        eligible: (B,) bool, a finite mean at the end and no trial that diverged.
        best: Row of the best eligible batch size.
    """

    score: Floats
    mean: Floats
    final: Floats
    final_mean: Floats
    eligible: Bools
    best: int


def sign_of(quantity: str) -> float:
    """Turns the metric so that higher is better."""
    return -1.0 if quantity == "val_loss" else 1.0


def find_standing(panel: Panel, quantity: str) -> Standing | None:
    """How they stand; None where none is eligible."""
    score = panel.carried(sign_of(quantity) * panel.metrics[quantity])
    if panel.ends.own is not None:
        # The end is a mean over ended trials alone; with others on the way there it might never be reached.
        score = np.where(panel.ends.own[:, :, None] >= 0, score, np.nan)
    _, mean, _ = mean_and_sd(score, axis=1)
    final = panel.at_end(score)
    _, final_mean, _ = mean_and_sd(final, axis=1)
    eligible = np.isfinite(final_mean) & ~panel.diverged.any(axis=(1, 2))
    if not eligible.any():
        return None
    best = int(np.where(eligible, final_mean, -np.inf).argmax())
    return Standing(score, mean, final, final_mean, eligible, best)


def within_margin(standing: Standing, margin: float) -> list[int]:
    """Rows of the eligible batch sizes whose mean at the end is within the margin of the best."""
    # A difference of exactly the margin counts as within, whatever its last bit.
    behind = standing.final_mean[standing.best] - standing.final_mean
    return [int(row) for row in np.flatnonzero(standing.eligible & (behind <= margin * (1 + 1e-9)))]


def settled(panel: Panel, standing: Standing, margin: float) -> Mapping[int, int]:
    """By row of `within_margin`, the column of the first epoch from which on its mean stays there."""
    goal = standing.final_mean[standing.best] - margin * (1 + 1e-9)
    good = standing.mean >= goal
    rows = within_margin(standing, margin)
    return {row: _first_of_the_last(good[row, : panel.end_columns[row] + 1]) for row in rows}


def spent_by(panel: Panel, standing: Standing, cost: str, columns: Mapping[int, int]) -> dict[int, float]:
    """By row, the mean cost at a column over the replicates that have a finite score there; may be NaN."""
    values = panel.carried(panel.costs[cost])
    return {row: _spent(values[row], standing.score[row], column) for row, column in columns.items()}


def _first_of_the_last(good: Bools) -> int:
    """First column from which on all are good; the last column is."""
    bad = np.flatnonzero(~good)
    return int(bad[-1]) + 1 if len(bad) else 0


def _spent(cost: Floats, score: Floats, column: int) -> float:
    there = np.isfinite(score[:, column])
    return float(cost[there, column].mean())
