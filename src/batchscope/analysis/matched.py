"""Variance between batch sizes at matched epochs and at matched numbers of updates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchscope.analysis.moments import mean_and_sd
from batchscope.analysis.panel import Bools, Floats

__all__ = ["GRID_POINTS", "MatchGrid", "Variances", "match_grid", "matched_variances"]

GRID_POINTS = 100
# Standard deviations below this are rounding of printed figures, not differences.
_SMALLEST_SD = 1e-7


@dataclass(frozen=True)
class MatchGrid:
    """Where the mean curves of B batch sizes are compared.

    Attributes:
        epochs: (K,) bool, positions at which every batch size has a figure.
        centre: (K,) float64, mean over batch sizes; subtracted against cancellation.
        start: Smallest number of updates at which two batch sizes have data.
        end: Largest such number.
        left: (B, G) int64, position of the curve's point at or below each grid point.
        right: (B, G) int64, position of the next point.
        weight: (B, G) float64, of the point at `right`; NaN outside the curve's own range.
    """

    epochs: Bools
    centre: Floats
    start: float
    end: float
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    weight: Floats


@dataclass(frozen=True)
class Variances:
    """Variances between batch sizes of S sets of mean curves, (S,) float64 each.

    Attributes:
        at_epochs: At matched epochs, all batch sizes.
        at_updates: At matched updates, those that have data there.
        at_epochs_alike: At matched epochs, the same batch sizes as in `at_updates`.
    """

    at_epochs: Floats
    at_updates: Floats
    at_epochs_alike: Floats

    @property
    def share(self) -> Floats:
        """1 - at_updates / at_epochs; NaN where batch sizes do not differ."""
        return _share(self.at_updates, self.at_epochs)

    @property
    def share_alike(self) -> Floats:
        """1 - at_updates / at_epochs_alike; NaN where batch sizes do not differ."""
        return _share(self.at_updates, self.at_epochs_alike)


def match_grid(curves: Floats, updates: Floats) -> MatchGrid | str:
    """The points of comparison, or the reason why there are none.

    Args:
        curves: (B, R, K) float64, the metric; NaN where there is none.
        updates: (B, R, K) float64, since the stage's start.
    """
    _, means, _ = mean_and_sd(curves, axis=1)
    known = np.isfinite(means)
    epochs = np.asarray(known.all(axis=0))
    if not epochs.any():
        return "there is no epoch at which every batch size has a figure"
    # Only trials with a figure count, or a mean curve would be drawn at another trial's updates.
    _, at, _ = mean_and_sd(np.where(np.isfinite(curves), updates, np.nan), axis=1)
    knots = [row[use] for row, use in zip(at, known, strict=True)]
    if any((np.diff(row) <= 0).any() for row in knots):
        return "replicates differ so much in updates that their mean does not grow from epoch to epoch"
    start = float(np.sort([row[0] for row in knots])[1])
    end = float(np.sort([row[-1] for row in knots])[-2])
    nowhere = "no two batch sizes have data at the same number of updates"
    if not start < end:
        return nowhere
    # Midpoints of cells of equal width, so that the average over points is that over the range.
    points = np.log(start) + np.log(end / start) * (np.arange(GRID_POINTS) + 0.5) / GRID_POINTS
    pieces = [_interpolation(points, np.log(row), use) for row, use in zip(knots, known, strict=True)]
    left, right, weight = (np.stack(part) for part in zip(*pieces, strict=True))
    if (np.isfinite(weight).sum(axis=0) < 2).all():
        return nowhere
    return MatchGrid(epochs, mean_and_sd(means, axis=0)[1], start, end, left, right, weight)


def _interpolation(
    points: Floats, knots: Floats, use: Bools
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    """Linear interpolation of one curve as neighbours and weights, NaN outside its range."""
    positions = np.flatnonzero(use).astype(np.int64)
    last = len(knots) - 1
    after = np.minimum(np.clip(np.searchsorted(knots, points, side="right"), 1, None), last)
    before = np.maximum(after - 1, 0)
    width = knots[after] - knots[before]
    weight = np.divide(points - knots[before], width, out=np.zeros(len(points)), where=width > 0)
    outside = (points < knots[0]) | (points > knots[-1])
    return positions[before], positions[after], np.where(outside, np.nan, weight)


def matched_variances(means: Floats, grid: MatchGrid) -> Variances:
    """Variances (n - 1) between batch sizes, averaged over epochs or over the grid's points.

    Args:
        means: (B, S, K) float64, S sets of mean curves, finite wherever those are from which the
            grid was made.
        grid: Where they are compared.
    """
    centred = means[:, :, grid.epochs] - grid.centre[grid.epochs]
    everywhere = np.ones((len(means), 1), dtype=np.bool_)
    return Variances(
        at_epochs=_variance_of_sets(centred, everywhere),
        at_updates=_variance_at_points(means, grid),
        at_epochs_alike=_variance_of_sets(centred, np.isfinite(grid.weight)),
    )


def _share(variance: Floats, reference: Floats) -> Floats:
    differ = reference > _SMALLEST_SD**2
    ratio = np.divide(variance, reference, out=np.full(reference.shape, np.nan), where=differ)
    share: Floats = 1 - ratio
    return share


def _variance_at_points(means: Floats, grid: MatchGrid) -> Floats:
    """Variance over the batch sizes that have data at a point, averaged over the points.

    Batch sizes are taken one at a time by Welford's updates (Welford, 1962, Note on a method for
    calculating corrected sums of squares and products), which spares an array of all at once.
    """
    shape = (means.shape[1], grid.weight.shape[1])
    n, mean, squares = np.zeros(shape[1]), np.zeros(shape), np.zeros(shape)
    for curves, left, right, weight in zip(means, grid.left, grid.right, grid.weight, strict=True):
        # A curve's range is an interval of the grid, so a slice holds it without copying.
        there = np.flatnonzero(np.isfinite(weight))
        if not len(there):
            continue
        part = slice(int(there[0]), int(there[-1]) + 1)
        low, high = curves.take(left[part], axis=1), curves.take(right[part], axis=1)
        values = low + weight[part] * (high - low)
        n[part] += 1
        delta = values - mean[:, part]
        mean[:, part] += delta / n[part]
        squares[:, part] += delta * (values - mean[:, part])
    enough = n > 1
    result: Floats = (squares[:, enough] / (n[enough] - 1)).mean(axis=1)
    return result


def _variance_of_sets(curves: Floats, sets: Bools) -> Floats:
    """Variance over the batch sizes of a set, averaged over epochs, then over sets.

    Neighbouring sets differ little, so the sum over a set is carried on from one to the next.

    Args:
        curves: (B, S, E) float64.
        sets: (B, G) bool; sets of fewer than two batch sizes do not count.
    """
    squares = np.stack([(row**2).mean(axis=1) for row in curves])
    running = np.zeros(curves.shape[1:])
    inside = np.zeros(len(sets), dtype=np.bool_)
    total, n_sets = np.zeros(curves.shape[1]), 0
    starts = np.flatnonzero(np.append(True, (sets[:, 1:] != sets[:, :-1]).any(axis=0)))
    for start, length in zip(starts, np.diff(np.append(starts, sets.shape[1])), strict=True):
        members = sets[:, start]
        for row in np.flatnonzero(members != inside):
            running += curves[row] if members[row] else -curves[row]
        inside = members
        n = int(members.sum())
        if n < 2:
            continue
        variance = (squares[members].sum(axis=0) - (running**2).mean(axis=1) / n) / (n - 1)
        total += length * variance
        n_sets += int(length)
    return total / n_sets
