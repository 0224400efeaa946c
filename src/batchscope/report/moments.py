"""Where batch sizes are compared in a figure: at one epoch, or each at its own end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from batchscope.analysis.results import StudyFacts
from batchscope.report.curves import last_common_epoch

__all__ = ["Moment", "end_moment", "late_moments"]


@dataclass(frozen=True)
class Moment:
    """A point of the training.

    Attributes:
        epochs: By batch size.
        when: In words, for example ``epoch 20`` or ``each batch size's end, 5,000 updates``.
        own_ends: Whether it is each trial's own last epoch, of which `epochs` are the latest.
    """

    epochs: Mapping[int, int]
    when: str
    own_ends: bool = False

    def of(self, points: pd.DataFrame) -> pd.DataFrame:
        """The rows at this moment of a table with columns ``batch_size``, ``replicate`` and ``epoch``.

        Where trials have ends of their own, their rows bear the latest of their batch size. Simplified:
        trials that are not finished count with their last epoch.
        """
        if self.own_ends:
            last = points.groupby(["batch_size", "replicate"])["epoch"].transform("max")
            there = points[points["epoch"] == last]
            return there.assign(epoch=there["batch_size"].map(self.epochs))
        return points[points["epoch"] == points["batch_size"].map(self.epochs)]


def end_moment(history: pd.DataFrame, facts: StudyFacts | None) -> Moment:
    """Where figures of the history compare batch sizes.

    Args:
        history: In standard form, see `batchscope.history.check_history`.
        facts: Of the history's analysis; None where there is none.

    Returns:
        Each batch size's own end where the analysis found different ones; else the last epoch that
        every batch size has reached.
    """
    if facts is not None and facts.end_epoch is None:
        epochs = {end.batch_size: end.epoch for end in facts.ends}
        return Moment(epochs, facts.when_short, own_ends=facts.own_ends)
    return _at(history, last_common_epoch(history))


def late_moments(history: pd.DataFrame, facts: StudyFacts | None) -> tuple[Moment, ...]:
    """The first epoch recorded from three quarters of the way on, and the end.

    The end alone if they are the same, or if trials have ends of their own.
    """
    end = end_moment(history, facts)
    if end.own_ends:
        return (end,)
    if facts is None or facts.end_epoch is not None:
        epoch = next(iter(end.epochs.values()))
        late = _at(history, int(history.loc[history["epoch"] >= 0.75 * epoch, "epoch"].min()))
    else:
        reached = history[history["epoch"] >= 0.75 * history["batch_size"].map(end.epochs)]
        first = reached.groupby("batch_size")["epoch"].min()
        epochs = dict(zip(map(int, first.index), map(int, first), strict=True))
        late = Moment({**end.epochs, **epochs}, "three quarters of the way")
    return (late, end) if late.epochs != end.epochs else (end,)


def _at(history: pd.DataFrame, epoch: int) -> Moment:
    return Moment(dict.fromkeys(map(int, history["batch_size"].unique()), epoch), f"epoch {epoch}")
