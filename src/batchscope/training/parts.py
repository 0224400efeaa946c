"""An epoch in parts, between which validation is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchscope.history import WITHIN
from batchscope.training.loops import Figures

__all__ = ["TrainedEpoch", "part_ends", "together", "within_columns"]


@dataclass(frozen=True)
class TrainedEpoch:
    """An epoch, or as much of one as was trained.

    Attributes:
        reported: Its figures.
        examples: That were presented.
        seconds: Of training.
        validated: Validation at its end.
        columns: Of what was measured before, and of what was measured at the end to choose a learning rate.
    """

    reported: Figures
    examples: int
    seconds: float
    validated: Figures
    columns: Mapping[str, float]


def part_ends(updates: int, parts: int) -> list[int]:
    """After which of an epoch's updates a part of it ends.

    Args:
        updates: Of the epoch, at least 1.
        parts: How many are wanted, at least 1; where there are fewer updates, each is a part.

    Returns:
        Ascending; the last is `updates`. No two parts differ by more than one update.
    """
    return sorted({-(-part * updates // parts) for part in range(1, parts + 1)})


def together(parts: Sequence[tuple[int, Figures]]) -> Figures:
    """Figures of a pass from those of its parts, each with its number of examples."""
    if len(parts) == 1:
        return parts[0][1]  # to the last bit
    total = sum(count for count, _ in parts)
    return Figures(
        loss=sum(count * figures.loss for count, figures in parts) / total,
        accuracy=sum(count * figures.accuracy for count, figures in parts) / total,
    )


def within_columns(part: int, updates: int, measured: Figures) -> dict[str, float]:
    """Validation after the 1st, 2nd, ... part of an epoch, and the trial's updates by then."""
    return {
        f"{WITHIN}{part}_updates": float(updates),
        f"{WITHIN}{part}_val_loss": measured.loss,
        f"{WITHIN}{part}_val_accuracy": measured.accuracy,
    }
