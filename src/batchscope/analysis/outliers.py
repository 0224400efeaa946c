"""Outliers in a one-way layout by a generalized extreme studentized deviate procedure.

Rosner (1983), Percentage points for a generalized ESD many-outlier procedure, removes the most
deviating value step by step and takes as outliers all up to the last step that exceeds its
threshold, so that two outliers cannot hide each other. Here the values fall into groups with a
mean each; the deviate is the externally studentised residual of the one-way layout (Cook and
Weisberg, 1982, section 2.2), which has Student's t distribution, and its threshold is that of the
largest of N by Bonferroni's inequality.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from batchscope.analysis.panel import Bools, Floats

__all__ = ["Outlier", "find_outliers"]

# Standard deviations below this are rounding of printed figures, not a spread to judge by.
_SMALLEST_SD = 1e-6
# Powers of two by which the spread may change when the group's size variable doubles.
_EXPONENTS = np.linspace(-2, 2, 81)


@dataclass(frozen=True)
class Outlier:
    """A value that stands out.

    Attributes:
        group: Row of the value.
        member: Column of the value.
        score: Externally studentised residual against all values that do not stand out.
        threshold: Above which it stands out.
    """

    group: int
    member: int
    score: float
    threshold: float


def find_outliers(values: Floats, log_size: Floats, level: float) -> tuple[Outlier, ...]:
    """Values that do not fit the others of their group.

    With three values a group little is known of a group's own spread, so it is pooled over
    groups. A value must stand out under both of two models, as the spread may or may not depend
    on the group's size variable: (1) one spread for all groups; (2) a spread that is a power of
    the size variable, the power fitted by restricted maximum likelihood among [-2, 2]. Under the
    first the chance of any outlier among alike normal values is at most about `level`; the
    second keeps groups with a naturally larger spread from being taken for outliers.

    At most (n - 1) // 2 values of a group of n can stand out: a majority defines what is usual.

    Args:
        values: (G, R), NaN where a group has fewer than R; groups with fewer than 3 finite values
            take no part.
        log_size: (G,) base-2 logarithm of each group's size variable.
        level: Chance of any outlier among alike values.

    Returns:
        By group, then member.
    """
    use = np.isfinite(values)
    use &= (use.sum(axis=1) >= 3)[:, None]
    if not use.any():
        return ()
    rows = use.any(axis=1)
    kept, alive, size = values[rows], use[rows], log_size[rows]
    common = _extremes(kept, alive, None, level)
    candidates = common & _extremes(kept, alive, size, level) if common and rows.sum() > 1 else common
    outlying = np.zeros(alive.shape, dtype=np.bool_)
    for member in candidates:
        outlying[member] = True
    original = np.flatnonzero(rows)
    return tuple(
        Outlier(int(original[group]), int(member), score, threshold)
        for group, member in np.argwhere(outlying)
        for score, threshold in [_score(kept, alive, outlying, (int(group), int(member)), level)]
        if score > threshold
    )


def _extremes(values: Floats, use: Bools, log_size: Floats | None, level: float) -> set[tuple[int, int]]:
    """Generalized ESD: members removed up to the last step that exceeds its threshold."""
    alive = use.copy()
    left = (use.sum(axis=1) - 1) // 2
    removed: list[tuple[int, int]] = []
    count = 0
    for _ in range(int(left.sum())):
        n = alive.sum(axis=1)
        freedom = int(n.sum()) - len(n) - (log_size is not None) - 1
        if freedom < 1:
            break
        member = _most_deviating(values, alive, left > 0, log_size)
        alive[member] = False
        score = _studentised(values, alive, member, log_size, freedom)
        removed.append(member)
        left[member[0]] -= 1
        if score > _threshold(int(n.sum()), freedom, level):
            count = len(removed)
    return set(removed[:count])


def _most_deviating(values: Floats, alive: Bools, allowed: Bools, log_size: Floats | None) -> tuple[int, int]:
    n, deviations = _residuals(values, alive)
    scale = _relative_scale((deviations**2).sum(axis=1), n, log_size)
    squares = deviations**2 / (scale**2 * (1 - 1 / n))[:, None]
    position = np.where(alive & allowed[:, None], squares, -1.0).argmax()
    group, member = np.unravel_index(position, values.shape)
    return int(group), int(member)


def _studentised(
    values: Floats, others: Bools, member: tuple[int, int], log_size: Floats | None, freedom: int
) -> float:
    """Distance of a member from the others of its group, in its own standard errors."""
    n, deviations = _residuals(values, others)
    squares = (deviations**2).sum(axis=1)
    scale = _relative_scale(squares, n, log_size)
    sd = max(float(np.sqrt((squares / scale**2).sum() / freedom)), _SMALLEST_SD)
    group = member[0]
    mean = values[group][others[group]].mean()
    error = sd * scale[group] * np.sqrt(1 + 1 / n[group])
    return float(abs(values[member] - mean) / error)


def _score(
    values: Floats, use: Bools, outlying: Bools, member: tuple[int, int], level: float
) -> tuple[float, float]:
    usual = use & ~outlying
    freedom = int(usual.sum()) - len(usual)
    return _studentised(values, usual, member, None, freedom), _threshold(int(use.sum()), freedom, level)


def _residuals(values: Floats, alive: Bools) -> tuple[Floats, Floats]:
    n = alive.sum(axis=1).astype(np.float64)
    mean = np.where(alive, values, 0.0).sum(axis=1) / n
    return n, np.where(alive, values - mean[:, None], 0.0)


def _relative_scale(squares: Floats, n: Floats, log_size: Floats | None) -> Floats:
    """Relative spread of each group: 1, or 2^(g log_size) with g of largest restricted likelihood.

    With S_b the sum of squares and v_b = n_b - 1 the degrees of freedom of group b, the profile
    of -2 log likelihood over g is v log(sum_b S_b 4^(-g x_b)) + 2 g log(2) sum_b v_b x_b.
    """
    if log_size is None or not squares.any():
        return np.ones(len(n))
    size = log_size - log_size.mean()
    freedom = n - 1
    weighted = (squares * 4.0 ** (-_EXPONENTS[:, None] * size)).sum(axis=1)
    profile = freedom.sum() * np.log(weighted) + 2 * _EXPONENTS * np.log(2) * (freedom * size).sum()
    scale: Floats = 2.0 ** (_EXPONENTS[profile.argmin()] * size)
    return scale


def _threshold(n: int, freedom: int, level: float) -> float:
    return float(stdtrit(freedom, 1 - level / (2 * n)))
