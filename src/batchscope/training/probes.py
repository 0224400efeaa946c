"""Probes: what else is measured at an epoch's end, off the training clock.

The reported training accuracy and the validation accuracy differ in the moment of measurement,
the augmentation, the BatchNorm statistics and the images. Each probe changes one of these, so
that their differences take the observed gap apart; see `batchscope.analysis.decomposition`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from batchscope.training.inputs import Batches, ImageFeed
from batchscope.training.recalibration import (
    Moments,
    averages_kept,
    batchnorm_layers,
    images_that_fit,
    lag,
    population_moments,
    use_moments,
)

__all__ = ["Evaluator", "ProbePlan", "probe_rows", "run_probes"]

_EVALUATION_BATCH = 256


def probe_rows(
    training: NDArray[np.int64], labels: NDArray[np.int64], count: int, seed: int
) -> NDArray[np.int64]:
    """Positions among the training images of a fixed stratified subset, in random order.

    Args:
        training: Rows of the training images; shape (n,).
        labels: Labels of all images.
        count: Size of the subset; all n where they are no more.
        seed: Of the choice, the same for all trials.

    Returns:
        Positions in `training`, shape (min(count, n),).
    """
    positions = np.arange(len(training))
    if count >= len(training):
        return np.random.default_rng(seed).permutation(positions)
    chosen, _ = train_test_split(positions, train_size=count, random_state=seed, stratify=labels[training])
    return np.asarray(chosen, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Loss and accuracy of a stage's network over given images.

    Attributes:
        feed: Source of the images.
        model: The stage's compiled model; evaluated, it normalises by the stored averages.
        own_mode: The same network in the mode in which the stage trains, compiled. It is `model`
            where that is inference mode.
    """

    feed: ImageFeed
    model: keras.Model
    own_mode: keras.Model

    def stored(self, rows: NDArray[np.int64]) -> Mapping[str, float]:
        """With the averages that the BatchNorm layers hold now."""
        return self._evaluate(self.model, rows, None, _EVALUATION_BATCH)

    def as_trained(
        self, rows: NDArray[np.int64], views: NDArray[np.float32] | None, batch_size: int
    ) -> Mapping[str, float]:
        """In the mode of training, batch by batch of the trial's size."""
        return self._evaluate(self.own_mode, rows, views, batch_size)

    def _evaluate(
        self,
        model: keras.Model,
        rows: NDArray[np.int64],
        views: NDArray[np.float32] | None,
        batch_size: int,
    ) -> Mapping[str, float]:
        batches = Batches(self.feed, rows, views, batch_size)
        result: Mapping[str, float] = model.evaluate(batches, verbose=0, return_dict=True)
        return {"accuracy": float(result["accuracy"]), "loss": float(result["loss"])}


@dataclass(frozen=True, eq=False)
class ProbePlan:
    """What the probes of one epoch look at.

    Attributes:
        training: Rows of the training subset.
        views: Its transforms in this epoch, shape (k, 8); None without augmentation.
        validation: Rows that the validation figures of this trial rest on.
        batch_size: The trial's.
        stale_weight: Share that the averages from before the trial still have in those of now.
    """

    training: NDArray[np.int64]
    views: NDArray[np.float32] | None
    validation: NDArray[np.int64]
    batch_size: int
    stale_weight: float


def run_probes(evaluator: Evaluator, backbone: keras.Model, plan: ProbePlan) -> dict[str, float]:
    """Measures everything; weights and averages are the same afterwards as before.

    Args:
        evaluator: Of the stage.
        backbone: Holds the BatchNorm layers.
        plan: What to look at.

    Returns:
        Figures by column name: accuracy and loss of the training subset augmented and clean in
        the mode of training, clean with recalibrated statistics and with the moving averages; of
        the validation images recalibrated; how far BatchNorm lags; and ``probe_seconds``, what the
        probes cost.
    """
    start = time.perf_counter()
    rows = _whole_batches(plan.training, plan.batch_size)
    views = None if plan.views is None else plan.views[: len(rows)]
    figures: dict[str, Mapping[str, float]] = {"train_moving": evaluator.stored(rows)}
    with averages_kept(backbone):
        # In inference mode nothing depends on the mode or the batch: measured once, it holds for both.
        figures["train_clean"] = (
            figures["train_moving"]
            if evaluator.own_mode is evaluator.model
            else evaluator.as_trained(rows, None, plan.batch_size)
        )
        figures["train_augmented"] = (
            figures["train_clean"] if views is None else evaluator.as_trained(rows, views, plan.batch_size)
        )
    moments = recalibrate(evaluator.feed, backbone, plan.training)
    with averages_kept(backbone):
        use_moments(backbone, moments)
        figures["train_recalibrated"] = evaluator.stored(rows)
        figures["val_recalibrated"] = evaluator.stored(plan.validation)
    columns = {
        f"probe_{name}_{metric}": value
        for name, measured in figures.items()
        for metric, value in measured.items()
    }
    columns |= _lag_columns(lag(backbone, moments), plan.stale_weight)
    return columns | {"probe_seconds": time.perf_counter() - start}


def recalibrate(feed: ImageFeed, backbone: keras.Model, rows: NDArray[np.int64]) -> list[Moments]:
    """Population statistics over as many of these clean images as fit in memory together."""
    if not batchnorm_layers(backbone):
        return []
    images, _ = feed.batch(rows[: images_that_fit(backbone)], None)
    return population_moments(backbone, images)


def _whole_batches(rows: NDArray[np.int64], batch_size: int) -> NDArray[np.int64]:
    """Rows without a last short batch, whose statistics would be worse than training's."""
    return rows[: len(rows) - len(rows) % batch_size] if len(rows) >= batch_size else rows


def _lag_columns(distances: Mapping[str, float], stale_weight: float) -> dict[str, float]:
    if not distances:
        return {}
    values: Sequence[float] = list(distances.values())
    return {
        "probe_batchnorm_lag_mean": float(np.mean(values)),
        "probe_batchnorm_lag_max": float(np.max(values)),
        "probe_batchnorm_stale_weight": stale_weight,
        **{f"probe_batchnorm_lag/{name}": value for name, value in distances.items()},
    }
