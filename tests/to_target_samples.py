"""Histories whose updates to a target are planted: S_min (1 + B_crit / B), times a learning rate's factor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from batchscope.analysis.to_target_results import TrialToTarget

B_CRIT, S_MIN = 200.0, 500.0
SIZES = tuple(2**power for power in range(3, 11))
RATES = (0.01, 0.1, 1.0)
TARGET = 0.85
EXAMPLES = 12_800
"""Of an epoch."""

Law = Callable[[float], float]


def curve(batch_size: float) -> float:
    """Mean updates to the target."""
    return S_MIN * (1 + B_CRIT / batch_size)


def slowness(batch_size: int, rate: float) -> float:
    """Factor on the updates: the middle rate is best up to batch size 64, from there on the largest."""
    best = 0.1 if batch_size <= 64 else 1.0
    return 1.0 if rate == best else 1.6


def planted_history(
    sizes: Sequence[int] = SIZES,
    rates: Sequence[float] = RATES,
    replicates: int = 3,
    *,
    sd: float = 0.12,
    epochs: int = 16,
    parts: int = 1,
    seed: int = 5,
) -> pd.DataFrame:
    """Trials whose accuracy passes 0.85 at planted updates; measured `parts` times an epoch."""
    rng = np.random.default_rng(seed)
    rows = []
    for size in sizes:
        length = EXAMPLES // size
        for rate in rates:
            for replicate in range(1, replicates + 1):
                reached = curve(size) * slowness(size, rate) * np.exp(rng.normal(0, sd))
                rows += [
                    _row(size, rate, replicate, epoch, length, reached, parts)
                    for epoch in range(1, epochs + 1)
                ]
    history = pd.DataFrame(rows)
    return history if len(rates) > 1 else history.drop(columns="grid_learning_rate")


def accuracy(updates: float, reached: float) -> float:
    """Rises with updates and passes the target after `reached` of them."""
    return 1 - (1 - TARGET) ** (updates / reached)


def _row(
    size: int, rate: float, replicate: int, epoch: int, length: int, reached: float, parts: int
) -> dict[str, object]:
    updates = length * epoch
    row: dict[str, object] = {
        "study": "planted",
        "trial": f"b{size}-lr{rate:g}-r{replicate}",
        "batch_size": size,
        "learning_rate": rate,
        "grid_learning_rate": rate,
        "replicate": replicate,
        "epoch": epoch,
        "updates": updates,
        "examples": updates * size,
        "seconds": updates * (0.01 + size * 1e-4),
        "val_loss": 1 - accuracy(updates, reached),
        "val_accuracy": accuracy(updates, reached),
    }
    for part in range(1, parts):
        within = updates - length + round(length * part / parts)
        row[f"within_{part}_updates"] = within
        row[f"within_{part}_val_loss"] = 1 - accuracy(within, reached)
        row[f"within_{part}_val_accuracy"] = accuracy(within, reached)
    return row


def until_reached(history: pd.DataFrame, target: float = TARGET) -> pd.DataFrame:
    """The same trials, ended by their first measurement that is as good as the target, as by `until`.

    That may be within an epoch, whose row then tells of that place and keeps what was measured before it.
    """
    rows = []
    for _, trial in history.groupby("trial", sort=False):
        for row in trial.to_dict("records"):
            rows.append(_cut_short(row, target))
            if rows[-1]["val_accuracy"] >= target:
                break
    return pd.DataFrame(rows, columns=history.columns)


def _cut_short(row: dict[str, object], target: float) -> dict[str, object]:
    """A row up to its first measurement within the epoch that is good enough."""
    parts = sorted(int(str(name).split("_")[1]) for name in row if str(name).endswith("_val_accuracy"))
    found = [part for part in parts if float(row[f"within_{part}_val_accuracy"]) >= target]  # type: ignore[arg-type]
    if not found:
        return row
    first = found[0]
    names = ("updates", "val_loss", "val_accuracy")
    last = {name: row[f"within_{first}_{name}"] for name in names}
    gone = {f"within_{part}_{name}": math.nan for part in parts if part >= first for name in names}
    size = int(row["batch_size"])  # type: ignore[call-overload]
    updates = int(last["updates"])  # type: ignore[call-overload]
    spent = {"updates": updates, "examples": updates * size, "seconds": updates * (0.01 + size * 1e-4)}
    return row | gone | last | spent


def drawn_trials(
    seed: int,
    *,
    law: Law = curve,
    sizes: Sequence[int] = SIZES,
    replicates: int = 4,
    sd: float = 0.15,
    grain: float = 0.02,
    last: float = np.inf,
) -> list[TrialToTarget]:
    """Trials with log-normal scatter about a law, measured at steps of a share of it, to `last` updates."""
    rng = np.random.default_rng(seed)
    trials = []
    for size in sizes:
        step = max(grain * law(size), 1.0)
        for replicate in range(1, replicates + 1):
            updates = float(np.ceil(law(size) * np.exp(rng.normal(0, sd)) / step) * step)
            ends = (
                ("reached", updates, updates - step) if updates <= last else ("censored", last, last - step)
            )
            trials.append(
                TrialToTarget(size, None, replicate, f"b{size}-r{replicate}", *ends, None, None)  # type: ignore[arg-type]
            )
    return trials
