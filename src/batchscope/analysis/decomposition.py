"""Part seven: what the observed gap is made of, where probes measured it.

Each probe changes one thing of the measurement, from the reported training accuracy to the
validation accuracy, so that the differences of neighbours add up to the observed gap. Where
BatchNorm was in inference mode, both ends are measured with the same averages: there is nothing to
take apart, and its term is 0 by definition.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from batchscope.analysis.batchnorm_mode import in_inference_mode
from batchscope.analysis.estimates import Decomposition, DecompositionRow, Estimate
from batchscope.analysis.moments import estimate
from batchscope.analysis.panel import Bools, Floats, Ints, Panel
from batchscope.analysis.words import listed

__all__ = ["ACCURACIES", "decompose", "gap_terms", "without_batchnorm"]

ACCURACIES = (
    "train_accuracy",
    "probe_train_augmented_accuracy",
    "probe_train_clean_accuracy",
    "probe_train_recalibrated_accuracy",
    "probe_val_recalibrated_accuracy",
    "val_accuracy",
)
"""The columns that the decomposition needs, in the order in which the measurement changes."""
_RECALIBRATED = ("probe_train_recalibrated_accuracy", "probe_val_recalibrated_accuracy")
_LAGS = {
    "lag_mean": "probe_batchnorm_lag_mean",
    "lag_max": "probe_batchnorm_lag_max",
    "stale_weight": "probe_batchnorm_stale_weight",
}
# Accuracies are averaged in float32, whose last bits are no BatchNorm statistics.
_SMALLEST_TERM = 1e-6


def gap_terms(accuracies: Mapping[str, Floats], inference: Bools) -> dict[str, Floats]:
    """Takes the observed gap of each trial apart.

    observed = averaging + augmentation + batchnorm + generalization, an identity up to rounding:
    every accuracy between the first and the last is added once and subtracted once.

    Where BatchNorm was in inference mode, a recalibrated network is one that was never trained so,
    and no part of the measurement. There batchnorm = 0 by definition, and generalization = clean
    training accuracy - validation accuracy, both by the averages that the network was trained with.

    Args:
        accuracies: The columns of `ACCURACIES`, float64 arrays of one shape.
        inference: Where BatchNorm was in inference mode, in that shape.

    Returns:
        ``observed``, the four terms, and the halves of the third, ``batchnorm_training`` and
        ``batchnorm_validation``, in that shape.
    """
    reported, augmented, clean, recalibrated, val_recalibrated, validated = (
        accuracies[name] for name in ACCURACIES
    )
    training = np.where(inference, 0.0, clean - recalibrated)
    validation = np.where(inference, 0.0, val_recalibrated - validated)
    return {
        "observed": reported - validated,
        "averaging": reported - augmented,
        "augmentation": augmented - clean,
        "batchnorm": training + validation,
        "batchnorm_training": training,
        "batchnorm_validation": validation,
        "generalization": np.where(inference, clean - validated, recalibrated - val_recalibrated),
    }


def decompose(panel: Panel, confidence: float) -> Decomposition:
    """Means and t-intervals over replicates of the terms, at every probed epoch.

    A trial counts at an epoch where it has finite figures in all of `ACCURACIES`; by recalibrated
    statistics it needs none where BatchNorm was in inference mode. What stands for
    the end of a stage is, for each batch size apart, the last probed epoch of the stage that the
    most of its trials reached or had diverged by. Stages may end at different epochs, since a
    budget may be in updates; while a run goes on, so do those of batch sizes that lag behind.
    Where trials have ends of their own, the end of a stage is each trial's own last probed epoch in it,
    over those that are through with the stage and did not diverge in it; the row at the latest of these
    epochs stands for them all.

    Args:
        panel: The whole history.
        confidence: Coverage of the intervals.
    """
    inference = in_inference_mode(panel)
    missing = _missing(panel, inference)
    if missing:
        probed = any(name in panel.probes for name in ACCURACIES)
        what = f"the column {listed(missing)}" if probed else "probe columns"
        return Decomposition((), f"the decomposition of the gap needs {what}, which this history lacks")
    accuracies = _accuracies(panel)
    terms = gap_terms(accuracies, inference)
    complete = np.logical_and.reduce(
        [
            np.isfinite(values) | (inference if name in _RECALIBRATED else False)
            for name, values in accuracies.items()
        ]
    )
    if not complete.any():
        reason = "no trial has finite figures in all of the columns that the decomposition of the gap needs"
        return Decomposition((), reason)
    own = panel.ends.own is not None
    ends = _own_stage_ends(panel, complete) if own else _stage_ends(panel, complete)
    rows = tuple(
        _row(panel, terms, inference, complete, (int(row), int(column), int(stage)), confidence, ends)
        for column, row, stage in np.argwhere(_probed_stages(panel, complete))
    )
    return Decomposition(rows, None)


def without_batchnorm(panel: Panel) -> bool:
    """Whether probes found nothing that BatchNorm statistics change, in any trial at any epoch.

    Where BatchNorm was in inference mode its term is 0 by definition, which is no finding.
    """
    inference = in_inference_mode(panel)
    if _missing(panel, inference):
        return False
    terms = gap_terms(_accuracies(panel), inference)
    halves = np.stack([terms["batchnorm_training"], terms["batchnorm_validation"]])
    known = halves[np.isfinite(halves) & ~inference]
    return known.size > 0 and bool((np.abs(known) <= _SMALLEST_TERM).all())


def _missing(panel: Panel, inference: Bools) -> list[str]:
    """Columns that the decomposition lacks."""
    columns = {**panel.metrics, **panel.probes}
    needed = [name for name in ACCURACIES if name not in _RECALIBRATED or not inference.any()]
    return [name for name in needed if name not in columns]


def _accuracies(panel: Panel) -> dict[str, Floats]:
    """The columns of `ACCURACIES`; NaN throughout where one is not there."""
    columns = {**panel.metrics, **panel.probes}
    return {name: columns.get(name, np.full(panel.recorded.shape, np.nan)) for name in ACCURACIES}


def _row(
    panel: Panel,
    terms: Mapping[str, Floats],
    inference: Bools,
    complete: Bools,
    where: tuple[int, int, int],
    confidence: float,
    ends: Ints,
) -> DecompositionRow:
    row, column, stage = where
    trials = np.flatnonzero(complete[row, :, column] & (panel.stage_index[row, :, column] == stage))
    columns = np.full(len(trials), column)
    if panel.ends.own is not None and ends[stage, row].max() == column:
        trials = np.flatnonzero(ends[stage, row] >= 0)
        columns = ends[stage, row, trials]
    found = {name: estimate(values[row, trials, columns], confidence) for name, values in terms.items()}

    def lag(name: str) -> Estimate | None:
        values = panel.probes.get(_LAGS[name])
        return None if values is None else estimate(values[row, trials, columns], confidence)

    return DecompositionRow(
        epoch=int(panel.epochs[column]),
        stage=panel.stages[stage],
        batch_size=int(panel.batch_sizes[row]),
        ends_stage=bool(ends[stage, row].max() == column),
        **found,
        batchnorm_inference=bool(inference[row, trials, columns].all()),
        lag_mean=lag("lag_mean"),
        lag_max=lag("lag_max"),
        stale_weight=lag("stale_weight"),
    )


def _probed_stages(panel: Panel, complete: Bools) -> Bools:
    """Where any trial was probed, (E, B, stages): at one epoch trials may be in different stages."""
    stages = range(len(panel.stages))
    inside = [(complete & (panel.stage_index == stage)).any(axis=1).T for stage in stages]
    return np.stack(inside, axis=2)


def _own_stage_ends(panel: Panel, complete: Bools) -> Ints:
    """Column of each trial's last probe in each stage, (stages, B, R); -1 where it does not count."""
    ends = np.full((len(panel.stages), *complete.shape[:2]), -1, dtype=np.int64)
    columns = np.arange(complete.shape[2])
    for stage in range(len(panel.stages)):
        inside = panel.stage_index == stage
        last = np.where(inside, columns, -1).max(axis=2)
        lost = np.take_along_axis(panel.diverged, np.maximum(last, 0)[:, :, None], axis=2)[:, :, 0]
        through = (panel.stage_index > stage).any(axis=2)
        if panel.ends.own is not None:
            through |= panel.ends.own >= 0
        probed = np.where(inside & complete, columns, -1).max(axis=2)
        ends[stage] = np.where(through & ~lost, probed, -1)
    return ends


def _stage_ends(panel: Panel, complete: Bools) -> Ints:
    """Column of each stage's end at each batch size, (stages, B, 1); -1 where it was not probed."""
    ends = np.full((len(panel.stages), len(panel.batch_sizes), 1), -1, dtype=np.int64)
    reached = (complete | panel.diverged).sum(axis=1)
    for stage in range(len(panel.stages)):
        probed = (complete & (panel.stage_index == stage)).any(axis=1)
        count = np.where(probed, reached, 0)
        most = probed & (count == count.max(axis=1, keepdims=True))
        last = most.shape[1] - 1 - most[:, ::-1].argmax(axis=1)
        ends[stage, :, 0] = np.where(probed.any(axis=1), last, -1)
    return ends
