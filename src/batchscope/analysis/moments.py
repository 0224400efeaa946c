"""Means over replicates and Student's t-intervals, with missing values left out and counted."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

from batchscope.analysis.estimates import Estimate
from batchscope.analysis.panel import Floats

__all__ = ["estimate", "mean_and_sd", "t_half_width", "t_quantile"]


def mean_and_sd(values: Floats, axis: int) -> tuple[Floats, Floats, Floats]:
    """Number, mean and standard deviation (n - 1) of the finite values along an axis.

    Returns:
        n, mean and sd as float64 arrays without that axis; mean is NaN where n is 0, sd where n
        is below 2.
    """
    finite = np.isfinite(values)
    n = finite.sum(axis=axis).astype(np.float64)
    mean = np.divide(
        np.where(finite, values, 0.0).sum(axis=axis), n, out=np.full(n.shape, np.nan), where=n > 0
    )
    deviations = np.where(finite, values - np.expand_dims(mean, axis), 0.0)
    squares = (deviations**2).sum(axis=axis)
    variance = np.divide(squares, n - 1, out=np.full(n.shape, np.nan), where=n > 1)
    return n, mean, np.sqrt(variance)


def t_quantile(n: Floats | float, confidence: float) -> Floats:
    """Two-sided quantile of Student's t with n - 1 degrees of freedom; NaN below n = 2."""
    count = np.asarray(n, dtype=np.float64)
    freedom = np.where(count > 1, count - 1, np.nan)
    return np.asarray(stdtrit(freedom, (1 + confidence) / 2), dtype=np.float64)


def t_half_width(n: Floats, sd: Floats, confidence: float) -> Floats:
    """Half the width of the t-interval of a mean of n values, sd / sqrt(n) times the quantile."""
    return t_quantile(n, confidence) * sd / np.sqrt(np.where(n > 1, n, np.nan))


def estimate(values: Floats, confidence: float) -> Estimate:
    """Mean, standard deviation and t-interval of the finite among the given values, (R,)."""
    n, mean, sd = mean_and_sd(values, axis=0)
    half = t_half_width(n, sd, confidence)
    return Estimate(int(n), float(mean), float(sd), float(mean - half), float(mean + half))
