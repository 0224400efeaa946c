"""Part two: each batch size against the smallest, trend over batch sizes, spread of replicates."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtr

from batchscope.analysis.moments import mean_and_sd, t_half_width
from batchscope.analysis.panel import Floats, Panel
from batchscope.analysis.results import Comparison, Spread, SpreadRow, Trend

__all__ = ["compare_with_smallest", "holm", "page_trend", "paired_t", "replicate_spread", "spread_of_none"]

# What a larger batch size is expected to do, fixed before looking: Page's test is one-sided.
EXPECTED = {"val_accuracy": "decreasing", "val_loss": "increasing", "gap": "increasing"}
# Two replicates always lie equally far from their median: the test would have no scale.
_LEAST_FOR_SPREAD = 3


def paired_t(differences: Floats, confidence: float) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Student's paired t-test along the last axis, NaN left out.

    Returns:
        n, mean, low, high and two-sided p of the differences; the interval is NaN below n = 2, p
        also where all differences are equal (t is then 0/0 or infinite).
    """
    n, mean, sd = mean_and_sd(differences, axis=-1)
    half = t_half_width(n, sd, confidence)
    error = sd / np.sqrt(np.where(n > 1, n, np.nan))
    # Equal differences leave a rounding error for a standard deviation, not always 0.
    varies = error > 1e-12 * np.abs(mean)
    t = np.divide(mean, error, out=np.full(mean.shape, np.nan), where=varies)
    p = 2 * stdtr(np.where(n > 1, n - 1, np.nan), -np.abs(t))
    return n, mean, mean - half, mean + half, p


def holm(p: Floats) -> Floats:
    """Holm's step-down correction of p-values, (m,); NaN stays NaN and does not count.

    Holm (1979), A simple sequentially rejective multiple test procedure. statsmodels'
    `multipletests(method="holm")` gives the same figures (a test compares them), but its import
    takes longer than the whole analysis.
    """
    adjusted = np.full(p.shape, np.nan)
    order = np.argsort(p)[: int(np.isfinite(p).sum())]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted


def compare_with_smallest(panel: Panel, quantity: str, confidence: float) -> tuple[Comparison, ...]:
    """Paired comparisons at the end, one per batch size above the smallest.

    Holm's correction runs over the batch sizes of this quantity. Each interval is that of its own
    difference and is not corrected.
    """
    final = panel.final(quantity)
    n, mean, low, high, p = paired_t(final[1:] - final[:1], confidence)
    corrected = holm(p)
    return tuple(
        Comparison(
            quantity=quantity,
            epoch=panel.end_epoch,
            batch_size=int(batch_size),
            reference=int(panel.batch_sizes[0]),
            n_pairs=int(n[row]),
            difference=float(mean[row]),
            low=float(low[row]),
            high=float(high[row]),
            p=float(p[row]),
            p_holm=float(corrected[row]),
            reason=_no_test(int(n[row]), float(p[row])),
        )
        for row, batch_size in enumerate(panel.batch_sizes[1:])
    )


def _no_test(n_pairs: int, p: float) -> str | None:
    if n_pairs < 2:
        return (
            f"a paired comparison needs at least 2 replicates with finite values at both, but has {n_pairs}"
        )
    if np.isnan(p):
        return "the differences are the same in all replicates, so the t-test has no scale"
    return None


def page_trend(panel: Panel, quantity: str) -> Trend:
    """Page's L test over replicates at the end (`scipy.stats.page_trend_test`).

    Page (1963), Ordered hypotheses for multiple treatments. Exact below SciPy's limits on size,
    asymptotic above. With tied values the exact p rests on the distribution without ties.
    """
    final = panel.final(quantity)
    complete = np.isfinite(final).all(axis=0)
    n_replicates, n_sizes = int(complete.sum()), len(panel.batch_sizes)
    left_out = int(panel.recorded.any(axis=(0, 2)).sum()) - n_replicates
    direction = EXPECTED[quantity]
    reason = _no_trend(n_replicates, n_sizes)
    statistic, p, method = np.nan, np.nan, None
    if reason is None:
        from scipy.stats import page_trend_test

        values = final[:, complete].T
        result = page_trend_test(values if direction == "increasing" else -values)
        statistic, p, method = float(result.statistic), float(result.pvalue), str(result.method)
    return Trend(quantity, panel.end_epoch, direction, n_replicates, left_out, statistic, p, method, reason)


def _no_trend(n_replicates: int, n_sizes: int) -> str | None:
    if n_sizes < 3:
        return f"Page's test needs at least 3 batch sizes, but there are {n_sizes}"
    if n_replicates < 2:
        return (
            "Page's test needs at least 2 replicates with finite values at every batch size, "
            f"but there are {n_replicates}"
        )
    return None


def replicate_spread(panel: Panel, quantity: str) -> Spread:
    """Standard deviation between replicates at the end, and how it goes with batch size.

    Equality of the spreads is tested by Brown and Forsythe's test, that is Levene's about medians
    (`scipy.stats.levene`), which holds its level where figures are not normal. Batch
    sizes with fewer than 3 finite replicates take no part in the test.
    """
    final = panel.final(quantity)
    n, _, sd = mean_and_sd(final, axis=1)
    groups = [row[np.isfinite(row)] for row in final]
    slope = _slope_of_logs(panel.batch_sizes.astype(np.float64), sd)
    statistic, p, reason = _brown_forsythe([group for group in groups if len(group) >= _LEAST_FOR_SPREAD])
    return Spread(
        quantity=quantity,
        epoch=panel.end_epoch,
        rows=tuple(
            SpreadRow(int(size), int(count), float(deviation))
            for size, count, deviation in zip(panel.batch_sizes, n, sd, strict=True)
        ),
        factor_per_doubling=float(2**slope),
        statistic=statistic,
        p=p,
        reason=reason,
    )


def spread_of_none(quantity: str) -> Spread:
    """In the place of `replicate_spread` where trials end when this quantity reaches a target."""
    reason = "trials end at a target of it, which makes it alike"
    return Spread(quantity, None, (), float("nan"), float("nan"), float("nan"), reason)


def _slope_of_logs(batch_sizes: Floats, sd: Floats) -> float:
    """Least-squares slope of log2(sd) on log2(batch size); sd of 0 or NaN left out."""
    use = sd > 0
    if use.sum() < 2:
        return float("nan")
    x, y = np.log2(batch_sizes[use]), np.log2(sd[use])
    x = x - x.mean()
    return float((x * y).sum() / (x**2).sum())


def _brown_forsythe(groups: list[Floats]) -> tuple[float, float, str | None]:
    if len(groups) < 2:
        reason = (
            f"a comparison of spreads needs 2 batch sizes with at least {_LEAST_FOR_SPREAD} replicates, "
            f"but has {len(groups)}"
        )
        return float("nan"), float("nan"), reason
    if all(_equally_far(group) for group in groups):
        reason = "within each batch size all replicates lie equally far from their median"
        return float("nan"), float("nan"), reason
    from scipy.stats import levene

    result = levene(*groups, center="median")
    return float(result.statistic), float(result.pvalue), None


def _equally_far(group: Floats) -> bool:
    # Equal distances differ by a rounding error of the values that they were taken from.
    distances = np.abs(group - np.median(group))
    return bool(np.ptp(distances) <= 1e-12 * np.abs(group).max())
