"""Part four: replicates of one batch size that do not look like the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from batchscope.analysis.outliers import Outlier, find_outliers
from batchscope.analysis.panel import Floats, Panel, StageView, stage_view
from batchscope.analysis.results import Exchangeability, Flag

__all__ = ["FALSE_ALARM_RATE", "check_exchangeability"]

# Chance of any flag in a whole history whose replicates are all alike.
FALSE_ALARM_RATE = 0.05
# Below it a loss is 0 for this purpose; Keras clips probabilities at the same value.
_SMALLEST_LOSS = 1e-7


@dataclass(frozen=True)
class _Window:
    """The last half of a stage.

    Attributes:
        level: (B, R) float64, each trial's mean over the window of the transformed quantity; NaN
            unless it is finite at all of the window's epochs.
        mean: (B, R) float64, the same of the quantity itself.
    """

    level: Floats
    mean: Floats


def check_exchangeability(panel: Panel) -> tuple[tuple[Exchangeability, ...], tuple[Flag, ...]]:
    """Compares, stage by stage, each replicate's training curve with those of its batch size.

    Replicates differ in their seeds alone, so their training figures should be draws from one
    distribution. A trial's level is the mean of its curve over the last half of the stage (its own half,
    where trials have ends of their own): the start of a stage depends on random initial weights.
    Training accuracy is taken (on the arcsine square-root scale, on which sampling noise does not
    depend on the level), or the logarithm of the training loss where there is none. The validation
    metric is not used: batch sizes and BatchNorm make it vary between replicates for reasons of its own.

    Levels that stand out by `batchscope.analysis.outliers.find_outliers` are flagged; nothing is
    removed. The chance of a false alarm in the whole history is `FALSE_ALARM_RATE`, shared equally
    among its stages.

    Simplifications: levels are taken as normal; two stages of one trial are judged apart.

    Returns:
        What was compared, one a stage, and the flags by stage, batch size and replicate.
    """
    checks, flags = [], []
    for stage in range(len(panel.stages)):
        check, found = _check_stage(panel, stage_view(panel, stage))
        checks.append(check)
        flags.extend(found)
    return tuple(checks), tuple(flags)


def _check_stage(panel: Panel, view: StageView) -> tuple[Exchangeability, list[Flag]]:
    rate = FALSE_ALARM_RATE / len(panel.stages)
    quantity = next((name for name in ("train_accuracy", "train_loss") if name in view.metrics), None)
    n_trials = int(view.recorded.any(axis=2).sum())
    if quantity is None:
        reason = "it needs the column train_accuracy or train_loss, which this history lacks"
        return Exchangeability(view.name, None, 0, n_trials, 0, rate, reason), []
    window = _window(view, quantity)
    per_size = np.isfinite(window.level).sum(axis=1)
    n_tested = int(per_size[per_size >= 3].sum())
    if n_tested == 0:
        reason = (
            "it needs at least 3 replicates with finite figures at one batch size, "
            f"but the largest number is {int(per_size.max())}"
        )
        return Exchangeability(view.name, quantity, 0, n_trials, 0, rate, reason), []
    outliers = find_outliers(window.level, np.log2(panel.batch_sizes), rate)
    flags = [_flag(panel, view, quantity, window, outlier, outliers) for outlier in outliers]
    left_out = n_trials - n_tested
    return Exchangeability(view.name, quantity, n_tested, left_out, len(flags), rate, None), flags


def _window(view: StageView, quantity: str) -> _Window:
    mask = view.last_half
    complete = (np.isfinite(view.metrics[quantity]) | ~mask).all(axis=2) & mask.any(axis=2)
    values = np.where(mask, view.metrics[quantity], 0.0)
    n = np.maximum(mask.sum(axis=2), 1)
    if quantity == "train_accuracy":
        levels = np.arcsin(np.sqrt(np.nan_to_num(values)))
    else:
        levels = np.where(mask, np.log(np.maximum(np.nan_to_num(values), _SMALLEST_LOSS)), 0.0)
    return _Window(
        level=np.where(complete, levels.sum(axis=2) / n, np.nan),
        mean=np.where(complete, values.sum(axis=2) / n, np.nan),
    )


def _flag(
    panel: Panel,
    view: StageView,
    quantity: str,
    window: _Window,
    outlier: Outlier,
    outliers: tuple[Outlier, ...],
) -> Flag:
    group = outlier.group
    flagged = [other.member for other in outliers if other.group == group]
    batch_size, replicate = int(panel.batch_sizes[group]), int(panel.replicates[outlier.member])
    epochs = view.epochs[group, outlier.member][view.last_half[group, outlier.member]]
    return Flag(
        stage=view.name,
        batch_size=batch_size,
        replicate=replicate,
        trial=panel.trial_names[batch_size, replicate],
        quantity=quantity,
        first_epoch=int(epochs[0]),
        last_epoch=int(epochs[-1]),
        value=float(window.mean[group, outlier.member]),
        others=float(np.nanmean(np.delete(window.mean[group], flagged))),
        score=outlier.score,
        threshold=outlier.threshold,
    )
