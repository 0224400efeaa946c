"""Part five: which batch size to use, or why these data cannot tell."""

from __future__ import annotations

import numpy as np

from batchscope.analysis.comparisons import paired_t
from batchscope.analysis.doubts import ENOUGH_REPLICATES, learning_rate_doubts, one_batch_size
from batchscope.analysis.learning_rates import LearningRates
from batchscope.analysis.moments import mean_and_sd, t_half_width
from batchscope.analysis.panel import Floats, Panel, stage_view
from batchscope.analysis.results import Choice, Recommendation, Sentence
from batchscope.analysis.settings import Settings
from batchscope.analysis.standing import Standing, find_standing, settled, sign_of, spent_by, within_margin
from batchscope.analysis.words import batch_sizes, interval, number, quantity_name

__all__ = ["recommend"]

# Points of a straight line below which its slope says nothing about the end of a stage.
_SMALLEST_WINDOW = 3


def recommend(
    panel: Panel, quantity: str, settings: Settings, learning_rates: LearningRates
) -> Recommendation:
    """The cheapest batch size that ends within the margin of the best, by each cost.

    A batch size is eligible if it has a finite mean at the end and none of its trials
    diverged. Among those within the margin of the best final mean, each cost (updates, examples,
    seconds) picks the one that spent least up to the epoch from which on its mean stays within
    the margin; a tie goes to the better final mean, then to the smaller batch size. A cost that
    is NaN where it is needed picks none.

    These data cannot tell if any of these holds:

    - ``one_batch_size``: there is nothing to choose from;
    - ``no_finite_value``: no batch size is eligible;
    - ``too_few_replicates``: an eligible batch size shares fewer than `ENOUGH_REPLICATES` finite
      replicates with the best;
    - ``interval_wider_than_margin``: the paired t-interval of an eligible batch size's difference
      to the best reaches across the margin, so that both "as good" and "worse" are open;
    - those of `batchscope.analysis.doubts.learning_rate_doubts`;
    - ``still_rising``: see `_rising`.

    Args:
        panel: The whole history.
        quantity: ``val_accuracy`` or ``val_loss``.
        settings: Margin and confidence.
        learning_rates: How they came about; where that is unknown, it is no reason by itself.
    """
    standing = find_standing(panel, quantity)
    reasons = one_batch_size(panel)
    if standing is None:
        reasons.append(_no_finite_value(panel, quantity))
        return _recommendation(panel, quantity, settings, None, (), tuple(reasons))
    reasons += _replicates(panel, standing)
    reasons += _wide_intervals(panel, standing, quantity, settings)
    reasons += learning_rate_doubts(panel, standing.eligible, learning_rates)
    reasons += _rising(panel, standing, quantity, settings)
    choices = _choices(panel, standing, settings.margin)
    return _recommendation(panel, quantity, settings, standing, choices, tuple(reasons))


def _recommendation(
    panel: Panel,
    quantity: str,
    settings: Settings,
    standing: Standing | None,
    choices: tuple[Choice, ...],
    reasons: tuple[Sentence, ...],
) -> Recommendation:
    within = [] if standing is None else within_margin(standing, settings.margin)
    best_mean = (
        float("nan") if standing is None else sign_of(quantity) * float(standing.final_mean[standing.best])
    )
    return Recommendation(
        status="cannot_tell" if reasons else "recommended",
        quantity=quantity,
        margin=settings.margin,
        epoch=panel.end_epoch,
        best_batch_size=None if standing is None else int(panel.batch_sizes[standing.best]),
        best_mean=best_mean,
        within_margin=tuple(int(panel.batch_sizes[row]) for row in within),
        choices=choices,
        reasons=reasons,
    )


def _choices(panel: Panel, standing: Standing, margin: float) -> tuple[Choice, ...]:
    rows = within_margin(standing, margin)
    reached = settled(panel, standing, margin)
    choices = []
    for cost in panel.costs:
        spent = spent_by(panel, standing, cost, reached)
        if not np.isfinite(list(spent.values())).all():
            continue
        cheapest = min(rows, key=lambda row: (spent[row], -standing.final_mean[row], row))
        choices.append(
            Choice(
                cost=cost,
                batch_size=int(panel.batch_sizes[cheapest]),
                spent=spent[cheapest],
                epoch=int(panel.epochs[reached[cheapest]]),
                best_spent=spent[standing.best],
                rivals=(),
            )
        )
    return tuple(choices)


def _no_finite_value(panel: Panel, quantity: str) -> Sentence:
    where = "its end" if panel.end_epoch is None else f"epoch {panel.end_epoch}"
    text = (
        f"No batch size reaches {where} with a finite {quantity_name(quantity)} and without a diverged trial."
    )
    return Sentence("no_finite_value", text, (("epoch", panel.end_epoch),))


def _replicates(panel: Panel, standing: Standing) -> list[Sentence]:
    finite = np.isfinite(standing.final)
    shared = (finite & finite[standing.best]).sum(axis=1)
    few = np.flatnonzero(standing.eligible & (shared < ENOUGH_REPLICATES))
    if not len(few):
        return []
    least = int(shared[few].min())
    best = int(panel.batch_sizes[standing.best])
    text = (
        f"Too few replicates: at least {ENOUGH_REPLICATES} that a batch size shares with the best one "
        f"({best}) are needed, but batch size {batch_sizes(panel.batch_sizes[few].tolist())} "
        f"{'has' if len(few) == 1 else 'have'} as few as {least}."
    )
    figures = (("needed", ENOUGH_REPLICATES), ("fewest", least), ("best_batch_size", best))
    return [Sentence("too_few_replicates", text, figures)]


def _wide_intervals(panel: Panel, standing: Standing, quantity: str, settings: Settings) -> list[Sentence]:
    final = standing.final
    n, mean, low, high, _ = paired_t(final - final[standing.best], settings.confidence)
    others = standing.eligible & (n >= 2)
    others[standing.best] = False
    open_ = np.flatnonzero(others & (low < -settings.margin) & (high >= -settings.margin))
    if not len(open_):
        return []
    widest = int(open_[np.argmax(high[open_] - low[open_])])
    best, size = int(panel.batch_sizes[standing.best]), int(panel.batch_sizes[widest])
    sign = sign_of(quantity)
    lower, upper = sorted((sign * float(low[widest]), sign * float(high[widest])))
    text = (
        f"The data leave open whether batch size {batch_sizes(panel.batch_sizes[open_].tolist())} "
        f"{'is' if len(open_) == 1 else 'are'} within {settings.margin:g} of batch size {best} in "
        f"{quantity_name(quantity)}: the difference at batch size {size} is "
        f"{number(sign * float(mean[widest]))} ({interval(lower, upper, settings.confidence)})."
    )
    figures = (
        ("best_batch_size", best),
        ("batch_size", size),
        ("difference", sign * float(mean[widest])),
        ("low", lower),
        ("high", upper),
        ("margin", settings.margin),
    )
    return [Sentence("interval_wider_than_margin", text, figures)]


def _rising(panel: Panel, standing: Standing, quantity: str, settings: Settings) -> list[Sentence]:
    """Batch sizes whose metric is still getting better at the end.

    The least-squares slope of each replicate's metric over the last half of the last stage (at
    least three epochs; its own half, where trials have ends of their own) says what the next as many
    epochs would bring at this pace. A batch size is still rising if that gain, as a mean over
    replicates, is at least the margin and the t-interval of the mean lies above 0; with one
    replicate, no interval exists and it is not judged. Nor is a stage that ends at a target.
    """
    if panel.ends.budgets[-1] == "until":
        return []
    gains, windows = _gains(panel, quantity)
    n, mean, sd = mean_and_sd(gains, axis=1)
    low = mean - t_half_width(n, sd, settings.confidence)
    rising = np.flatnonzero(standing.eligible & (mean >= settings.margin) & (low > 0))
    if not len(rising):
        return []
    most = int(rising[np.argmax(mean[rising])])
    size, judged = int(panel.batch_sizes[most]), windows[most, np.isfinite(gains[most])]
    least, longest = int(judged.min()), int(judged.max())
    pace = (
        f"{longest} epochs at the pace of the last {longest}"
        if least == longest
        else f"{least} to {longest} epochs at the pace of the last as many"
    )
    name, sizes = quantity_name(quantity), batch_sizes(panel.batch_sizes[rising].tolist())
    text = (
        f"The {name} at batch size {sizes} is still getting better at the end: another {pace} would change "
        f"it by {number(sign_of(quantity) * float(mean[most]))} at batch size {size}."
    )
    figures = (
        ("batch_size", size),
        ("gain", float(mean[most])),
        ("low", float(low[most])),
        ("epochs", longest),
    )
    return [Sentence("still_rising", text, figures)]


def _gains(panel: Panel, quantity: str) -> tuple[Floats, Floats]:
    """Each trial's gain over as many more epochs as its window has, and its window, (B, R).

    The gain is NaN where the window is too short or lacks a finite figure.
    """
    view = stage_view(panel, len(panel.stages) - 1)
    score = sign_of(quantity) * view.metrics[quantity]
    gains, windows = (np.full(score.shape[:2], np.nan) for _ in range(2))
    for row, column in np.argwhere(view.last_half.sum(axis=2) >= _SMALLEST_WINDOW):
        inside = view.last_half[row, column]
        epochs = view.epochs[row, column, inside].astype(np.float64)
        centred = epochs - epochs.mean()
        slope = (score[row, column, inside] * centred).sum() / (centred**2).sum()
        windows[row, column] = epochs[-1] - epochs[0] + 1
        gains[row, column] = slope * windows[row, column]
    return gains, windows
