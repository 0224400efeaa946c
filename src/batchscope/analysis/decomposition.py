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
from batchscope.analysis.panel import Bools, Floats, Panel
from batchscope.analysis.probed import ProbedCell, probed_cells
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
    statistics it needs none where BatchNorm was in inference mode. What stands for the end of a stage,
    `batchscope.analysis.probed.probed_cells` tells.

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
    rows = tuple(_row(panel, terms, inference, cell, confidence) for cell in probed_cells(panel, complete))
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
    panel: Panel, terms: Mapping[str, Floats], inference: Bools, cell: ProbedCell, confidence: float
) -> DecompositionRow:
    found = {name: estimate(cell.of(values), confidence) for name, values in terms.items()}

    def lag(name: str) -> Estimate | None:
        values = panel.probes.get(_LAGS[name])
        return None if values is None else estimate(cell.of(values), confidence)

    return DecompositionRow(
        epoch=cell.epoch,
        stage=cell.stage,
        batch_size=cell.batch_size,
        ends_stage=cell.ends_stage,
        **found,
        batchnorm_inference=bool(inference[cell.row, cell.trials, cell.columns].all()),
        lag_mean=lag("lag_mean"),
        lag_max=lag("lag_max"),
        stale_weight=lag("stale_weight"),
    )
