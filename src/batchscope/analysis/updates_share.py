"""Part three: do batch sizes differ by epochs, or only by the number of updates they were given?

At a matched epoch every batch size has seen the same examples; at a matched number of updates
every one has taken as many steps. If the differences between batch sizes vanish in the second
comparison, the number of updates explains them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchscope.analysis.moments import mean_and_sd
from batchscope.analysis.panel import Bools, Floats, Panel, StageView, stage_view
from batchscope.analysis.results import UpdatesShare
from batchscope.analysis.settings import Settings
from batchscope.errors import HistoryError

__all__ = ["GRID_POINTS", "stage_updates_share", "updates_shares"]

GRID_POINTS = 200
# Resampled curves held in memory at once, as a number of float64 values.
_CHUNK = 4_000_000


@dataclass(frozen=True)
class _Variances:
    """Between-batch-size variances of one or many sets of mean curves; shapes (...,)."""

    at_epochs: Floats
    at_updates: Floats

    @property
    def share(self) -> Floats:
        positive = self.at_epochs > 0
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
        updates: (G,) float64, even in log updates.
        left: (B, G) int64, position of the curve's knot at or below each grid point.
        weight: (B, G) float64, of the next knot; NaN outside the curve's own range.
        right: (B, G) int64, position of that next knot.
    """

    epochs: Bools
    updates: Floats
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
    present = np.isfinite(curves).any(axis=(1, 2))
    sizes = tuple(int(size) for size in panel.batch_sizes[present])
    if len(sizes) < 2:
        return _nothing(
            view, quantity, sizes, f"it needs at least 2 batch sizes, but the stage has {len(sizes)}"
        )
    if view.updates is None:
        return _nothing(view, quantity, sizes, "it needs the column updates, which this history lacks")
    _check_updates_grow(view, view.updates)
    grid = _grid(curves[present], view.updates[present])
    if isinstance(grid, str):
        return _nothing(view, quantity, sizes, grid)
    point = _variances(mean_and_sd(curves[present], axis=1)[1], grid)
    share = float(point.share)
    low, high, reason = float("nan"), float("nan"), None
    if math.isnan(share):
        reason = "the batch sizes do not differ at matched epochs, so there is nothing to explain"
    else:
        low, high, reason = _interval(curves[present], grid, settings)
    return UpdatesShare(
        stage=view.name,
        quantity=quantity,
        share=share,
        low=low,
        high=high,
        variance_at_matched_epochs=float(point.at_epochs),
        variance_at_matched_updates=float(point.at_updates),
        n_epochs=int(grid.epochs.sum()),
        updates_from=float(grid.updates[0]),
        updates_to=float(grid.updates[-1]),
        batch_sizes=sizes,
        reason=reason,
    )


def _nothing(view: StageView, quantity: str, sizes: tuple[int, ...], reason: str) -> UpdatesShare:
    nan = float("nan")
    return UpdatesShare(view.name, quantity, nan, nan, nan, nan, nan, 0, nan, nan, sizes, reason)


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
    """The points of comparison, or the reason why there are none."""
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
    points = np.geomspace(start, end, GRID_POINTS)
    # geomspace may overshoot by a rounding error, which would leave the ends without data.
    points[0], points[-1] = start, end
    pieces = [
        _interpolation(np.log(points), np.log(row[use]), use) for row, use in zip(at, knots, strict=True)
    ]
    left, right, weight = (np.stack(part) for part in zip(*pieces, strict=True))
    return _Grid(epochs, points, left, weight, right)


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


def _variances(means: Floats, grid: _Grid) -> _Variances:
    """Variances between batch sizes of mean curves, (..., B, K), averaged over the grid."""
    rows = np.arange(means.shape[-2])[:, None]
    left, right = means[..., rows, grid.left], means[..., rows, grid.right]
    return _Variances(
        at_epochs=_mean_variance(means[..., grid.epochs]),
        at_updates=_mean_variance(left + grid.weight * (right - left)),
    )


def _mean_variance(curves: Floats) -> Floats:
    """Variance over batch sizes, (..., B, K), averaged over the points with at least two."""
    _, _, sd = mean_and_sd(curves, axis=-2)
    _, mean, _ = mean_and_sd(sd**2, axis=-1)
    return mean


def _interval(curves: Floats, grid: _Grid, settings: Settings) -> tuple[float, float, str | None]:
    trials = np.asarray(np.isfinite(curves).any(axis=2))
    if (trials.sum(axis=1) < 2).all():
        return float("nan"), float("nan"), "an interval needs at least 2 replicates at some batch size"
    random = np.random.default_rng(settings.seed)
    per_chunk = max(1, _CHUNK // (curves.shape[0] * max(curves.shape[2], GRID_POINTS)))
    shares = []
    for start in range(0, settings.resamples, per_chunk):
        count = min(per_chunk, settings.resamples - start)
        shares.append(_variances(_resampled_means(curves, trials, count, random), grid).share)
    values = np.concatenate(shares)
    tail = (1 - settings.confidence) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail]) if np.isfinite(values).any() else (np.nan, np.nan)
    return float(low), float(high), None


def _resampled_means(curves: Floats, trials: Bools, count: int, random: np.random.Generator) -> Floats:
    """Mean curves of `count` bootstrap resamples, (count, B, K)."""
    means = np.empty((count, curves.shape[0], curves.shape[2]))
    for row, (values, use) in enumerate(zip(curves, trials, strict=True)):
        n = int(use.sum())
        weights = random.multinomial(n, np.full(n, 1 / n), size=count).astype(np.float64)
        finite = np.isfinite(values[use])
        total = weights @ np.where(finite, values[use], 0.0)
        present = weights @ finite.astype(np.float64)
        means[:, row] = np.divide(total, present, out=np.full(total.shape, np.nan), where=present > 0)
    return means
