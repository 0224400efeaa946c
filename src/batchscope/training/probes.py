"""Probes: what else is measured at an epoch's end, off the training clock.

The reported training accuracy and the validation accuracy differ in the moment of measurement,
the augmentation, the BatchNorm statistics and the images. Each probe changes one of these, so
that their differences take the observed gap apart; see `batchscope.analysis.decomposition`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from batchscope.data.split import stratified_subset
from batchscope.training.loops import Figures, Loop
from batchscope.training.recalibration import (
    Moments,
    averages_kept,
    batchnorm_layers,
    images_that_fit,
    lag,
    population_moments,
    use_moments,
)
from batchscope.training.sources import Source

__all__ = ["Evaluator", "ProbePlan", "probe_rows", "run_probes"]

_EVALUATION_BATCH = 256


def probe_rows(
    training: NDArray[np.int64], labels: NDArray[np.int64], count: int, seed: int
) -> NDArray[np.int64]:
    """Positions among the training images of a fixed stratified subset, in random order.

    It is scikit-learn's ``train_test_split`` where that can put each class on both sides. Where it cannot,
    because a class has one image or a side fewer images than there are classes, the subset has each class'
    share as near as whole numbers allow, and some classes may be missing from it.

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
    own = labels[training]
    per_class = np.unique(own, return_counts=True)[1]
    if per_class.min() < 2 or min(count, len(training) - count) < len(per_class):
        return np.random.default_rng(seed).permutation(stratified_subset(own, count, seed))
    from sklearn.model_selection import train_test_split

    chosen, _ = train_test_split(positions, train_size=count, random_state=seed, stratify=own)
    return np.asarray(chosen, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Loss and accuracy of a stage's network over given examples.

    Attributes:
        stored: Loop of the network that normalises by the stored averages.
        own_mode: Loop of the network that normalises as the stage trains, while random layers, such as
            dropout, rest. It is `stored` where nothing is normalised by the batch.
    """

    stored: Loop
    own_mode: Loop

    def by_averages(self, source: Source, count: int | None = None) -> Figures:
        """With the averages that the BatchNorm layers hold now, over the first `count` examples."""
        order = np.arange(len(source) if count is None else count)
        return self.stored.evaluate(source, order, _EVALUATION_BATCH)

    def as_trained(self, source: Source, order: NDArray[np.int64], batch_size: int) -> Figures:
        """In the mode of training, batch by batch of the trial's size."""
        return self.own_mode.evaluate(source, order, batch_size)


@dataclass(frozen=True, eq=False)
class ProbePlan:
    """What the probes of one epoch look at.

    Attributes:
        clean: The training subset as it is; k examples.
        augmented: All training examples as the epoch showed them; None without augmentation.
        positions: Where the subset is among these; shape (k,).
        validation: The validation examples.
        validated: How many of them, from the first, the validation figures of this trial rest on.
        batch_size: The trial's.
        images: The inputs of the subset, for recalibration; None where the stage runs in inference
            mode, in which no statistics are recalibrated, and where there are none.
        stale_weight: Share that the averages from before the trial still have in those of now.
    """

    clean: Source
    augmented: Source | None
    positions: NDArray[np.int64]
    validation: Source
    validated: int
    batch_size: int
    images: Source | None
    stale_weight: float


def run_probes(evaluator: Evaluator, backbone: keras.Model, plan: ProbePlan) -> dict[str, float]:
    """Measures everything; weights and averages are the same afterwards as before.

    Args:
        evaluator: Of the stage.
        backbone: Holds the BatchNorm layers.
        plan: What to look at.

    Returns:
        Figures by column name: accuracy and loss of the training subset augmented and clean in
        the mode of training, and clean with the moving averages; where statistics are
        recalibrated, of the subset and of the validation images with these, and how far BatchNorm
        lags; and the averages' stale weight.
    """
    figures = _as_they_are(evaluator, backbone, plan)
    columns = {}
    if not batchnorm_layers(backbone):  # recalibrated or not, it is the same network
        figures["train_recalibrated"] = figures["train_moving"]
        figures["val_recalibrated"] = evaluator.by_averages(plan.validation, plan.validated)
    elif plan.images is not None:
        moments = recalibrate(plan.images, backbone)
        with averages_kept(backbone):
            use_moments(backbone, moments)
            figures["train_recalibrated"] = evaluator.by_averages(plan.clean, _whole(plan))
            figures["val_recalibrated"] = evaluator.by_averages(plan.validation, plan.validated)
        columns = _lag_columns(lag(backbone, moments))
    for name, measured in figures.items():
        columns |= {f"probe_{name}_accuracy": measured.accuracy, f"probe_{name}_loss": measured.loss}
    if batchnorm_layers(backbone):
        columns["probe_batchnorm_stale_weight"] = plan.stale_weight
    return columns


def _as_they_are(evaluator: Evaluator, backbone: keras.Model, plan: ProbePlan) -> dict[str, Figures]:
    """What needs no recalibration."""
    count = _whole(plan)
    moving = evaluator.by_averages(plan.clean, count)
    if evaluator.own_mode is evaluator.stored:
        # Nothing depends on the mode or the batch: measured once, it holds for both.
        clean = augmented = moving
        if plan.augmented is not None:
            augmented = evaluator.as_trained(plan.augmented, plan.positions[:count], _EVALUATION_BATCH)
    else:
        with averages_kept(backbone):
            clean = augmented = evaluator.as_trained(plan.clean, np.arange(count), plan.batch_size)
            if plan.augmented is not None:
                augmented = evaluator.as_trained(plan.augmented, plan.positions[:count], plan.batch_size)
    return {"train_moving": moving, "train_clean": clean, "train_augmented": augmented}


def recalibrate(images: Source, backbone: keras.Model) -> list[Moments]:
    """Population statistics over as many of these clean images as fit in memory together."""
    count = min(len(images), images_that_fit(backbone))
    return population_moments(backbone, images.take(np.arange(count))[0])


def _whole(plan: ProbePlan) -> int:
    """Examples without a last short batch, whose statistics would be worse than training's."""
    count = len(plan.clean)
    return count - count % plan.batch_size if count >= plan.batch_size else count


def _lag_columns(distances: Mapping[str, float]) -> dict[str, float]:
    if not distances:
        return {}
    values: Sequence[float] = list(distances.values())
    return {
        "probe_batchnorm_lag_mean": float(np.mean(values)),
        "probe_batchnorm_lag_max": float(np.max(values)),
        **{f"probe_batchnorm_lag/{name}": value for name, value in distances.items()},
    }
