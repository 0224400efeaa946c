"""Part three: do batch sizes differ by epochs, or only by the number of updates they were given?

At a matched epoch every batch size has seen the same examples; at a matched number of updates
every one has taken as many steps. If the differences between batch sizes vanish in the second
comparison, the number of updates explains them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchscope.analysis.moments import mean_and_sd
from batchscope.analysis.panel import Bools, Floats, Panel, StageView, stage_view
from batchscope.analysis.results import UpdatesShare
from batchscope.analysis.settings import Settings
from batchscope.errors import HistoryError

__all__ = ["GRID_POINTS", "stage_updates_share", "updates_shares"]

GRID_POINTS = 100
# Standard deviations below this are rounding of printed figures, not differences.
_SMALLEST_SD = 1e-7


@dataclass(frozen=True)
class _Variances:
    """Between-batch-size variances of S sets of mean curves, (S,) each."""

    at_epochs: Floats
    at_updates: Floats

    @property
    def share(self) -> Floats:
        positive = self.at_epochs > _SMALLEST_SD**2
        ratio = np.divide(
            self.at_updates, self.at_epochs, out=np.full(self.at_epochs.shape, np.nan), where=positive
        )
        share: Floats = 1 - ratio
        return share


@dataclass(frozen=True)
class _Grid:
    """Where mean curves are compared, fixed by the data and the same for all resamples.

    Attributes:
        epochs: (K,) bool, positions at which every batch size has a figure.
        start: Smallest number of updates at which two batch sizes have data.
        end: Largest such number.
        left: (B, G) int64, position of the curve's knot at or below each grid point.
        weight: (B, G) float64, of the next knot; NaN outside the curve's own range.
        right: (B, G) int64, position of that next knot.
    """

    epochs: Bools
    start: float
    end: float
    left: npt.NDArray[np.int64]
    weight: Floats
    right: npt.NDArray[np.int64]


def updates_shares(panel: Panel, quantity: str, settings: Settings) -> tuple[UpdatesShare, ...]:
    """`stage_updates_share` of every stage, in the order of training."""
    return tuple(
        stage_updates_share(stage_view(panel, stage), panel, quantity, settings)
        for stage in range(len(panel.stages))
    )


def stage_updates_share(view: StageView, panel: Panel, quantity: str, settings: Settings) -> UpdatesShare:
    """Share of the variance between batch sizes that the number of updates explains, one stage.

    With m_b the mean over replicates of the metric at batch size b, and Var the variance over
    batch sizes with n - 1 in the denominator (so that it does not depend on how many there are):

    - at matched epochs: Var_b m_b(epoch), averaged over the epochs at which every batch size of
      the stage has a figure;
    - at matched updates: Var_b m_b(u), m_b interpolated linearly in log u and never beyond its own
      first and last point, averaged over `GRID_POINTS` values of u even in log u, over the range
      where at least two batch sizes have data;
    - share = 1 - (the second) / (the first).

    Updates count from the stage's start. Where replicates of one batch size differ in updates at
    an epoch, their mean is used. The interval is the percentile interval of a bootstrap that
    draws replicates within each batch size apart. Where the bundles of seeds move all batch sizes
    alike it is wider than it need be; with few replicates, as every bootstrap, it is too narrow.

    Args:
        view: The stage.
        panel: The whole history, for its batch sizes.
        quantity: ``val_accuracy`` or ``val_loss``.
        settings: Coverage, number of resamples, seed.

    Raises:
        HistoryError: Updates do not grow from epoch to epoch within a trial.
    """
    curves = view.metrics[quantity]
    present = np.asarray(np.isfinite(curves).any(axis=(1, 2)))
    sizes = tuple(int(size) for size in panel.batch_sizes[present])
    grid = _checked_grid(view, curves, present)
    if isinstance(grid, str):
        nan = float("nan")
        return UpdatesShare(view.name, quantity, nan, nan, nan, nan, nan, 0, nan, nan, sizes, grid)
    means = mean_and_sd(curves[present], axis=1)[1]
    point = _variances(means[:, None, :], 1, grid)
    low, high, reason = _interval(curves[present], grid, settings)
    if math.isnan(point.share[0]):
        reason = "the batch sizes do not differ at matched epochs, so there is nothing to explain"
    return UpdatesShare(
        stage=view.name,
        quantity=quantity,
        share=float(point.share[0]),
        low=low if reason is None else float("nan"),
        high=high if reason is None else float("nan"),
        variance_at_matched_epochs=float(point.at_epochs[0]),
        variance_at_matched_updates=float(point.at_updates[0]),
        n_epochs=int(grid.epochs.sum()),
        updates_from=grid.start,
        updates_to=grid.end,
        batch_sizes=sizes,
        reason=reason,
    )


def _checked_grid(view: StageView, curves: Floats, present: Bools) -> _Grid | str:
    """The points of comparison, or the reason why there are none."""
    if present.sum() < 2:
        return f"it needs at least 2 batch sizes with finite figures, but the stage has {present.sum()}"
    if view.updates is None:
        return "it needs the column updates, which this history lacks"
    _check_updates_grow(view, view.updates)
    return _grid(curves[present], view.updates[present])


def _check_updates_grow(view: StageView, updates: Floats) -> None:
    # Trials may skip epochs, so each value is held against the largest before it.
    filled = np.where(view.recorded, updates, -np.inf)
    before = np.maximum.accumulate(filled, axis=2)[:, :, :-1]
    wrong = (view.recorded[:, :, 1:] & (filled[:, :, 1:] <= before)).any()
    if wrong or (updates[view.recorded] <= 0).any():
        raise HistoryError(
            "updates must count on from epoch to epoch within a trial, through all stages, "
            f"but in stage {view.name or '(unnamed)'} they do not grow; correct the column or leave it out"
        )


def _grid(curves: Floats, updates: Floats) -> _Grid | str:
    _, means, _ = mean_and_sd(curves, axis=1)
    knots = np.isfinite(means)
    epochs = np.asarray(knots.all(axis=0))
    if not epochs.any():
        return "there is no epoch at which every batch size has a figure"
    # Only trials with a figure count, or a mean curve would be drawn at another trial's updates.
    _, at, _ = mean_and_sd(np.where(np.isfinite(curves), updates, np.nan), axis=1)
    first = np.where(knots, at, np.inf).min(axis=1)
    last = np.where(knots, at, -np.inf).max(axis=1)
    start, end = np.sort(first)[1], np.sort(last)[-2]
    if not start < end:
        return "no two batch sizes have data at the same number of updates"
    # Midpoints of cells of equal width, so that the average over points is that over the range.
    points = start * (end / start) ** ((np.arange(GRID_POINTS) + 0.5) / GRID_POINTS)
    pieces = [
        _interpolation(np.log(points), np.log(row[use]), use) for row, use in zip(at, knots, strict=True)
    ]
    left, right, weight = (np.stack(part) for part in zip(*pieces, strict=True))
    return _Grid(epochs, float(start), float(end), left, weight, right)


def _interpolation(
    points: Floats, knots: Floats, use: Bools
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    """Linear interpolation of one curve as neighbours and weights, NaN outside its range."""
    positions = np.flatnonzero(use).astype(np.int64)
    after = np.clip(np.searchsorted(knots, points, side="right"), 1, max(len(knots) - 1, 1))
    after = np.minimum(after, len(knots) - 1)
    before = np.maximum(after - 1, 0)
    width = knots[after] - knots[before]
    weight = np.divide(points - knots[before], width, out=np.zeros(len(points)), where=width > 0)
    outside = (points < knots[0]) | (points > knots[-1])
    return positions[before], positions[after], np.where(outside, np.nan, weight)


class _VarianceOverRows:
    """Variance (n - 1) over rows that come one at a time, by Welford's updates, NaN left out.

    Welford (1962), Note on a method for calculating corrected sums of squares and products. Rows
    that are all equal give exactly 0.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._n = np.zeros(shape)
        self._mean = np.zeros(shape)
        self._squares = np.zeros(shape)

    def add(self, row: Floats) -> None:
        finite = np.isfinite(row)
        values = row if finite.all() else np.where(finite, row, self._mean)
        self._n += finite
        delta = values - self._mean
        self._mean += delta / np.maximum(self._n, 1)
        self._squares += delta * (values - self._mean)

    def average(self) -> Floats:
        """Mean over the last axis, of the points with at least two rows."""
        variance = np.where(self._n > 1, self._squares / np.maximum(self._n - 1, 1), np.nan)
        return mean_and_sd(variance, axis=-1)[1]


def _variances(means: Iterable[Floats], count: int, grid: _Grid) -> _Variances:
    """Variances between batch sizes, averaged over the grid.

    Args:
        means: For each batch size its mean curves, (count, K).
        count: Number of sets of curves.
        grid: Where they are compared.
    """
    at_epochs = _VarianceOverRows((count, int(grid.epochs.sum())))
    at_updates = _VarianceOverRows((count, GRID_POINTS))
    for row, curves in enumerate(means):
        left, right = curves[:, grid.left[row]], curves[:, grid.right[row]]
        at_epochs.add(curves[:, grid.epochs])
        at_updates.add(left + grid.weight[row] * (right - left))
    return _Variances(at_epochs.average(), at_updates.average())


def _interval(curves: Floats, grid: _Grid, settings: Settings) -> tuple[float, float, str | None]:
    trials = np.asarray(np.isfinite(curves).any(axis=2))
    if (trials.sum(axis=1) < 2).all():
        return float("nan"), float("nan"), "an interval needs at least 2 replicates at some batch size"
    random = np.random.default_rng(settings.seed)
    means = (
        _resampled_means(values[use], settings.resamples, random)
        for values, use in zip(curves, trials, strict=True)
    )
    shares = _variances(means, settings.resamples, grid).share
    tail = (1 - settings.confidence) / 2
    low, high = np.nanquantile(shares, [tail, 1 - tail]) if np.isfinite(shares).any() else (np.nan, np.nan)
    return float(low), float(high), None


def _resampled_means(curves: Floats, count: int, random: np.random.Generator) -> Floats:
    """Mean curves of `count` bootstrap resamples of one batch size's trials, (R, K) to (count, K)."""
    n = len(curves)
    weights = random.multinomial(n, np.full(n, 1 / n), size=count).astype(np.float64)
    finite = np.isfinite(curves)
    total = weights @ np.where(finite, curves, 0.0)
    if finite.all():
        return total / n
    present = weights @ finite.astype(np.float64)
    means: Floats = np.divide(total, present, out=np.full(total.shape, np.nan), where=present > 0)
    return means
