"""Which learning rate of a grid is a batch size's best, and how much that choice flatters it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from batchscope.analysis.learning_rates import Optimism
from batchscope.analysis.moments import mean_and_sd
from batchscope.analysis.panel import Bools, Floats

__all__ = ["FEWEST", "Candidates", "best", "optimism"]

FEWEST = 3
"""Replicates below which a choice without one of them says too little."""
# Accuracies are whole numbers of images over their number, kept as float32 by some.
_TIE = 1e-6
# A loss that is missing comes after any that is not, and ahead of what is out of the question.
_MISSING = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class Candidates:
    """The J learning rates of one batch size in R replicates, at the end of their trials.

    Attributes:
        rates: (J,) float64, ascending.
        by: Name of what chooses, an accuracy or a loss.
        selection: (J, R) float64, what chooses; NaN without a finite figure.
        loss: (J, R) float64, what decides between equal accuracies; NaN where there is none.
        metric: (J, R) float64, what is reported.
        diverged: (J, R) bool.
        complete: (R,) bool, the replicates in which all learning rates have ended.
    """

    rates: Floats
    by: str
    selection: Floats
    loss: Floats
    metric: Floats
    diverged: Bools
    complete: Bools

    @property
    def judges(self) -> Bools:
        """(R,), the replicates that choose: those that are complete, as far as there are any."""
        return self.complete if self.complete.any() else np.ones(len(self.complete), dtype=np.bool_)


def best(candidates: Candidates, use: Bools, *, heed_divergence: bool = True) -> int:
    """Position of the learning rate with the fewest diverged trials, then the best mean.

    Of accuracies that are equal, as they often are on few images, the one with the lowest mean loss on the
    same images is best, and without losses, or of equal losses, the smallest learning rate.

    Args:
        candidates: Of one batch size.
        use: (R,), the replicates that choose.
        heed_divergence: False for what it would be if diverged trials were only left out of means.
    """
    lost = candidates.diverged[:, use].sum(axis=1)
    fewest = lost == lost.min() if heed_divergence else np.ones(len(lost), dtype=np.bool_)
    is_loss = candidates.by.endswith("loss")
    mean = _means(candidates.selection, use) * (-1 if is_loss else 1)
    score = np.where(fewest & np.isfinite(mean), mean, -np.inf)
    tied = fewest & (score >= score.max() - (0 if is_loss else _TIE))
    loss = _means(candidates.loss, use)
    return int(np.where(tied, np.where(np.isfinite(loss), loss, _MISSING), np.inf).argmin())


def optimism(candidates: Candidates, batch_size: int, sign: float) -> Optimism:
    """By how much the reported mean is too good because its replicates chose.

    What favours a learning rate in these replicates by chance is in the figures that are reported of it,
    on whatever images. So each replicate's learning rate is chosen by the others alone, and its own
    figure is taken there; by how much the mean of these is worse is the estimate. Without choice between
    equals it is right on average; where learning rates differ it is a little too large, for fewer
    replicates find the best less often. This is the outer loop of nested cross-validation (Varma and
    Simon, 2006, Bias in error estimation when using cross-validation for model selection). It measures
    nothing of what the images of the choice, common to all replicates, contribute.

    Args:
        candidates: Of one batch size.
        batch_size: Of the candidates.
        sign: 1 where a higher metric is better, -1 where a lower one is.

    Returns:
        Without an estimate where fewer than `FEWEST` replicates are complete, or a trial that it
        needs has diverged.
    """
    use = candidates.complete
    replicates = np.flatnonzero(use)
    if len(replicates) < FEWEST:
        return Optimism(batch_size, len(replicates), 0, float("nan"))
    chosen = best(candidates, use)
    by_others = np.array([best(candidates, use & (np.arange(len(use)) != one)) for one in replicates])
    gained = candidates.metric[chosen, replicates] - candidates.metric[by_others, replicates]
    changed = int((by_others != chosen).sum())
    return Optimism(batch_size, len(replicates), changed, sign * float(gained.mean()))


def _means(values: Floats, use: Bools) -> Floats:
    return mean_and_sd(values[:, use], axis=1)[1]
