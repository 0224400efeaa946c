"""Histories that together have every figure."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from batchscope.analysis import Settings, TargetSpec
from probed import probed_history, with_gradients, with_noise_scale
from recipe_samples import tried
from to_target_samples import planted_history

__all__ = ["EVERY_FIGURE", "KINDS"]

TARGETS = (TargetSpec(metric="val_accuracy", value=0.9),)
KINDS: dict[str, tuple[Callable[[], pd.DataFrame], Settings]] = {
    "grid": (tried, Settings(resamples=100)),
    "probed": (
        lambda: with_gradients(probed_history(every=True)).assign(probe_peak_memory=1e9),
        Settings(resamples=100),
    ),
    "target": (planted_history, Settings(resamples=100, targets=TARGETS)),
    "noise and target": (
        lambda: with_noise_scale(planted_history(parts=4), lambda size: 250.0 + size),
        Settings(resamples=100, targets=TARGETS),
    ),
}
"""A history by what is special in it, and what to ask of it."""

EVERY_FIGURE = {
    *("a-replicates-accuracy", "a-replicates-loss", "b-together-accuracy", "c-means-accuracy"),
    *("d-by-batch-size-accuracy", "epochs-and-updates", "gap", "gap-terms", "batchnorm-lag", "spread"),
    *(
        "learning-rates",
        "throughput",
        "noise-scale",
        "noise-scale-course",
        "sharpness",
        "updates-to-target-1",
    ),
}
