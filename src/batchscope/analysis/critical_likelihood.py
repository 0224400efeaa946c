"""The likelihood of updates that lie in intervals about S = S_min + E_min / B, and its profiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import log_ndtr

from batchscope.analysis.panel import Bools, Floats

__all__ = [
    "Fit",
    "Offsets",
    "Parameter",
    "Profiled",
    "Spans",
    "deviance_of_means",
    "least_deviance",
    "profile",
    "profile_end",
]

Parameter = Literal["critical", "updates", "examples"]

# Of log updates: nothing is known more finely than to a thousandth, nor scatters by more than e^10.
_LOG_SD = (math.log(1e-3), math.log(10.0))
# How far beyond the batch sizes tried, as a factor, the first look for the critical one goes.
_BEYOND = 1e3
_LOOKS = 9
_LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)
# Of a profile's deviance, relative, and of its slope: where it meets a limit is only looked for to _END.
_DEVIANCE, _SLOPE = 1e-8, 1e-4
_END = 1e-3
# A profile that has not risen this far away in logarithms is open.
_FARTHEST = 30.0


@dataclass(frozen=True)
class Spans:
    """Between which updates each of n trials got to the target.

    Attributes:
        batch_sizes: (n,) examples per update.
        lower: (n,) updates after which it had not yet; 0 or more.
        upper: (n,) updates by which it had, above `lower`; infinite where it never did.
    """

    batch_sizes: Floats
    lower: Floats
    upper: Floats

    @cached_property
    def reached(self) -> Bools:
        """(n,), whether it got there."""
        return np.isfinite(self.upper)

    @cached_property
    def log_lower(self) -> Floats:
        """(n,), minus infinity where `lower` is 0."""
        with np.errstate(divide="ignore"):
            return np.log(self.lower)

    @cached_property
    def log_upper(self) -> Floats:
        """(n,), infinity where it never got there."""
        return np.log(self.upper)


@dataclass(frozen=True)
class Fit:
    """Parameters and how likely they are.

    Attributes:
        deviance: -2 times the log likelihood.
        log_updates: Logarithm of S_min.
        log_examples: Logarithm of E_min.
        log_sd: Logarithm of the standard deviation of log updates.
    """

    deviance: float
    log_updates: float
    log_examples: float
    log_sd: float

    @property
    def log_critical(self) -> float:
        """Logarithm of B_crit = E_min / S_min."""
        return self.log_examples - self.log_updates


@dataclass(frozen=True)
class Profiled:
    """The most likely parameters of a curve that has one of its own.

    Attributes:
        deviance: -2 times the log likelihood.
        free: The curve's own: a height of `Offsets`, else the logarithm of S_min or E_min, whichever is
            not held.
        log_sd: Logarithm of the standard deviation of log updates.
    """

    deviance: float
    free: float
    log_sd: float


class _Curve(Protocol):
    """A curve with one free parameter."""

    def __call__(self, free: float, /) -> tuple[Floats, Floats]:
        """(n,) means of log updates, and their derivatives by the parameter."""
        ...

    def start(self, spans: Spans, /) -> tuple[float, float]:
        """A parameter, and a logarithm of the spread, to look from."""
        ...


@dataclass(frozen=True)
class Offsets:
    """A curve whose shape is fixed: its height in log updates is the one free parameter.

    Attributes:
        values: (n,) what stands above the height.
    """

    values: Floats

    def __call__(self, height: float) -> tuple[Floats, Floats]:
        """The curve at a height."""
        return height + self.values, np.ones_like(self.values)

    def start(self, spans: Spans) -> tuple[float, float]:
        """Mean and spread of the trials that got there."""
        heights = (spans.log_upper - self.values)[spans.reached]
        return float(heights.mean()), math.log(max(float(heights.std()), 0.01))

    @classmethod
    def plateau(cls, spans: Spans) -> Offsets:
        """The limit of a small B_crit: all batch sizes take S_min updates."""
        return cls(np.zeros_like(spans.batch_sizes))

    @classmethod
    def perfect(cls, spans: Spans) -> Offsets:
        """The limit of a large B_crit: all take E_min examples."""
        return cls(-np.log(spans.batch_sizes))

    @classmethod
    def of(cls, spans: Spans, log_critical: float) -> Offsets:
        """S / S_min at one B_crit."""
        return cls(np.logaddexp(0.0, log_critical - np.log(spans.batch_sizes)))


@dataclass(frozen=True)
class _Held:
    """The curve with S_min or E_min held; the other one is the free parameter.

    Attributes:
        log_sizes: (n,) logarithms of batch sizes.
        name: Which is held.
        value: Its logarithm.
        fit: The most likely parameters of all curves.
    """

    log_sizes: Floats
    name: Parameter
    value: float
    fit: Fit

    def __call__(self, free: float) -> tuple[Floats, Floats]:
        """The curve where the logarithm of the other one is `free`."""
        updates, examples = (self.value, free) if self.name == "updates" else (free, self.value)
        mean = np.logaddexp(updates, examples - self.log_sizes)
        share = np.exp(updates - mean)
        return mean, 1 - share if self.name == "updates" else share

    def start(self, spans: Spans) -> tuple[float, float]:  # noqa: ARG002  # as `_Curve` has it
        """Those of `fit`."""
        return (self.fit.log_examples if self.name == "updates" else self.fit.log_updates), self.fit.log_sd


def least_deviance(spans: Spans) -> Fit:
    """The most likely parameters.

    B_crit is looked for on a grid first, from which S_min, E_min and the spread are then optimised together:
    where the data know no best B_crit, the likelihood has no maximum and the result lies far out.
    """
    sizes = np.log(spans.batch_sizes)
    looks = np.linspace(sizes.min() - math.log(_BEYOND), sizes.max() + math.log(_BEYOND), _LOOKS)
    found = []
    for look in looks:
        at = profile(spans, Offsets.of(spans, float(look)))
        found.append(Fit(at.deviance, at.free, at.free + float(look), at.log_sd))
    start = min(found, key=lambda fit: fit.deviance)

    def deviance(parameters: Floats) -> tuple[float, Floats]:
        mean = np.logaddexp(parameters[0], parameters[1] - sizes)
        share = np.exp(parameters[0] - mean)
        value, by_mean, by_sd = _deviance(spans, mean, parameters[2])
        return value, np.array([(by_mean * share).sum(), (by_mean * (1 - share)).sum(), by_sd])

    first = np.array([start.log_updates, start.log_examples, start.log_sd])
    best = minimize(
        deviance, first, jac=True, method="L-BFGS-B", bounds=[(None, None), (None, None), _LOG_SD], tol=1e-12
    )
    fit = Fit(float(best.fun), *(float(value) for value in best.x))
    return fit if fit.deviance <= start.deviance else start


def deviance_of_means(spans: Spans, fit: Fit) -> float:
    """The least deviance where each batch size has a mean of its own instead of the curve.

    Args:
        spans: The trials.
        fit: The most likely curve, which is looked from: it is one of these models, so that none is worse.
    """
    sizes, places = np.unique(spans.batch_sizes, return_inverse=True)

    def deviance(parameters: Floats) -> tuple[float, Floats]:
        value, by_mean, by_sd = _deviance(spans, parameters[:-1][places], parameters[-1])
        return value, np.append(np.bincount(places, weights=by_mean), by_sd)

    first = np.append(np.logaddexp(fit.log_updates, fit.log_examples - np.log(sizes)), fit.log_sd)
    bounds = [(None, None)] * len(sizes) + [_LOG_SD]
    best = minimize(deviance, first, jac=True, method="L-BFGS-B", bounds=bounds, tol=1e-12)
    return min(float(best.fun), fit.deviance)


def profile(spans: Spans, curve: _Curve) -> Profiled:
    """The most likely free parameter and spread of a curve."""

    def deviance(parameters: Floats) -> tuple[float, Floats]:
        mean, slope = curve(float(parameters[0]))
        value, by_mean, by_sd = _deviance(spans, mean, parameters[1])
        return value, np.array([(by_mean * slope).sum(), by_sd])

    first = np.array(curve.start(spans))
    best = minimize(
        deviance,
        first,
        jac=True,
        method="L-BFGS-B",
        bounds=[(None, None), _LOG_SD],
        options={"ftol": _DEVIANCE, "gtol": _SLOPE},
    )
    return Profiled(float(best.fun), float(best.x[0]), float(best.x[1]))


def profile_end(spans: Spans, fit: Fit, limit: float, name: Parameter, *, up: bool) -> float:
    """Where a parameter's profile rises above a limit.

    Args:
        spans: The trials.
        fit: The most likely parameters.
        limit: Rise of the deviance above that of `fit`.
        name: Which parameter.
        up: Above its most likely value, or below.

    Returns:
        The parameter there, not its logarithm; NaN where the profile stays below the limit.
    """
    best: float = getattr(fit, f"log_{name}")

    def above(value: float) -> float:
        return profile(spans, _held(spans, name, value, fit)).deviance - fit.deviance - limit

    step, inner = (0.25 if up else -0.25), best
    outer = best + step
    while above(outer) < 0:
        if abs(outer - best) > _FARTHEST:
            return math.nan
        step *= 2
        inner, outer = outer, outer + step
    return math.exp(brentq(above, inner, outer, xtol=_END))


def _held(spans: Spans, name: Parameter, value: float, fit: Fit) -> _Curve:
    """The curve of the one parameter that is left where another is held."""
    if name == "critical":
        return Offsets.of(spans, value)
    return _Held(np.log(spans.batch_sizes), name, value, fit)


def _deviance(spans: Spans, mean: Floats, log_sd: float) -> tuple[float, Floats, float]:
    """-2 log likelihood, and its derivatives by each trial's mean and by the logarithm of the spread.

    A trial's likelihood is the normal probability of log updates between the logarithms of its ends.
    """
    sd = math.exp(log_sd)
    low, high = (spans.log_lower - mean) / sd, (spans.log_upper - mean) / sd
    # The normal distribution is computed in its lower tail, where its logarithm is exact.
    mirrored = low > 0
    left, right = np.where(mirrored, -high, low), np.where(mirrored, -low, high)
    log_right = log_ndtr(right)
    log_mass = log_right + np.log1p(-np.exp(log_ndtr(left) - log_right))
    # Where an end is infinite its density is 0, and so is its product with the end.
    ends = np.stack([low, high])
    finite = np.isfinite(ends)
    ends = np.where(finite, ends, 0.0)
    densities = np.exp(np.where(finite, -0.5 * ends**2 - _LOG_ROOT_TWO_PI - log_mass, -np.inf))
    by_mean = 2 * (densities[1] - densities[0]) / sd
    by_sd = 2 * float((densities[1] * ends[1] - densities[0] * ends[0]).sum())
    return -2 * float(log_mass.sum()), by_mean, by_sd
