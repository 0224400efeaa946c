"""What was analysed, and with which settings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from batchscope.analysis.panel import Panel
from batchscope.analysis.settings import Settings

__all__ = ["StageSpan", "StudyFacts", "study_facts"]


@dataclass(frozen=True)
class StageSpan:
    """Where a stage lies in the history.

    Attributes:
        name: As in the history; empty where the history has no stage column.
        first_epoch: Smallest epoch of the stage, over all trials.
        last_epoch: Largest epoch of the stage, over all trials.
    """

    name: str
    first_epoch: int
    last_epoch: int


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
        last_epoch: The longest trial's last epoch; the end of the study.
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
    learning_rate_retuned: bool | None
    margin: float
    confidence: float
    resamples: int
    seed: int

    @property
    def level(self) -> float:
        """Tests with p below it count as significant: 1 - confidence, its rounding error removed."""
        return round(1 - self.confidence, 12)


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
        learning_rate_retuned=retuned,
        margin=settings.margin,
        confidence=settings.confidence,
        resamples=settings.resamples,
        seed=settings.seed,
    )


def _span(panel: Panel, position: int, name: str) -> StageSpan:
    epochs = panel.epochs[np.flatnonzero((panel.stage_index == position).any(axis=(0, 1)))]
    return StageSpan(name, int(epochs[0]), int(epochs[-1]))
