"""Histories whose stages have budgets in updates, epochs or examples, with planted curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pandas as pd

from batchscope.history import check_history

IMAGES = 14_000
SIZES = (16, 32, 64, 128)
STAGES = (("feature_extraction", "updates", 2_000), ("fine_tuning", "updates", 3_000))

Curve = Callable[[int, int, int], float]
"""From (batch size, replicate, updates) to an accuracy."""


def follows_updates(batch_size: int, replicate: int, updates: int) -> float:
    """Depends on the number of updates alone, but for a little that is the replicate's."""
    return 0.95 - 0.3 * math.exp(-updates / 900) + 0.0005 * (replicate - 2)


def budgeted_history(
    stages: Sequence[tuple[str, str, int]] = STAGES,
    batch_sizes: Sequence[int] = SIZES,
    replicates: int = 3,
    val: Curve = follows_updates,
) -> pd.DataFrame:
    """A history of (stage, ``updates`` or ``epochs``, budget); the last epoch may be cut short."""
    rows = []
    for size in batch_sizes:
        for replicate in range(1, replicates + 1):
            epoch = updates = examples = 0
            for name, kind, budget in stages:
                per_epoch = math.ceil(IMAGES / size)
                left = budget if kind == "updates" else budget * per_epoch
                while left:
                    step = min(left, per_epoch)
                    left -= step
                    epoch, updates = epoch + 1, updates + step
                    examples += min(step * size, IMAGES)
                    accuracy = val(size, replicate, updates)
                    rows.append(
                        {
                            "study": "budgeted",
                            "trial": f"b{size}-r{replicate}",
                            "batch_size": size,
                            "learning_rate": 1e-4 * size,
                            "replicate": replicate,
                            "stage": name,
                            "epoch": epoch,
                            "updates": updates,
                            "examples": examples,
                            "seconds": examples / 400,
                            "train_loss": 0.05,
                            "train_accuracy": follows_updates(size, replicate, updates) + 0.01,
                            "val_loss": 1 - accuracy,
                            "val_accuracy": accuracy,
                        }
                    )
    return check_history(pd.DataFrame(rows))
