"""Small histories with planted truth, for the tests of the analysis."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

N_IMAGES = 14_000

Curve = Callable[[int, int, int, float], float]


def made_history(
    batch_sizes: Sequence[int] = (16, 32, 64, 128),
    replicates: int = 3,
    epochs: int = 10,
    *,
    val: Curve | None = None,
    train: Curve | None = None,
    stages: Sequence[tuple[str, int]] | None = None,
) -> pd.DataFrame:
    """A full history; curves map (batch size, replicate, epoch, updates) to accuracies."""
    spans = stages or (("training", epochs),)
    names = [name for name, length in spans for _ in range(length)]
    rows = []
    for batch_size in batch_sizes:
        for replicate in range(1, replicates + 1):
            for epoch, stage in enumerate(names, start=1):
                updates = N_IMAGES // batch_size * epoch
                val_accuracy = (val or _validated)(batch_size, replicate, epoch, updates)
                train_accuracy = (train or _trained)(batch_size, replicate, epoch, updates)
                rows.append(
                    {
                        "study": "made",
                        "trial": f"b{batch_size}-r{replicate}",
                        "batch_size": batch_size,
                        "learning_rate": 1e-3 / batch_size,
                        "replicate": replicate,
                        "stage": stage,
                        "epoch": epoch,
                        "updates": updates,
                        "examples": updates * batch_size,
                        "seconds": epoch * (1 + 100 / batch_size),
                        "train_loss": 1 - train_accuracy,
                        "train_accuracy": train_accuracy,
                        "val_loss": 1 - val_accuracy,
                        "val_accuracy": val_accuracy,
                    }
                )
    return pd.DataFrame(rows)


def noisy(batch_size: int, replicate: int, epoch: int, scale: float) -> float:
    """Reproducible noise of a (batch size, replicate, epoch)."""
    return float(np.random.default_rng([batch_size, replicate, epoch]).normal(0, scale))


def plain_mean(values: Sequence[float]) -> float:
    """The mean by a loop."""
    total = 0.0
    for value in values:
        total += value
    return total / len(values)


def plain_variance(values: Sequence[float]) -> float:
    """The variance with n - 1 by a loop."""
    centre = plain_mean(values)
    return sum((value - centre) ** 2 for value in values) / (len(values) - 1)


def _trained(batch_size: int, replicate: int, epoch: int, updates: float) -> float:
    return 0.93 + 0.005 * min(epoch, 4) + noisy(batch_size, replicate, 1000 + epoch, 1e-3)


def _validated(batch_size: int, replicate: int, epoch: int, updates: float) -> float:
    return 0.9 + 0.005 * min(epoch, 4) + noisy(batch_size, replicate, epoch, 1e-3)
