"""Part three: do batch sizes differ by epochs, or only by the number of updates they were given?

At a matched epoch every batch size has seen the same examples; at a matched number of updates
every one has taken as many steps. If the differences between batch sizes vanish in the second
comparison, the number of updates explains them.
"""

from __future__ import annotations

import math

import numpy as np

from batchscope.analysis.matched import GRID_POINTS, MatchGrid, Variances, match_grid, matched_variances
from batchscope.analysis.moments import mean_and_sd
from batchscope.analysis.panel import Bools, Floats, Panel, StageView, stage_view
from batchscope.analysis.results import UpdatesShare
from batchscope.analysis.settings import Settings
from batchscope.errors import HistoryError

__all__ = ["stage_updates_share", "updates_shares"]

# Resampled curves held in memory at once, as a number of float64 values.
_CHUNK = 5_000_000


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

    At a given number of updates only batch sizes near each other have data, and those differ less
    than all of them do, whatever the reason. The share therefore overstates what updates explain
    where the range of batch sizes is wide. Like for like, share_alike holds each number of
    updates against the same batch sizes at matched epochs: it is 0 for curves that depend on the
    batch size alone and 1 for curves that depend on updates alone.

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
        return _without(view, quantity, sizes, grid)
    point = matched_variances(mean_and_sd(curves[present], axis=1)[1][:, None], grid)
    resampled = _resampled(curves[present], grid, settings)
    reason = resampled if isinstance(resampled, str) else None
    low, high, low_alike, high_alike = (math.nan,) * 4
    if math.isnan(point.share[0]):
        reason = "the batch sizes do not differ at matched epochs, so there is nothing to explain"
    elif not isinstance(resampled, str):
        low, high = _ends(resampled.share, settings.confidence)
        low_alike, high_alike = _ends(resampled.share_alike, settings.confidence)
    return UpdatesShare(
        stage=view.name,
        quantity=quantity,
        share=float(point.share[0]),
        low=low,
        high=high,
        share_alike=float(point.share_alike[0]),
        low_alike=low_alike,
        high_alike=high_alike,
        variance_at_matched_epochs=float(point.at_epochs[0]),
        variance_at_matched_updates=float(point.at_updates[0]),
        variance_at_matched_epochs_alike=float(point.at_epochs_alike[0]),
        n_epochs=int(grid.epochs.sum()),
        updates_from=grid.start,
        updates_to=grid.end,
        batch_sizes=sizes,
        reason=reason,
    )


def _without(view: StageView, quantity: str, sizes: tuple[int, ...], reason: str) -> UpdatesShare:
    nan = math.nan
    return UpdatesShare(
        view.name, quantity, nan, nan, nan, nan, nan, nan, nan, nan, nan, 0, nan, nan, sizes, reason
    )


def _checked_grid(view: StageView, curves: Floats, present: Bools) -> MatchGrid | str:
    """The points of comparison, or the reason why there are none."""
    if present.sum() < 2:
        return f"it needs at least 2 batch sizes with finite figures, but the stage has {present.sum()}"
    if view.updates is None:
        return "it needs the column updates, which this history lacks"
    _check_updates_grow(view, view.updates)
    return match_grid(curves[present], view.updates[present])


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


def _resampled(curves: Floats, grid: MatchGrid, settings: Settings) -> Variances | str:
    """Variances of bootstrap resamples, or the reason why there are none."""
    trials = np.asarray(np.isfinite(curves).any(axis=2))
    if (trials.sum(axis=1) < 2).all():
        return "an interval needs at least 2 replicates at some batch size"
    random = np.random.default_rng(settings.seed)
    per_chunk = max(1, _CHUNK // (curves.shape[0] * max(curves.shape[2], GRID_POINTS)))
    chunks = [
        matched_variances(_resampled_means(curves, trials, count, random), grid)
        for count in _chunks(settings.resamples, per_chunk)
    ]
    return Variances(
        at_epochs=np.concatenate([chunk.at_epochs for chunk in chunks]),
        at_updates=np.concatenate([chunk.at_updates for chunk in chunks]),
        at_epochs_alike=np.concatenate([chunk.at_epochs_alike for chunk in chunks]),
    )


def _chunks(total: int, most: int) -> list[int]:
    return [min(most, total - start) for start in range(0, total, most)]


def _resampled_means(curves: Floats, trials: Bools, count: int, random: np.random.Generator) -> Floats:
    """Mean curves of `count` resamples, (B, R, K) to (B, count, K).

    Where none of the drawn trials has a figure at an epoch, the mean of all trials stands in.
    """
    means = np.empty((curves.shape[0], count, curves.shape[2]))
    for row, use in enumerate(trials):
        values = curves[row, use]
        n = len(values)
        weights = random.multinomial(n, np.full(n, 1 / n), size=count).astype(np.float64)
        finite = np.isfinite(values)
        total = weights @ np.where(finite, values, 0.0)
        if finite.all():
            means[row] = total / n
            continue
        present = weights @ finite.astype(np.float64)
        _, everyone, _ = mean_and_sd(values, axis=0)
        stand_in = np.broadcast_to(everyone, total.shape).copy()
        means[row] = np.divide(total, present, out=stand_in, where=present > 0)
    return means


def _ends(values: Floats, confidence: float) -> tuple[float, float]:
    """Percentile interval of the finite values; NaN where there are none."""
    if not np.isfinite(values).any():
        return float("nan"), float("nan")
    low, high = np.nanquantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
