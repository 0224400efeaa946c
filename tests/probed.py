"""Histories with probes, in which each term of the observed gap is planted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from batchscope.history import check_history

IMAGES = 14_000
MOMENTUM = 0.999
ONE_TRIAL = {
    "probe_gradient_norm2_error": 0.2,
    "probe_gradient_trace_error": 2.0,
    "probe_gradient_correlation": -0.05,
    "probe_gradient_batches": 40.0,
}
"""How far the figures of one trial's gradients are known."""


@dataclass(frozen=True)
class Terms:
    """What the observed gap of one trial at one epoch is made of; BatchNorm in its two halves."""

    averaging: float = 0.0
    augmentation: float = 0.0
    batchnorm_training: float = 0.0
    batchnorm_validation: float = 0.0
    generalization: float = 0.0

    @property
    def batchnorm(self) -> float:
        return self.batchnorm_training + self.batchnorm_validation

    @property
    def observed(self) -> float:
        return self.averaging + self.augmentation + self.batchnorm + self.generalization


Planted = Callable[[int, int, int], Terms]


def lagging(batch_size: int, replicate: int, epoch: int) -> Terms:
    """As in the 2019 study: averages that have not caught up, the more the larger the batch."""
    stale = MOMENTUM ** (IMAGES // batch_size * epoch)
    jitter = 0.004 * (replicate - 2)
    return Terms(
        averaging=-0.012 + jitter / 3,
        augmentation=-0.02 + jitter / 4,
        batchnorm_training=0.004 + jitter / 2,
        batchnorm_validation=0.45 * stale**0.5 + jitter * batch_size / 64,
        generalization=0.012 - jitter,
    )


def probed_history(
    terms: Planted = lagging,
    batch_sizes: Sequence[int] = (16, 32, 64, 128),
    replicates: int = 3,
    stages: Sequence[tuple[str, int]] = (("feature_extraction", 3), ("fine_tuning", 3)),
    every: bool = False,
    lag: bool = True,
) -> pd.DataFrame:
    """A history with probes at the last epoch of each stage, or at every one."""
    names = [name for name, length in stages for _ in range(length)]
    last = {
        place for place in range(len(names)) if place + 1 == len(names) or names[place + 1] != names[place]
    }
    rows = []
    for size in batch_sizes:
        for replicate in range(1, replicates + 1):
            for place, stage in enumerate(names):
                planted = terms(size, replicate, place + 1)
                row = _row(size, replicate, place + 1, stage, planted)
                probed = every or place in last
                rows.append(row | (_probes(row, planted, lag) if probed else {}))
    return check_history(pd.DataFrame(rows))


def with_gradients(history: pd.DataFrame, norm2: float = 2.0, seed: int = 3) -> pd.DataFrame:
    """The same with figures of gradients and of sharpness at the probed epochs.

    The gradient's squared norm is about `norm2`, the covariance's trace a hundred times the epoch.
    """
    rng = np.random.default_rng(seed)
    history = history.copy()
    here = history["probe_train_clean_accuracy"].notna()
    count = int(here.sum())
    history.loc[here, "probe_gradient_norm2"] = norm2 + rng.normal(0, 0.1, count)
    traces = 100.0 * history.loc[here, "epoch"] + rng.normal(0, 5, count)
    history.loc[here, "probe_gradient_trace"] = traces
    for name, value in ONE_TRIAL.items():
        history.loc[here, name] = value
    history.loc[here, "probe_sharpness"] = 0.1 * history["batch_size"] + history["replicate"]
    history.loc[here, "probe_hessian_top"] = 2.0 * history["batch_size"] + history["replicate"]
    return history


def with_noise_scale(history: pd.DataFrame, noise_scale: Callable[[int], float]) -> pd.DataFrame:
    """The same, of any history, with gradients at each trial's last epoch.

    All replicates have the same, so the noise scale is the planted one to the digit, in an interval of about
    a fifth of it, by `ONE_TRIAL` alone.
    """
    history = history.copy()
    last = history.groupby("trial")["epoch"].transform("max") == history["epoch"]
    history.loc[last, "probe_gradient_norm2"] = 2.0
    planted = [2.0 * noise_scale(size) for size in history.loc[last, "batch_size"]]
    history.loc[last, "probe_gradient_trace"] = planted
    for name, value in ONE_TRIAL.items():
        history.loc[last, name] = value
    return history


def in_inference_mode(history: pd.DataFrame, *stages: str) -> pd.DataFrame:
    """The same where BatchNorm's averages stood still in some stages and training used them too.

    What was planted as BatchNorm's term or generalization is then one: training minus validation
    by the same averages.
    """
    history = history.copy()
    here = history.stage.isin(stages) & history.probe_batchnorm_stale_weight.notna()
    for metric in ("accuracy", "loss"):
        history.loc[here, f"probe_train_moving_{metric}"] = history[f"probe_train_clean_{metric}"]
    moved = history.probe_batchnorm_stale_weight.mask(here)
    before = moved.groupby(history.trial).ffill().fillna(1.0)
    history.loc[here, "probe_batchnorm_stale_weight"] = before
    return history


def _row(size: int, replicate: int, epoch: int, stage: str, terms: Terms) -> dict[str, float | str]:
    recalibrated = 0.95 + 0.001 * replicate
    trained = recalibrated + terms.batchnorm_training + terms.augmentation + terms.averaging
    validated = recalibrated - terms.generalization - terms.batchnorm_validation
    updates = IMAGES // size * epoch
    return {
        "study": "planted",
        "trial": f"b{size}-r{replicate}",
        "batch_size": size,
        "learning_rate": 1e-4,
        "replicate": replicate,
        "stage": stage,
        "epoch": epoch,
        "updates": updates,
        "examples": updates * size,
        "seconds": 10.0 * epoch,
        "train_loss": 1 - trained,
        "train_accuracy": trained,
        "val_loss": 1 - validated,
        "val_accuracy": validated,
    }


def _probes(row: dict[str, float | str], terms: Terms, lag: bool) -> dict[str, float]:
    recalibrated = 0.95 + 0.001 * float(row["replicate"])
    clean = recalibrated + terms.batchnorm_training
    accuracies = {
        "train_augmented": clean + terms.augmentation,
        "train_clean": clean,
        "train_recalibrated": recalibrated,
        "train_moving": recalibrated - terms.batchnorm_validation,
        "val_recalibrated": recalibrated - terms.generalization,
    }
    columns = {f"probe_{name}_accuracy": value for name, value in accuracies.items()}
    columns |= {f"probe_{name}_loss": 1 - value for name, value in accuracies.items()}
    if lag:
        stale = MOMENTUM ** float(row["updates"])
        columns |= {
            "probe_batchnorm_lag_mean": 0.9 * stale + 0.02,
            "probe_batchnorm_lag_max": 2.5 * stale + 0.05,
            "probe_batchnorm_stale_weight": stale,
            "probe_batchnorm_lag/block_1_bn": 0.5 * stale,
        }
    return columns
