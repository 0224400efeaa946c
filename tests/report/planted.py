"""Histories whose figures are known because they were planted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pandas as pd

from batchscope.history import check_history

Planted = Callable[[int, int, int], float]


def planted(
    val: Planted,
    train: Planted = lambda batch_size, replicate, epoch: 0.9,
    batch_sizes: Sequence[int] = (16, 32),
    replicates: int = 2,
    epochs: int = 4,
    images: int = 320,
) -> pd.DataFrame:
    """A history whose accuracies are functions of (batch size, replicate, epoch)."""
    rows = [
        {
            "batch_size": size,
            "replicate": replicate,
            "stage": "head" if epoch <= (epochs + 1) // 2 else "tail",
            "epoch": epoch,
            "updates": epoch * (images // size),
            "examples": epoch * (images // size) * size,
            "train_accuracy": train(size, replicate, epoch),
            "val_accuracy": val(size, replicate, epoch),
        }
        for size, replicate, epoch in itertools.product(
            batch_sizes, range(1, replicates + 1), range(1, epochs + 1)
        )
    ]
    return check_history(pd.DataFrame(rows))
