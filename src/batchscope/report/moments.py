"""Where batch sizes are compared in a figure: at one epoch, or each at its own end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from batchscope.analysis.results import StudyFacts
from batchscope.analysis.settings import Target
from batchscope.analysis.words import count, number
from batchscope.report.curves import PARTS, Measure, last_common_epoch, replicate_label

__all__ = ["Moment", "end_moment", "late_moments"]


@dataclass(frozen=True)
class Moment:
    """A point of the training.

    Attributes:
        epochs: By batch size.
        when: In words, for example ``epoch 20`` or ``each batch size's end, 5,000 updates``.
        own_ends: Whether it is each trial's own last epoch, of which `epochs` are the latest.
        unfinished: Batch size and replicate, as in the rows, of trials that have no such end yet.
        goal: The target at which trials end; None where they end otherwise.
    """

    epochs: Mapping[int, int]
    when: str
    own_ends: bool = False
    unfinished: frozenset[tuple[int, str]] = frozenset()
    goal: Target | None = None

    def target_of(self, part: str, measure: Measure) -> str:
        """``the target of 0.900``, say, where trials end when these very figures reach it; else empty."""
        if self.goal is None or (part, self.goal.metric) != (PARTS[1], f"val_{measure}"):
            return ""
        return f"the target of {number(self.goal.value)}"

    @property
    def note(self) -> str:
        """Says how many trials are not there yet because they go on; empty where none does."""
        n = len(self.unfinished)
        if not n:
            return ""
        verbs = ("has", "is") if n == 1 else ("have", "are")
        return f"{count(n, 'trial')} {verbs[0]} not ended and {verbs[1]} left out of figures at the end."

    def of(self, points: pd.DataFrame) -> pd.DataFrame:
        """The rows at this moment of a table with columns ``batch_size``, ``replicate`` and ``epoch``.

        Where trials have ends of their own, their rows bear the latest of their batch size, and trials that
        go on have none.
        """
        if self.own_ends:
            last = points.groupby(["batch_size", "replicate"])["epoch"].transform("max")
            pairs = zip(points["batch_size"], points["replicate"], strict=True)
            ended = np.array([pair not in self.unfinished for pair in pairs], dtype=np.bool_)
            there = points[(points["epoch"] == last) & ended]
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
        return Moment(epochs, facts.when_short, facts.own_ends, _unfinished(history, facts), facts.goal)
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


def _unfinished(history: pd.DataFrame, facts: StudyFacts) -> frozenset[tuple[int, str]]:
    if not facts.unfinished:
        return frozenset()
    rows = history.assign(label=replicate_label(history))
    # As the analysis names trials that have no name.
    names = "b" + rows["batch_size"].astype(str) + "-r" + rows["replicate"].astype(str)
    rows = rows[rows.get("trial", names).isin(facts.unfinished)]
    return frozenset(zip(rows["batch_size"].tolist(), rows["label"].tolist(), strict=True))


def _at(history: pd.DataFrame, epoch: int) -> Moment:
    return Moment(dict.fromkeys(map(int, history["batch_size"].unique()), epoch), f"epoch {epoch}")
