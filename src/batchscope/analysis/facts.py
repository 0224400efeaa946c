"""What was analysed, and with which settings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from batchscope.analysis.moments import mean_and_sd
from batchscope.analysis.panel import Floats, Panel
from batchscope.analysis.settings import Budget, Settings, Target
from batchscope.analysis.words import Figure

__all__ = ["End", "StageSpan", "StudyFacts", "study_facts"]

_OWN = "each batch size's end"


@dataclass(frozen=True)
class StageSpan:
    """Where a stage lies in the history.

    Attributes:
        name: As in the history; empty where the history has no stage column.
        first_epoch: Smallest epoch of the stage, over all trials.
        last_epoch: Largest epoch of the stage, over all trials.
        budget: Of what all batch sizes were given the same, ``epochs``, ``updates``, ``examples`` or
            ``seconds``; ``until`` where the stage ends at a target; None where nothing tells.
    """

    name: str
    first_epoch: int
    last_epoch: int
    budget: Budget | None


@dataclass(frozen=True)
class End:
    """Where a batch size ends.

    Attributes:
        batch_size: Examples per update.
        epoch: As `batchscope.analysis.ends.find_ends` has it: where trials have ends of their own, the
            last of them.
        updates: Mean over the trials that are there; NaN without one or without the column.
        examples: Likewise.
    """

    batch_size: int
    epoch: int
    updates: float
    examples: float


@dataclass(frozen=True)
class StudyFacts:
    """What was analysed.

    Attributes:
        study: Name of the study; None where the history has no study column.
        metric: The validation metric that was analysed, ``val_accuracy`` or ``val_loss``.
        batch_sizes: Ascending.
        replicates: Ascending.
        n_trials: Number of (batch size, replicate) pairs that have at least one row.
        stages: In the order of training.
        last_epoch: The longest trial's last epoch.
        ends: Where each batch size ends, and all are compared.
        unfinished: Names of the trials that go on, where trials have ends of their own and one has ended;
            no figure at the end rests on them.
        goal: The target at which trials end; None where the last stage has another budget, the history
            lacks the target's metric, or no trial has ended there yet, so that all are compared on the way.
        learning_rate_retuned: Whether each batch size had its own; None where nothing tells.
        margin: Differences of the metric (and of the gap) below it do not matter in practice.
        confidence: Coverage of all intervals, for example 0.95.
        resamples: Number of bootstrap resamples.
        seed: Of the bootstrap.
    """

    study: str | None
    metric: str
    batch_sizes: tuple[int, ...]
    replicates: tuple[int, ...]
    n_trials: int
    stages: tuple[StageSpan, ...]
    last_epoch: int
    ends: tuple[End, ...]
    unfinished: tuple[str, ...]
    goal: Target | None
    learning_rate_retuned: bool | None
    margin: float
    confidence: float
    resamples: int
    seed: int

    @property
    def level(self) -> float:
        """Tests with p below it count as significant: 1 - confidence, its rounding error removed."""
        return round(1 - self.confidence, 12)

    @property
    def end_epoch(self) -> int | None:
        """The epoch at which all trials end; None where they end at different ones."""
        if self.own_ends:
            return None
        epochs = {end.epoch for end in self.ends}
        return epochs.pop() if len(epochs) == 1 else None

    @property
    def own_ends(self) -> bool:
        """Whether each trial has an end of its own, because training alone tells how long a stage is."""
        return any(stage.budget in ("seconds", "until") for stage in self.stages)

    @property
    def end_updates(self) -> float | None:
        """The mean number of updates at the ends, if every stage's budget is in them; else None."""
        return self._equal_amount("updates")

    @property
    def end_figures(self) -> tuple[tuple[str, Figure], ...]:
        """Where batch sizes are compared, as figures of a sentence."""
        figures: tuple[tuple[str, Figure], ...] = (("epoch", self.end_epoch),)
        return figures if self.end_epoch is not None else (*figures, ("updates", self.end_updates))

    @property
    def when(self) -> str:
        """Where batch sizes are compared: ``epoch 20``, or ``each batch size's end (5,000 updates)``."""
        if self.end_epoch is not None:
            return f"epoch {self.end_epoch}"
        return f"{_OWN} ({self.end_amount})"

    @property
    def when_short(self) -> str:
        """The same for brackets: ``epoch 20``, or ``each batch size's end, 5,000 updates``."""
        return f"epoch {self.end_epoch}" if self.end_epoch is not None else f"{_OWN}, {self.end_amount}"

    @property
    def end_amount(self) -> str:
        """What was the same for all batch sizes that end at different epochs, else these epochs."""
        for budget in ("updates", "examples"):
            amount = self._equal_amount(budget)
            if amount is not None:
                known = {getattr(end, budget) for end in self.ends if math.isfinite(getattr(end, budget))}
                return f"{'' if len(known) == 1 else 'about '}{amount:,.0f} {budget}"
        epochs = [end.epoch for end in self.ends]
        if self.own_ends:
            return f"at most {max(epochs)} epochs"
        return f"epochs {min(epochs)} to {max(epochs)}"

    def ends_alike(self, quantity: str) -> bool:
        """Whether trials end when this very metric is good enough, so that comparing it there is idle."""
        return self.goal is not None and self.goal.metric == quantity

    def equal_epochs(self, stage: str) -> bool:
        """Whether a stage gives all batch sizes the same number of epochs, as far as is known.

        Equally many examples are as many epochs where batch sizes end together.
        """
        same = (None, "epochs") if self.end_epoch is None else (None, "epochs", "examples")
        return all(span.budget in same for span in self.stages if span.name == stage)

    def _equal_amount(self, budget: str) -> float | None:
        if any(stage.budget != budget for stage in self.stages):
            return None
        known = [end for end in self.ends if math.isfinite(getattr(end, budget))]
        if not known:
            return None
        amounts = [float(getattr(end, budget)) for end in known]
        # Each stage may be off by an epoch at the largest batch size; a run that goes on, by more.
        slack = len(self.stages) * amounts[-1] / known[-1].epoch
        return sum(amounts) / len(amounts) if max(amounts) - min(amounts) <= slack else None


def study_facts(panel: Panel, metric: str, settings: Settings, retuned: bool | None) -> StudyFacts:
    """Collects what a panel and the settings say about the study.

    Args:
        panel: The whole history.
        metric: The validation metric that is analysed.
        settings: As chosen.
        retuned: Whether each batch size had a learning rate of its own; None where nothing tells.
    """
    return StudyFacts(
        study=panel.study,
        metric=metric,
        batch_sizes=tuple(panel.batch_sizes.tolist()),
        replicates=tuple(panel.replicates.tolist()),
        n_trials=int(panel.recorded.any(axis=2).sum()),
        stages=tuple(_span(panel, position, name) for position, name in enumerate(panel.stages)),
        last_epoch=int(panel.epochs[-1]),
        ends=_ends(panel),
        unfinished=_unfinished(panel),
        goal=_goal(panel),
        learning_rate_retuned=retuned,
        margin=settings.margin,
        confidence=settings.confidence,
        resamples=settings.resamples,
        seed=settings.seed,
    )


def _span(panel: Panel, position: int, name: str) -> StageSpan:
    epochs = panel.epochs[np.flatnonzero((panel.stage_index == position).any(axis=(0, 1)))]
    return StageSpan(name, int(epochs[0]), int(epochs[-1]), panel.ends.budgets[position])


def _unfinished(panel: Panel) -> tuple[str, ...]:
    own = panel.ends.own
    if own is None:
        return ()
    going_on = np.argwhere((own < 0) & panel.recorded.any(axis=2))
    pairs = [(int(panel.batch_sizes[row]), int(panel.replicates[column])) for row, column in going_on]
    return tuple(panel.trial_names[pair] for pair in pairs)


def _goal(panel: Panel) -> Target | None:
    if panel.plan is None or panel.ends.own is None:
        return None
    goal, last = panel.plan.goal, list(panel.plan.budgets)[-1]
    return goal if goal is not None and goal.metric in panel.metrics and panel.stages[-1] == last else None


def _ends(panel: Panel) -> tuple[End, ...]:
    def spent(cost: str) -> Floats:
        if cost not in panel.costs:
            return np.full(len(panel.batch_sizes), np.nan)
        # A trial that ended diverged may have stopped on the way.
        ended = np.where(panel.diverged[:, :, -1], np.nan, panel.at_end(panel.costs[cost]))
        return mean_and_sd(ended, axis=1)[1]

    columns = (panel.batch_sizes, panel.ends.epochs, spent("updates"), spent("examples"))
    return tuple(
        End(int(size), int(epoch), float(updates), float(examples))
        for size, epoch, updates, examples in zip(*columns, strict=True)
    )
