"""What is estimated for each batch size at an epoch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TERMS", "Decomposition", "DecompositionRow", "Estimate", "SummaryRow"]

TERMS = ("averaging", "augmentation", "batchnorm", "generalization")
"""What the observed gap is the sum of, in the order in which the measurement changes."""


@dataclass(frozen=True)
class Estimate:
    """Mean over replicates with Student's t-interval.

    Attributes:
        n: Number of finite values that the figures rest on.
        mean: NaN where n is 0.
        sd: Standard deviation between replicates (n - 1 in the denominator); NaN below n = 2.
        low: Lower end of the interval of the mean; NaN below n = 2, as is its upper end.
        high: Upper end.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class SummaryRow:
    """One batch size at one epoch; n_trials = n_diverged + n_missing + those with finite figures.

    Attributes:
        epoch: Counted on through the stages.
        stage: That the epoch belongs to; None where no trial of the batch size reaches it.
        batch_size: Examples per update.
        n_trials: Trials of this batch size in the history.
        n_diverged: Trials with a NaN or infinite loss or accuracy at this epoch, or that ended with
            one before it; they are left out of the estimates.
        n_missing: Trials that ended before this epoch without having diverged.
        train_accuracy: None where the history has no such column; likewise below.
        val_accuracy: At the epoch's end.
        gap: The observed gap, train_accuracy - val_accuracy, differenced within each trial.
        train_loss: As the training loop reports it.
        val_loss: At the epoch's end.
    """

    epoch: int
    stage: str | None
    batch_size: int
    n_trials: int
    n_diverged: int
    n_missing: int
    train_accuracy: Estimate | None
    val_accuracy: Estimate | None
    gap: Estimate | None
    train_loss: Estimate | None
    val_loss: Estimate | None


@dataclass(frozen=True)
class DecompositionRow:
    """What the observed gap of one batch size is made of at one probed epoch.

    All estimates rest on the same trials, those with finite figures in all of the columns that
    are needed, so the four terms' means add up to the mean of the observed gap.

    Attributes:
        epoch: Counted on through the stages.
        stage: That the epoch belongs to.
        batch_size: Examples per update.
        ends_stage: Whether this row stands for the end of its stage, see
            `batchscope.analysis.decomposition.decompose`.
        observed: Reported training accuracy minus validation accuracy.
        averaging: Reported training accuracy, a running mean over the epoch, with dropout where the
            network has it, minus that of the network at the epoch's end, without.
        augmentation: Training accuracy with augmentation minus without.
        batchnorm: batchnorm_training + batchnorm_validation.
        batchnorm_training: Clean training accuracy in the mode of training minus that with
            recalibrated BatchNorm statistics.
        batchnorm_validation: Validation accuracy with recalibrated statistics minus that with the
            moving averages.
        generalization: Training minus validation accuracy, both with recalibrated statistics.
        batchnorm_inference: Whether BatchNorm was in inference mode in all of these trials (see
            `batchscope.analysis.batchnorm_mode`). Its term and its halves are 0 by definition then,
            and generalization is between accuracies by the averages that the network was trained with.
        lag_mean: Distance of the moving averages from the recalibrated ones in units of the
            recalibrated standard deviation, mean over layers; None without such a column.
        lag_max: Likewise, of the layer where it is largest.
        stale_weight: Share that the averages from before the training still have; None likewise.
    """

    epoch: int
    stage: str
    batch_size: int
    ends_stage: bool
    observed: Estimate
    averaging: Estimate
    augmentation: Estimate
    batchnorm: Estimate
    batchnorm_training: Estimate
    batchnorm_validation: Estimate
    generalization: Estimate
    batchnorm_inference: bool
    lag_mean: Estimate | None
    lag_max: Estimate | None
    stale_weight: Estimate | None

    def term(self, name: str) -> Estimate:
        """The estimate of one of `TERMS`."""
        found: Estimate = getattr(self, name)
        return found


@dataclass(frozen=True)
class Decomposition:
    """The observed gap taken apart.

    Attributes:
        rows: By epoch, then batch size: every probed epoch. Empty where nothing was probed.
        reason: Why there are no rows; None where there are.
    """

    rows: tuple[DecompositionRow, ...]
    reason: str | None

    @property
    def ends(self) -> tuple[DecompositionRow, ...]:
        """The rows that stand for the end of a stage, by stage, then batch size."""
        found = [row for row in self.rows if row.ends_stage]
        stages = {stage: place for place, stage in enumerate(dict.fromkeys(row.stage for row in found))}
        return tuple(sorted(found, key=lambda row: (stages[row.stage], row.batch_size)))
