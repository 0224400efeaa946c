"""What a person may choose about the analysis, and what a history alone cannot tell."""

from __future__ import annotations

from dataclasses import dataclass

from batchscope.errors import HistoryError

__all__ = ["RecipeFacts", "Settings"]

VALIDATION_METRICS = ("val_accuracy", "val_loss")


@dataclass(frozen=True)
class Settings:
    """Choices that the figures depend on.

    Attributes:
        margin: Differences of the metric below it do not matter in practice; in the unit of the
            metric, so half a point of accuracy is 0.005.
        summary_epochs: Epochs of the summary besides the end; None for three quarters of the way.
        metric: ``val_accuracy`` or ``val_loss``; None for the first of these that the history has.
        confidence: Coverage of all intervals, between 0 and 1.
        resamples: Number of bootstrap resamples, at least 100.
        seed: Of the bootstrap, so that the same history gives the same interval.

    Raises:
        HistoryError: A value lies outside its range.
    """

    margin: float = 0.005
    summary_epochs: tuple[int, ...] | None = None
    metric: str | None = None
    confidence: float = 0.95
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.margin > 0:
            raise HistoryError(f"margin must be above 0, but got {self.margin}")
        if not 0 < self.confidence < 1:
            raise HistoryError(f"confidence must lie between 0 and 1, but got {self.confidence}")
        if self.resamples < 100:
            raise HistoryError(f"resamples must be at least 100, but got {self.resamples}")
        if self.metric not in (None, *VALIDATION_METRICS):
            raise HistoryError(
                f"metric must be one of {', '.join(VALIDATION_METRICS)}, but got {self.metric}"
            )


@dataclass(frozen=True)
class RecipeFacts:
    """What is known about the recipe beyond its history.

    Attributes:
        learning_rate_retuned: Whether the learning rate was tuned anew for each batch size. None
            leaves it to the history's learning_rate column.
    """

    learning_rate_retuned: bool | None = None
