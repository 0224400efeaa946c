"""What the analysis answers: every result as a frozen dataclass.

Figures that do not exist (one replicate has no standard deviation) are NaN, and a `reason` or a
note tells why; a whole quantity that the history cannot give (no training accuracy, no gap) is
None. Accuracies and gaps are shares between 0 and 1, losses are in the unit of the loss.
"""

from __future__ import annotations

from dataclasses import dataclass

from batchscope.analysis.estimates import Decomposition, DecompositionRow, Estimate, SummaryRow
from batchscope.analysis.facts import End, StageSpan, StudyFacts
from batchscope.analysis.learning_rates import LearningRatePoint, LearningRates, Optimism
from batchscope.analysis.noise_scale import NoiseScaleRow, NoiseScales
from batchscope.analysis.practical import PracticalRow
from batchscope.analysis.sharpness import Sharpness, SharpnessRow
from batchscope.analysis.targets import TargetRow, goal_rows
from batchscope.analysis.throughput import Throughput, ThroughputRow
from batchscope.analysis.to_target_results import UpdatesToTarget
from batchscope.analysis.words import Figure, Sentence

__all__ = [
    "Analysis",
    "Choice",
    "Comparison",
    "Decomposition",
    "DecompositionRow",
    "End",
    "Estimate",
    "Exchangeability",
    "Figure",
    "Flag",
    "LearningRatePoint",
    "LearningRates",
    "NoiseScaleRow",
    "NoiseScales",
    "Optimism",
    "PracticalRow",
    "Recommendation",
    "Sentence",
    "Sharpness",
    "SharpnessRow",
    "Spread",
    "SpreadRow",
    "StageSpan",
    "StudyFacts",
    "SummaryRow",
    "TargetRow",
    "Throughput",
    "ThroughputRow",
    "Trend",
    "UpdatesShare",
    "UpdatesToTarget",
]


@dataclass(frozen=True)
class Comparison:
    """A batch size against the smallest one at the end, paired by replicate.

    Attributes:
        quantity: ``val_accuracy``, ``val_loss`` or ``gap``.
        epoch: At which they are compared; None where batch sizes end at different ones.
        batch_size: The larger batch size.
        reference: The smallest batch size of the study.
        n_pairs: Replicates with finite values at both.
        difference: Mean over pairs of (value at batch_size - value at reference).
        low: Lower end of the t-interval of the difference; NaN below two pairs, as is its upper end.
        high: Upper end.
        p: Two-sided paired t-test; NaN where it does not exist.
        p_holm: Holm-corrected over the batch sizes of this quantity.
        reason: Why figures are missing; None where none is.
    """

    quantity: str
    epoch: int | None
    batch_size: int
    reference: int
    n_pairs: int
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    reason: str | None


@dataclass(frozen=True)
class Trend:
    """Page's test for an ordered alternative over replicates.

    Attributes:
        quantity: ``val_accuracy``, ``val_loss`` or ``gap``.
        epoch: At which the batch sizes are ranked; None where batch sizes end at different ones.
        direction: What is tested, fixed in advance: ``decreasing`` with batch size (accuracy) or
            ``increasing`` (loss and gap).
        n_replicates: Replicates with finite values at every batch size; only these are used.
        n_left_out: Replicates left out because a batch size lacks a finite value.
        statistic: Page's L; NaN where it does not exist.
        p: One-sided.
        method: ``exact`` or ``asymptotic``; None where there is no test.
        reason: Why there is none; else None.
    """

    quantity: str
    epoch: int | None
    direction: str
    n_replicates: int
    n_left_out: int
    statistic: float
    p: float
    method: str | None
    reason: str | None


@dataclass(frozen=True)
class SpreadRow:
    """How far the replicates of one batch size lie apart.

    Attributes:
        batch_size: Examples per update.
        n: Finite values.
        sd: Standard deviation between replicates; NaN below n = 2.
    """

    batch_size: int
    n: int
    sd: float


@dataclass(frozen=True)
class Spread:
    """How the spread between replicates changes with batch size, at the end.

    Attributes:
        quantity: ``val_accuracy`` or ``val_loss``.
        epoch: At which it is measured; None where batch sizes end at different ones.
        rows: One per batch size, ascending.
        factor_per_doubling: 2^slope of the least-squares line of log2(sd) against
            log2(batch size): by how much the spread multiplies when the batch size doubles.
        statistic: Brown-Forsythe's F (Levene's test about medians).
        p: Of that test: the spreads are equal.
        reason: Why figures are missing; None where none is.
    """

    quantity: str
    epoch: int | None
    rows: tuple[SpreadRow, ...]
    factor_per_doubling: float
    statistic: float
    p: float
    reason: str | None


@dataclass(frozen=True)
class UpdatesShare:
    """How much of the difference between batch sizes the number of updates explains.

    Attributes:
        stage: As in the history; empty where it has no stage column.
        quantity: ``val_accuracy`` or ``val_loss``.
        share: 1 - variance_at_matched_updates / variance_at_matched_epochs. It may be negative.
        low: Lower end of the bootstrap interval over replicates; NaN where there is none.
        high: Its upper end.
        share_alike: The same like for like: each number of updates is held against the same batch
            sizes at matched epochs.
        low_alike: Lower end of its bootstrap interval; NaN where there is none.
        high_alike: Its upper end.
        variance_at_matched_epochs: Between batch sizes, of means over replicates, averaged over epochs.
        variance_at_matched_updates: The same at equal updates, averaged over a grid even in log updates.
        variance_at_matched_epochs_alike: Of the batch sizes compared at matched updates only.
        n_epochs: Number of epochs averaged over.
        updates_from: First number of updates of the grid, counted from the stage's start.
        updates_to: Last number of updates of the grid, counted from the stage's start.
        batch_sizes: Those that have data in this stage.
        reason: Why share, low and high, or only low and high, are missing; None where none is.
    """

    stage: str
    quantity: str
    share: float
    low: float
    high: float
    share_alike: float
    low_alike: float
    high_alike: float
    variance_at_matched_epochs: float
    variance_at_matched_updates: float
    variance_at_matched_epochs_alike: float
    n_epochs: int
    updates_from: float
    updates_to: float
    batch_sizes: tuple[int, ...]
    reason: str | None


@dataclass(frozen=True)
class Flag:
    """A replicate that does not look like the others of its batch size. It is never removed.

    Attributes:
        stage: Where it stands out.
        batch_size: Examples per update.
        replicate: The bundle of seeds.
        trial: Name of the trial.
        quantity: ``train_accuracy`` or ``train_loss``.
        first_epoch: First epoch of the window in which the curves are compared.
        last_epoch: Last epoch of that window.
        value: The replicate's mean of the quantity over the window.
        others: Mean over the window of the batch size's replicates that are not flagged.
        score: Externally studentised residual.
        threshold: The score above which it is flagged.
    """

    stage: str
    batch_size: int
    replicate: int
    trial: str
    quantity: str
    first_epoch: int
    last_epoch: int
    value: float
    others: float
    score: float
    threshold: float


@dataclass(frozen=True)
class Exchangeability:
    """Whether, and on what, the replicates of a stage were compared.

    Attributes:
        stage: As in the history; empty where it has no stage column.
        quantity: ``train_accuracy`` or ``train_loss``; None where the history has neither.
        n_tested: Trials that took part.
        n_left_out: Trials that could not: diverged, too short, or fewer than three a batch size.
        n_flagged: Number of flags raised in this stage.
        false_alarm_rate: Chance of any flag in this stage when all replicates are alike.
        reason: Why nothing was tested; None where something was.
    """

    stage: str
    quantity: str | None
    n_tested: int
    n_left_out: int
    n_flagged: int
    false_alarm_rate: float
    reason: str | None


@dataclass(frozen=True)
class Choice:
    """The cheapest batch size within the margin, or to the target, by one cost.

    Attributes:
        cost: ``updates``, ``examples`` or ``seconds``.
        batch_size: The cheapest.
        spent: Its cost, mean over replicates, up to the epoch from which on its mean metric stays
            within the margin of the best final one; where trials end at a target, up to that.
        epoch: That epoch; None where trials end at a target.
        best_spent: The same cost for the batch size that ends best; NaN likewise.
        rivals: Where trials end at a target, those that these replicates do not tell apart from the
            cheapest, ascending; else none.
    """

    cost: str
    batch_size: int
    spent: float
    epoch: int | None
    best_spent: float
    rivals: tuple[int, ...]


@dataclass(frozen=True)
class Recommendation:
    """Which batch size to use.

    Attributes:
        status: ``recommended``, or ``cannot_tell`` where `reasons` is not empty.
        quantity: ``val_accuracy`` or ``val_loss``; that of the target, where trials end at one.
        margin: How far from the best still counts as equally good.
        epoch: At which they are compared; None where batch sizes end at different ones.
        best_batch_size: The one with the best mean; None where no batch size has a finite one, or
            trials end at a target.
        best_mean: Its mean; NaN where there is none.
        within_margin: Batch sizes whose mean is within the margin of the best and of which no
            trial diverged, ascending; where trials end at a target, those of which every trial reached it.
        choices: The cheapest of them by each cost that the history has. Where the status is
            ``cannot_tell`` they describe these data and are no advice.
        reasons: Why these data cannot tell, by the rules of `batchscope.analysis.recommendation` or
            `batchscope.analysis.target_recommendation`.
    """

    status: str
    quantity: str
    margin: float
    epoch: int | None
    best_batch_size: int | None
    best_mean: float
    within_margin: tuple[int, ...]
    choices: tuple[Choice, ...]
    reasons: tuple[Sentence, ...]


@dataclass(frozen=True)
class Analysis:
    """Everything that a history says.

    Attributes:
        facts: What was analysed, and with which settings.
        summary: By epoch, then batch size; where batch sizes end at different epochs, the rows of
            their ends come last.
        learning_rates: At which learning rates batch sizes were compared.
        targets: By stage, then batch size, for stages that end at a target.
        updates_to_target: One for each target that was asked for, over the trials of all learning rates.
        decomposition: What the observed gap is made of, where the history has probes.
        noise_scale: The gradient noise scale, where probes measured it.
        sharpness: How sharp the loss is around the weights, likewise.
        comparisons: By quantity (the metric, then the gap), then batch size.
        trend: The metric's, then the gap's where there is one.
        updates_share: One per stage, in the order of training.
        spread: At the end.
        throughput: How fast trials trained, and what memory they took.
        practical: What each batch size is good for, by batch size.
        exchangeability: One per stage, in the order of training.
        flags: By stage, then batch size, then replicate.
        recommendation: Which batch size to use, or why these data cannot tell.
        verdict: The most important sentence first.
        notes: What a reader must know to trust the figures: what was missing, left out or thin.
    """

    facts: StudyFacts
    summary: tuple[SummaryRow, ...]
    learning_rates: LearningRates
    targets: tuple[TargetRow, ...]
    updates_to_target: tuple[UpdatesToTarget, ...]
    decomposition: Decomposition
    noise_scale: NoiseScales
    sharpness: Sharpness
    comparisons: tuple[Comparison, ...]
    trend: tuple[Trend, ...]
    updates_share: tuple[UpdatesShare, ...]
    spread: Spread
    throughput: Throughput
    practical: tuple[PracticalRow, ...]
    exchangeability: tuple[Exchangeability, ...]
    flags: tuple[Flag, ...]
    recommendation: Recommendation
    verdict: tuple[Sentence, ...]
    notes: tuple[Sentence, ...]

    @property
    def to_goal(self) -> tuple[TargetRow, ...]:
        """What it took to get to the target at which trials end, by batch size; none without one."""
        return goal_rows(self.facts, self.targets)

    @property
    def final(self) -> tuple[SummaryRow, ...]:
        """The summary's rows at the ends, by batch size."""
        ends = {(end.batch_size, end.epoch) for end in self.facts.ends}
        return tuple(row for row in self.summary if (row.batch_size, row.epoch) in ends)
