"""What it took each trial and batch size to get to a target, as frozen dataclasses.

These targets are asked for and end nothing; what a stage that ends at its target took stands in
`batchscope.analysis.targets`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "Bounded",
    "CriticalBatchSize",
    "Median",
    "Outcome",
    "PerfectScaling",
    "RateToTarget",
    "TrialToTarget",
    "UpdatesToTarget",
]

Outcome = Literal["reached", "censored", "diverged"]


@dataclass(frozen=True)
class TrialToTarget:
    """One trial and the target.

    Attributes:
        batch_size: Examples per update.
        learning_rate: That it tries, of several; None where its batch size has one.
        replicate: The bundle of seeds.
        trial: Its name.
        outcome: ``reached``; ``censored``, where it has ended, or not gone on so far, without; or
            ``diverged`` without.
        updates: At the first measurement that is as good as the target; where none is, the last updates
            that the trial has.
        updates_before: At the measurement before that one, 0 where it is the first. The target was
            reached after these and not after `updates`.
        examples: At the same place as `updates`; None without the column, as below.
        seconds: Of training.
    """

    batch_size: int
    learning_rate: float | None
    replicate: int
    trial: str
    outcome: Outcome
    updates: float
    updates_before: float
    examples: float | None
    seconds: float | None

    @property
    def resolution(self) -> float:
        """Updates between the measurement before and the one that reached the target."""
        return self.updates - self.updates_before


@dataclass(frozen=True)
class Median:
    """Over trials, some of which may not have got there, because they ended or have not gone on so far.

    Attributes:
        value: Where the share of trials that have not got there falls below one half, by the estimate of
            Kaplan and Meier 1958, in which a censored trial counts as long as it was seen, and a diverged one
            never gets there; where the share is one half for a while, the middle of that. Without trials that
            are censored early it is the plain median with all of these last. NaN where the share does not
            fall so far.
        low: Lower end of the interval of the median between two order statistics, symmetric in rank: the
            narrowest that covers it as often as asked, else the whole range. Censored trials count at
            their last figures here, the soonest that they can be. NaN below two trials, or where the trial of
            that rank diverged.
        high: Upper end, likewise, but with those that have not got there as later than all others; NaN
            below two trials, or where the trial of that rank is one of them.
        coverage: How often such an interval covers the median of very many trials, at least, 1 - 2 P(X < k)
            for the k-th smallest and k-th largest of n, X binomial with n and one half (David and Nagaraja
            2003, section 7.1). NaN below two trials.
        more_than: Where `value` is NaN, a bound that the median lies above: the median with each censored
            trial at its last figure. NaN where there is a value, or half of the trials or more diverged.
    """

    value: float
    low: float
    high: float
    coverage: float
    more_than: float


@dataclass(frozen=True)
class RateToTarget:
    """One learning rate at one batch size.

    Attributes:
        batch_size: Examples per update.
        learning_rate: None where the batch size has one.
        n_trials: n_reached + n_censored + n_diverged.
        n_reached: Trials that reached the target.
        n_censored: Trials that ended, or have not gone on so far, without.
        n_diverged: Trials that diverged without.
        updates: Of the first measurement that is as good as the target.
        examples: At the same measurement; None without the column, as below.
        seconds: Of training.
        resolution: Median over the trials that reached it of the updates since the measurement before; NaN
            where there is none.
        best: Whether the batch size stands at this learning rate, see
            `batchscope.analysis.to_target_choice.with_best`: the least median of updates over the replicates
            that all of its learning rates share; of the target at which trials end, of those with the fewest
            trials that missed it.
        at_edge: Whether it is, has a median, and is the smallest or largest of several that were tried, none
            between these being as good.
        passed_over: Whether it would be by the least median alone, had not more of its trials missed the
            target at which trials end.
        efficiency: Of the best: the examples that the smallest batch size's median implies, updates times
            batch size, as a share of the same here; 1 is perfect scaling. NaN for others, and without
            a median.
    """

    batch_size: int
    learning_rate: float | None
    n_trials: int
    n_reached: int
    n_censored: int
    n_diverged: int
    updates: Median
    examples: Median | None
    seconds: Median | None
    resolution: float
    best: bool
    at_edge: bool
    passed_over: bool
    efficiency: float

    def spent(self, cost: str) -> Median | None:
        """What it took in ``updates``, ``examples`` or ``seconds``."""
        found: Median | None = getattr(self, cost)
        return found


@dataclass(frozen=True)
class PerfectScaling:
    """The line of updates in inverse proportion to batch size, and where it is known that updates leave it.

    Attributes:
        batch_size: The smallest that has a median; the line goes through it. None where none has.
        updates: Its median; NaN likewise.
        tolerance: By how much of the line's updates others may lie above it.
        up_to: The largest batch size up to which all that were tried beyond the first are known to keep
            within the tolerance: the interval of their ratio to the first lies wholly below it, see
            `batchscope.analysis.to_target_scaling`. None where the next one is not known to.
        leaves_at: The smallest whose interval lies wholly above; None where there is none.
    """

    batch_size: int | None
    updates: float
    tolerance: float
    up_to: int | None
    leaves_at: int | None


@dataclass(frozen=True)
class Bounded:
    """An estimate with its profile-likelihood interval.

    Attributes:
        value: NaN where it is not determined.
        low: Lower end; NaN where the profile is open there.
        high: Upper end, likewise.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CriticalBatchSize:
    """The curve S = S_min (1 + B_crit / B) through single trials, see `batchscope.analysis.critical`.

    Attributes:
        status: ``determined`` or ``not_determined``.
        reason: Why it is not; else None.
        n_trials: That the fit rests on, all at their batch size's best learning rate.
        n_censored: Of these, how many did not reach the target.
        n_diverged: Trials at these learning rates that diverged; they are left out.
        batch_size: B_crit, at which training takes twice `updates_min` and twice `examples_min`. One end may
            be known where the value is not.
        updates_min: S_min, which ever larger batch sizes get to.
        examples_min: E_min = S_min B_crit, which ever smaller batch sizes get to.
        sd_log: Standard deviation of the natural logarithm of updates about the curve: the most likely times
            sqrt(n / (n - 2)), n trials having reached the target; NaN where not determined, as all below.
        r_squared: Share of the variance of log updates that the curve explains, at the batch sizes all of
            whose trials reached the target; NaN also where these are fewer than three.
        lack_of_fit_f: F of the curve against a mean of its own at each of these batch sizes, by likelihood.
            NaN also where none of them has several trials.
        lack_of_fit_p: Of that test. Where it is small, batch sizes differ from the curve by more than
            scatter and measurements account for, and the intervals, which take trials as independent, are
            too narrow.
        extrapolated: Whether `batch_size` lies outside the batch sizes at which a trial reached the target.
    """

    status: Literal["determined", "not_determined"]
    reason: str | None
    n_trials: int
    n_censored: int
    n_diverged: int
    batch_size: Bounded
    updates_min: Bounded
    examples_min: Bounded
    sd_log: float
    r_squared: float
    lack_of_fit_f: float
    lack_of_fit_p: float
    extrapolated: bool


@dataclass(frozen=True)
class UpdatesToTarget:
    """One target.

    Attributes:
        metric: ``val_accuracy``, at least `value`, or ``val_loss``, at most.
        value: The target.
        reason: Why there are no trials below: a column that is missing; else None.
        trials: By batch size, learning rate and replicate.
        rates: By batch size, then learning rate.
        scaling: None where there are no trials.
        critical: None likewise.
    """

    metric: str
    value: float
    reason: str | None
    trials: tuple[TrialToTarget, ...]
    rates: tuple[RateToTarget, ...]
    scaling: PerfectScaling | None
    critical: CriticalBatchSize | None

    @property
    def best(self) -> tuple[RateToTarget, ...]:
        """Each batch size at its best learning rate, ascending."""
        return tuple(row for row in self.rates if row.best)

    @property
    def several_rates(self) -> bool:
        """Whether any batch size was tried at more than one learning rate."""
        return len(self.rates) > len(self.best)

    @property
    def best_trials(self) -> tuple[TrialToTarget, ...]:
        """The trials of `best`."""
        best = {row.batch_size: row.learning_rate for row in self.best}
        return tuple(trial for trial in self.trials if trial.learning_rate == best[trial.batch_size])
