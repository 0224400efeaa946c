"""Histories of grids of learning rates and of stages that end at a target, with planted truth."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from analysis_samples import made_history, noisy
from batchscope.analysis import Plan, RecipeFacts, Target

GRID = (0.005, 0.01, 0.02, 0.04)
BEST = {16: 0.005, 32: 0.01, 64: 0.02, 128: 0.02}

Score = Callable[[int, float], float]


def peaked(batch_size: int, rate: float) -> float:
    """Highest at the batch size's best, where larger ones are worse by a point each."""
    return 0.9 - 0.01 * math.log2(batch_size / 16) - 0.03 * abs(math.log2(rate / BEST[batch_size]))


def tried(
    val: Score = peaked,
    selection: Score | None = peaked,
    grid: tuple[float, ...] = GRID,
    rate_of: Callable[[float, int, str], float] = lambda rate, epoch, stage: rate,
) -> pd.DataFrame:
    """Every learning rate at every batch size and replicate; selection is noisier than validation."""
    frames = []
    for rate in grid:
        history = made_history(
            epochs=6,
            stages=(("one", 2), ("two", 4)),
            val=lambda b, r, e, u, rate=rate: val(b, rate) - 0.02 / e + noisy(b, r, e, 1e-4),
        )
        names = zip(history["batch_size"], history["replicate"], strict=True)
        rows = list(zip(history["epoch"], history["stage"], strict=True))
        history = history.assign(
            trial=[f"b{size}-lr{rate}-r{replicate}" for size, replicate in names],
            learning_rate=[rate_of(rate, epoch, stage) for epoch, stage in rows],
        )
        if selection is not None:
            noise = np.random.default_rng(int(rate * 1e5)).normal(0, 1e-3, len(history))
            history["selection_accuracy"] = [selection(size, rate) for size in history["batch_size"]] + noise
        frames.append(history)
    return pd.concat(frames, ignore_index=True)


TARGET = Target("val_accuracy", 0.9, 8)
# When each replicate gets there; batch size 128 never does, nor replicate 3 of batch size 64.
REACHED = {16: (2, 3, 3), 32: (4, 4, 5), 64: (5, 7, 9), 128: (9, 9, 9)}
NAMES = [f"b{size}-r{replicate}" for size in REACHED for replicate in (1, 2, 3)]


def rising(batch_size: int, replicate: int, epoch: int, updates: float) -> float:
    reached = REACHED[batch_size][replicate - 1]
    return (
        0.9 + 0.001 * (epoch - reached) + abs(noisy(batch_size, replicate, epoch, 1e-4)) * (epoch >= reached)
    )


def until_history(before: int = 0) -> pd.DataFrame:
    """Ends each trial when it gets to 0.9 or after 8 epochs, behind a stage of `before` epochs."""
    stages = (("one", before), ("two", 8)) if before else (("two", 8),)
    history = made_history(
        stages=stages, val=lambda b, r, e, u: 0.2 if e <= before else rising(b, r, e - before, u)
    )
    last = [
        before + min(REACHED[size][replicate - 1], 8)
        for size, replicate in zip(history["batch_size"], history["replicate"], strict=True)
    ]
    return history[history["epoch"] <= last].reset_index(drop=True)


def recipe(ended: list[str] = NAMES, budget: str = "until") -> RecipeFacts:
    budgets = {"one": "epochs", "two": budget}
    targets = {"two": TARGET} if budget == "until" else {}
    return RecipeFacts(plan=Plan(budgets, None, targets, frozenset(ended)))  # type: ignore[arg-type]
