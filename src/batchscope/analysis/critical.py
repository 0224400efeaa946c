"""The critical batch size, fitted to the updates that single trials take to a target.

McCandlish et al. 2018 (An empirical model of large-batch training, arXiv 1812.06162, section 2.3) relate
updates S and examples E of runs that get to the same target by S / S_min - 1 = (E / E_min - 1)^-1 and define
B_crit = E_min / S_min. With E = B S that is S = S_min (1 + B_crit / B) = S_min + E_min / B.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import fdtrc, fdtri

from batchscope.analysis.critical_likelihood import (
    Offsets,
    Spans,
    deviance_of_means,
    least_deviance,
    profile,
    profile_end,
)
from batchscope.analysis.to_target_results import Bounded, CriticalBatchSize, TrialToTarget

__all__ = ["fit_critical"]

_UNKNOWN = Bounded(math.nan, math.nan, math.nan)
_FEWEST_BATCH_SIZES = 3
# Of the mean curve: S_min and B_crit.
_PARAMETERS = 2


@dataclass(frozen=True)
class _GoodnessOfFit:
    """How well the curve goes through the updates, see `CriticalBatchSize`."""

    r_squared: float = math.nan
    f: float = math.nan
    p: float = math.nan


def fit_critical(trials: Sequence[TrialToTarget], confidence: float) -> CriticalBatchSize:
    """Fits S = S_min (1 + B_crit / B) by maximum likelihood.

    Log updates scatter normally about the curve with one standard deviation. A trial that reached the target
    counts by its probability of doing so between the measurement before and that one, a censored one by that
    of being later than its last updates; diverged ones are left out. Intervals are those of the profile
    likelihood; a value is in them where 2 (l_max - l) <= n log(1 + F / (n - 2)), with n the trials that
    reached the target and F the quantile of the F distribution with 1 and n - 2 degrees of freedom. Without
    censoring that is the F interval of nonlinear regression (Bates and Watts 1988, section 6.1), where the
    quantile of chi-square would be too narrow for few trials. Simplified: trials are taken as independent.
    What all trials of a batch size have in common beside the curve, or all of a replicate by its seeds, is
    not in the intervals, which are too narrow then; the first shows as lack of fit.

    Args:
        trials: Of each batch size at its best learning rate.
        confidence: Of the intervals.
    """
    used = [trial for trial in trials if trial.outcome != "diverged"]
    reached = [trial for trial in used if trial.outcome == "reached"]
    n_sizes = len({trial.batch_size for trial in reached})

    def result(
        reason: str | None, estimates: Sequence[Bounded] = (_UNKNOWN,) * 3, sd_log: float = math.nan
    ) -> CriticalBatchSize:
        fits = _goodness_of_fit(used) if reason is None else _GoodnessOfFit()
        sizes = [trial.batch_size for trial in reached]
        return CriticalBatchSize(
            status="determined" if reason is None else "not_determined",
            reason=reason,
            n_trials=len(used),
            n_censored=len(used) - len(reached),
            n_diverged=len(trials) - len(used),
            batch_size=estimates[0],
            updates_min=estimates[1],
            examples_min=estimates[2],
            sd_log=sd_log,
            r_squared=fits.r_squared,
            lack_of_fit_f=fits.f,
            lack_of_fit_p=fits.p,
            extrapolated=reason is None and not min(sizes) <= estimates[0].value <= max(sizes),
        )

    if n_sizes < _FEWEST_BATCH_SIZES:
        return result(
            f"it needs at least {_FEWEST_BATCH_SIZES} batch sizes at which a trial reached the target, but "
            f"there {'is' if n_sizes == 1 else 'are'} {n_sizes or 'none'}"
        )
    if any(trial.updates <= 0 for trial in used):
        return result("a trial was measured before its first update alone, or had reached the target by then")
    if all(trial.outcome == "reached" and trial.updates_before == 0 for trial in used):
        return result(
            "every trial had reached the target by its first measurement; set validations_per_epoch, or a "
            "harder target"
        )
    spans = _spans(used)
    limit = _limit(len(reached), confidence)
    fit = least_deviance(spans)
    plateau = profile(spans, Offsets.plateau(spans)).deviance - fit.deviance
    perfect = profile(spans, Offsets.perfect(spans)).deviance - fit.deviance
    open_below, open_above = plateau <= limit, perfect <= limit
    low = math.nan if open_below else profile_end(spans, fit, limit, "critical", up=False)
    high = math.nan if open_above else profile_end(spans, fit, limit, "critical", up=True)
    if math.isnan(low) or math.isnan(high):
        reason = _why_open(below=math.isnan(low), above=math.isnan(high))
        return result(reason, (Bounded(math.nan, low, high), _UNKNOWN, _UNKNOWN))
    updates, examples = (
        Bounded(
            math.exp(getattr(fit, f"log_{name}")),
            profile_end(spans, fit, limit, name, up=False),
            profile_end(spans, fit, limit, name, up=True),
        )
        for name in ("updates", "examples")
    )
    critical = Bounded(math.exp(fit.log_critical), low, high)
    n = len(reached)
    sd_log = math.exp(fit.log_sd) * math.sqrt(n / (n - _PARAMETERS))
    return result(None, (critical, updates, examples), sd_log)


def _spans(trials: Sequence[TrialToTarget]) -> Spans:
    """Between which updates each trial got to the target, above the last ones where it did not."""
    reached = np.array([trial.outcome == "reached" for trial in trials])
    updates = np.array([trial.updates for trial in trials])
    before = np.array([trial.updates_before for trial in trials])
    return Spans(
        batch_sizes=np.array([trial.batch_size for trial in trials], dtype=np.float64),
        lower=np.where(reached, before, updates),
        upper=np.where(reached, updates, np.inf),
    )


def _limit(n: int, confidence: float) -> float:
    """The largest 2 (l_max - l) of a value in the interval, from n trials that reached the target."""
    freedom = n - _PARAMETERS
    return n * math.log1p(float(fdtri(1, freedom, confidence)) / freedom)


def _why_open(*, below: bool, above: bool) -> str:
    if below and above:
        return (
            "the trials are too few, or scatter too much, to tell a curve that goes on in perfect scaling "
            "from one that is flat"
        )
    if below:
        return (
            "updates to the target do not fall measurably with batch size: all batch sizes are on the "
            "plateau, where a larger one saves nothing"
        )
    return "no batch size is measurably beyond perfect scaling; larger ones would tell"


def _goodness_of_fit(trials: Sequence[TrialToTarget]) -> _GoodnessOfFit:
    """Of the curve through the batch sizes all of whose trials reached the target.

    Lack of fit is how much likelier the trials are where each batch size has a mean of its own. From n trials
    at k batch sizes F = (exp(D / n) - 1) (n - k) / (k - 2), with D the difference of both deviances. Where
    measurements are fine that is the F test of lack of fit against pure error (Draper and Smith 1998, section
    2.1). Where they are coarse it heeds, as that does not, that all trials of a batch size were rounded up to
    the same measurements. For the share that is explained a trial counts in the middle between two of these.
    """
    censored = {trial.batch_size for trial in trials if trial.outcome == "censored"}
    whole = [trial for trial in trials if trial.batch_size not in censored]
    groups = len({trial.batch_size for trial in whole})
    if groups < _FEWEST_BATCH_SIZES:
        return _GoodnessOfFit()
    spans = _spans(whole)
    fit = least_deviance(spans)
    logs = np.log((spans.lower + spans.upper) / 2)
    curve = np.logaddexp(fit.log_updates, fit.log_examples - np.log(spans.batch_sizes))
    about_curve, about_mean = float(((logs - curve) ** 2).sum()), float(((logs - logs.mean()) ** 2).sum())
    r_squared = 1 - about_curve / about_mean if about_mean > 0 else math.nan
    lack, error = groups - _PARAMETERS, len(whole) - groups
    if error == 0:
        return _GoodnessOfFit(r_squared)
    gained = fit.deviance - deviance_of_means(spans, fit)
    f = math.expm1(gained / len(whole)) * error / lack
    return _GoodnessOfFit(r_squared, f, float(fdtrc(lack, error, f)))
