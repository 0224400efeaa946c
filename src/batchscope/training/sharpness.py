"""How sharp the loss is around the weights: its largest curvature, and its maximum in a small box."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, minimize
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

__all__ = ["BOX", "ITERATIONS", "box_sharpness", "top_eigenvalue"]

Vector = NDArray[np.float64]

BOX = 1e-3
"""Keskar's epsilon: the larger of the two in the paper."""
ITERATIONS = 10
"""Of L-BFGS-B, as in the paper."""

_BASIS = 12
_RESTARTS = 20
_TOLERANCE = 1e-4
_CORRECTIONS = 5
# Where the start of the search lies, in half-widths of the box: at a stationary point itself no gradient
# would lead away.
_OFF_CENTRE = 0.01
_STEEPNESS = 100


def top_eigenvalue(product: Callable[[Vector], Vector], size: int) -> float:
    """The largest eigenvalue (not the largest by magnitude) of a symmetric matrix.

    ARPACK's restarted Lanczos iteration to a relative tolerance of 1e-4, from the same random vector each
    time; some 12 to 150 products.

    Args:
        product: The matrix times a vector of shape (size,).
        size: Of the matrix.

    Returns:
        NaN where it has not converged, or where a product is not finite.
    """
    if size == 1:  # which ARPACK does not take
        return float(product(np.ones(1))[0])
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(size)
    try:
        found = eigsh(
            operator,
            k=1,
            which="LA",
            v0=start,
            ncv=min(_BASIS, size),
            maxiter=_RESTARTS,
            tol=_TOLERANCE,
            return_eigenvectors=False,
        )
    except ArpackError:  # not converged, or built from products that are not finite
        return float("nan")
    return float(found[0])


def box_sharpness(loss_and_gradient: Callable[[Vector], tuple[float, Vector]], weights: Vector) -> float:
    """How far the loss can rise in a small box around the weights, in percent of 1 + loss.

    Keskar et al. 2016, "On Large-Batch Training for Deep Learning: Generalization Gap and Sharp Minima",
    arXiv 1609.04836, metric 2.1 in the full space:

        100 (max_z f(x + z) - f(x)) / (1 + f(x)),    |z_i| <= epsilon (|x_i| + 1),

    with epsilon = 1e-3 and the maximum by 10 iterations of L-BFGS-B, as there. It is a lower bound of the
    measure, for so few iterations may not find the maximum. What the paper leaves open: coordinates are in
    half-widths of the box; the loss is scaled so that its gradient has a mean magnitude of 100 at the start
    and the first step goes to the box's faces; the start is a fixed random point within 1% of the box from
    its middle.

    Args:
        loss_and_gradient: f and its gradient, shape (P,), at weights of that shape.
        weights: x, shape (P,).

    Returns:
        At least 0; NaN where the loss is not finite.
    """
    widths = BOX * (np.abs(weights) + 1)
    middle, _ = loss_and_gradient(weights)
    start = _OFF_CENTRE * np.random.default_rng(0).uniform(-1, 1, len(weights))
    scale = np.abs(loss_and_gradient(weights + widths * start)[1] * widths).mean()
    if not (np.isfinite(middle) and np.isfinite(scale)):
        return float("nan")
    scale /= _STEEPNESS
    if scale == 0:  # the loss is flat
        return 0.0

    def fallen(point: Vector) -> tuple[float, Vector]:
        loss, gradient = loss_and_gradient(weights + widths * point)
        return (middle - loss) / scale, -gradient * widths / scale

    found = minimize(
        fallen,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(np.full(len(weights), -1.0), np.full(len(weights), 1.0)),
        options={"maxiter": ITERATIONS, "maxcor": _CORRECTIONS},
    )
    return float(100 * max(-found.fun * scale, 0.0) / (1 + middle))
