"""What the gradient noise scale is made of: the gradient's squared norm and its variance over examples.

McCandlish et al. 2018, "An Empirical Model of Large-Batch Training", arXiv 1812.06162, appendix A.1: of
the squared norms of gradients over b and over B examples,

    E |G_b|^2 = |G|^2 + tr(S) / b,    E |G_B|^2 = |G|^2 + tr(S) / B,

follow unbiased estimates of the true gradient's squared norm |G|^2 and of the trace of the covariance S
of single examples' gradients. Their ratio tr(S) / |G|^2 is the (simple) noise scale. It is biased even
where both are not, so it is taken last, of means (`batchscope.analysis.noise_scale`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchscope.training.derivatives import Derivatives
from batchscope.training.sources import Source

__all__ = ["GradientNoise", "estimate_noise", "measure_noise"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GradientNoise:
    """Both estimates, and how far they would scatter over other examples.

    Attributes:
        norm2: Of the true gradient's squared norm. It may be negative, as it is unbiased.
        trace: Of the trace of the covariance of single examples' gradients.
        norm2_error: Standard error of `norm2`, by the jackknife over batches.
        trace_error: Of `trace`, likewise.
        correlation: Of both errors, likewise; 0 where one of them is 0.
        batches: K, how many batches all this rests on.
    """

    norm2: float
    trace: float
    norm2_error: float
    trace_error: float
    correlation: float
    batches: int


def measure_noise(derivatives: Derivatives, source: Source, batch_size: int) -> GradientNoise:
    """Over as many whole batches as the examples fill, in two passes.

    The first pass gives the mean gradient, the second how far each batch's gradient goes along it, which
    the jackknife needs; all gradients at once would not fit into memory.

    Args:
        derivatives: Of the network in the mode of training.
        source: The examples, in random order. They are taken for independent draws.
        batch_size: b; at least `NOISE_BATCHES` batches must be full.
    """
    order = np.arange(len(source) - len(source) % batch_size)
    mean = derivatives.gradients(source, order, batch_size).gradient
    found = derivatives.gradients(source, order, batch_size, mean)
    return estimate_noise(found.norms2, found.along, batch_size)


def estimate_noise(norms2: Floats, along: Floats, batch_size: int) -> GradientNoise:
    """Both estimates from K batches of b examples, whose mean is the gradient over B = K b.

    Args:
        norms2: Squared norm of each batch's gradient; shape (K,), K at least 3.
        along: Product of each batch's gradient with the mean gradient; shape (K,).
        batch_size: b.
    """
    count = len(norms2)
    whole = along.mean()  # the mean of g_k . G is G . G
    norm2, trace = _pair(whole, norms2.mean(), count, batch_size)
    # Without batch k: the mean gradient is (K G - g_k) / (K - 1).
    without = (count**2 * whole - 2 * count * along + norms2) / (count - 1) ** 2
    smaller = (count * norms2.mean() - norms2) / (count - 1)
    left_out = np.stack(_pair(without, smaller, count - 1, batch_size))
    apart = left_out - left_out.mean(axis=1, keepdims=True)
    covariance = (count - 1) / count * apart @ apart.T
    errors = np.sqrt(np.diag(covariance))
    return GradientNoise(
        float(norm2),
        float(trace),
        norm2_error=float(errors[0]),
        trace_error=float(errors[1]),
        correlation=float(covariance[0, 1] / errors.prod()) if errors.all() else 0.0,
        batches=count,
    )


def _pair(large: Floats, small: Floats, count: int, batch_size: int) -> tuple[Floats, Floats]:
    """(|G|^2, tr S) from |G_B|^2 and the mean of |G_b|^2, with B = count * b."""
    of_whole = count * batch_size
    norm2 = (of_whole * large - batch_size * small) / (of_whole - batch_size)
    trace = (small - large) / (1 / batch_size - 1 / of_whole)
    return norm2, trace
