"""The gradient noise scale by batch size, from what probes measured of gradients.

McCandlish et al. 2018, arXiv 1812.06162: the (simple) noise scale is tr(S) / |G|^2, the trace of the
covariance of single examples' gradients over the squared norm of their mean. A ratio of unbiased
estimates is biased and may have no mean at all, so both are averaged over replicates first.

Two things make these means uncertain: runs differ, and so would other images. All replicates are measured on
the same images, so the second does not average out over them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from batchscope.analysis.moments import t_quantile
from batchscope.analysis.panel import Floats, Panel
from batchscope.analysis.probed import ProbedCell, probed_cells, stage_ends

__all__ = ["NoiseScaleRow", "NoiseScales", "RatioInterval", "fieller", "noise_scales", "ratio_interval"]

_NORM2, _TRACE = "probe_gradient_norm2", "probe_gradient_trace"
_BATCHES = "probe_gradient_batches"
_ERRORS = ("probe_gradient_norm2_error", "probe_gradient_trace_error", "probe_gradient_correlation")


@dataclass(frozen=True)
class NoiseScaleRow:
    """The noise scale of one batch size at one probed epoch.

    Attributes:
        epoch: Counted on through the stages.
        stage: That the epoch belongs to.
        batch_size: Examples per update.
        ends_stage: Whether this row stands for the end of its stage, see
            `batchscope.analysis.probed.probed_cells`.
        n: Trials that it rests on, at least 1.
        norm2: Mean over them of the estimates of the gradient's squared norm.
        trace: Likewise of the covariance's trace.
        noise_scale: trace / norm2, in examples; NaN where norm2 is not positive: the gradient then cannot be
            told from none.
        low: Lower end of Fieller's interval; NaN where there is none, as is its upper end.
        high: Its upper end; infinite where the data set none.
        unbounded: Whether the interval has no upper end.
        over: What the interval is over: ``replicates_and_batches``; ``replicates``, where the columns of
            the jackknife are not there for all of them; ``batches`` of the only replicate; None where there
            is none.
    """

    epoch: int
    stage: str
    batch_size: int
    ends_stage: bool
    n: int
    norm2: float
    trace: float
    noise_scale: float
    low: float
    high: float
    unbounded: bool
    over: str | None


@dataclass(frozen=True)
class NoiseScales:
    """The noise scale wherever it was measured.

    Attributes:
        rows: By epoch, then batch size: every probed epoch. Empty where it was not measured.
        reason: Why there are no rows; None where there are.
    """

    rows: tuple[NoiseScaleRow, ...]
    reason: str | None

    @property
    def ends(self) -> tuple[NoiseScaleRow, ...]:
        """The rows that stand for the end of a stage, by stage, then batch size."""
        return stage_ends(self.rows)


def noise_scales(panel: Panel, confidence: float) -> NoiseScales:
    """Ratios of means over replicates, with Fieller's intervals, at every probed epoch.

    Args:
        panel: The whole history.
        confidence: Coverage of the intervals.
    """
    missing = [name for name in (_NORM2, _TRACE) if name not in panel.probes]
    if missing:
        return NoiseScales((), f"the gradient noise scale needs the column {' and '.join(missing)}")
    complete = np.isfinite(panel.probes[_NORM2]) & np.isfinite(panel.probes[_TRACE])
    rows = tuple(_row(panel, cell, confidence) for cell in probed_cells(panel, complete))
    return NoiseScales(rows, None if rows else "no trial has finite figures of its gradients")


def fieller(means: tuple[float, float], covariance: Floats, quantile: float) -> tuple[float, float]:
    """Fieller's interval of a ratio of two means that are not below 0.

    All ratios r for which numerator - r denominator is within `quantile` standard errors of 0. Fieller
    1954, "Some Problems in Interval Estimation", J. R. Stat. Soc. B 16. Where the denominator is not told
    from 0, these have no upper end; where they fall into two pieces, the smallest interval that holds both
    is given.

    Args:
        means: Denominator and numerator.
        covariance: Of these two means, (2, 2), in that order.
        quantile: Of Student's t or the normal distribution.

    Returns:
        Both ends: at least 0, the upper one infinite where there is none. Of no ratio from 0 on: NaN.
    """
    (below, above), squared = means, quantile**2
    a = below**2 - squared * float(covariance[0, 0])
    b = below * above - squared * float(covariance[0, 1])
    c = above**2 - squared * float(covariance[1, 1])
    # All r with a r^2 - 2 b r + c <= 0.
    inner = b**2 - a * c
    if a > 0:
        low, high = ((b - math.sqrt(max(inner, 0.0))) / a, (b + math.sqrt(max(inner, 0.0))) / a)
        return (max(low, 0.0), high) if high >= 0 else (math.nan, math.nan)
    if c <= 0:  # ratios from 0 on as well as all large ones
        return 0.0, math.inf
    # With a <= 0 < c one root lies on each side of 0, and all beyond the positive one are in.
    positive = b + math.sqrt(inner)
    return c / positive if positive > 0 else 0.0, math.inf


@dataclass(frozen=True)
class RatioInterval:
    """Fieller's interval of a noise scale.

    Attributes:
        low: Lower end; NaN where there is none, as is its upper end.
        high: Upper end; infinite where the data set none.
        over: As in `NoiseScaleRow`.
    """

    low: float
    high: float
    over: str | None


def ratio_interval(
    pairs: Floats, jackknife: Floats | None, batches: float, confidence: float
) -> RatioInterval:
    """Of the ratio of two means over replicates that were all measured on the same batches.

    With C the covariance of the n pairs, J the mean of their jackknife covariances and t(m) the quantile of
    Student's t with m degrees of freedom, a ratio r counts as not rejected where the difference
    d = trace - r norm2 has

        d^2 <= t(n - 1)^2 Var(C / n, r) + t(K - 1)^2 Var(J, r).

    J is not divided by n, for the images are shared. Each part has the quantile of its own degrees of
    freedom: Banerjee 1960, "Approximate Confidence Interval for Linear Functions of Means of k Populations
    when the Population Variances are not Equal", Sankhya 22. For independent normal errors that covers at
    least as often as it says. It is conservative for a second reason: what the batches do to each replicate
    apart is in C as well.

    Args:
        pairs: `NoiseScaleRow.norm2` and `trace` of each replicate; shape (2, n).
        jackknife: Covariance of each replicate's pair over batches; shape (n, 2, 2); None where it is not
            known.
        batches: K, of each replicate.
        confidence: Coverage.
    """
    count = pairs.shape[1]
    parts, over = [], []
    if count > 1:
        parts.append(float(t_quantile(count, confidence)) ** 2 * np.cov(pairs) / count)
        over.append("replicates")
    if jackknife is not None:
        parts.append(float(t_quantile(batches, confidence)) ** 2 * jackknife.mean(axis=0))
        over.append("batches")
    if not parts:
        return RatioInterval(math.nan, math.nan, None)
    norm2, trace = pairs.mean(axis=1).tolist()
    # The quantiles are in the covariance already.
    low, high = fieller((norm2, trace), np.sum(parts, axis=0), 1.0)
    return RatioInterval(low, high, "_and_".join(over))


def _row(panel: Panel, cell: ProbedCell, confidence: float) -> NoiseScaleRow:
    pairs = np.stack([cell.of(panel.probes[_NORM2]), cell.of(panel.probes[_TRACE])])
    norm2, trace = pairs.mean(axis=1).tolist()
    known = all(name in panel.probes for name in (*_ERRORS, _BATCHES))
    jackknife = _jackknife(panel, cell) if known else None
    batches = float(cell.of(panel.probes[_BATCHES]).min()) if known else math.nan
    found = ratio_interval(pairs, jackknife if batches > 1 else None, batches, confidence)
    return NoiseScaleRow(
        epoch=cell.epoch,
        stage=cell.stage,
        batch_size=cell.batch_size,
        ends_stage=cell.ends_stage,
        n=pairs.shape[1],
        norm2=norm2,
        trace=trace,
        noise_scale=trace / norm2 if norm2 > 0 else math.nan,
        low=found.low,
        high=found.high,
        unbounded=math.isinf(found.high),
        over=found.over,
    )


def _jackknife(panel: Panel, cell: ProbedCell) -> Floats | None:
    """Covariance of each replicate's pair over batches, (n, 2, 2); None unless all of them tell it."""
    norm2, trace, correlation = (cell.of(panel.probes[name]) for name in _ERRORS)
    both = correlation * norm2 * trace
    if not np.isfinite(both).all():
        return None
    return np.stack([np.stack([norm2**2, both]), np.stack([both, trace**2])]).transpose(2, 0, 1)
