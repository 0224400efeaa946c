"""Whether BatchNorm was in inference mode, told from the probes alone."""

from __future__ import annotations

import numpy as np

from batchscope.analysis.panel import Bools, Floats, Panel

__all__ = ["in_inference_mode"]

_WEIGHT = "probe_batchnorm_stale_weight"
_ALIKE = (
    ("probe_train_clean_accuracy", "probe_train_moving_accuracy"),
    ("probe_train_clean_loss", "probe_train_moving_loss"),
)
_RECALIBRATED = "probe_val_recalibrated_loss"
_VALIDATED = "val_loss"
# What a weight's last bits may do on the way through a file.
_SAME_WEIGHT = 1e-12
# Kernels of GPUs may sum in any order, so a measurement that is made twice differs in its last bits.
_SAME_LOSS = 1e-5


def in_inference_mode(panel: Panel) -> Bools:
    """Where a trial was trained, and is validated, with the same BatchNorm averages, which stand still.

    That is so at a probed epoch where all of this holds:

    - The clean training images have the same accuracy and the same loss, to the last bit, in the
      mode of training and by the moving averages. Batch statistics give another loss, also
      where a momentum next to 1 keeps the averages from moving.
    - The weight of the averages from before the training is what it was at the trial's probe before,
      1 ahead of its first one: nothing has moved them since. It is below 1 where an earlier
      stage did. Batch statistics may give the same loss by chance where a network is sure of
      every image, and a network without BatchNorm has no such weight.
    - Validation is not by recalibrated statistics: none were measured, or its loss differs from the
      one by these. Where it is the same although the averages were used, they are as good as
      recalibrated ones, and the terms come out alike.

    Args:
        panel: The whole history.

    Returns:
        (B, R, E); False everywhere where one of the columns is missing that all this needs.
    """
    columns = {**panel.metrics, **panel.probes}
    needed = (*(name for pair in _ALIKE for name in pair), _VALIDATED, _WEIGHT)
    if any(name not in columns for name in needed):
        return np.zeros(panel.recorded.shape, dtype=np.bool_)
    alike = [columns[one] == columns[other] for one, other in _ALIKE]
    # Without figures by recalibrated statistics this compares with NaN, which nothing is close to.
    recalibrated = columns.get(_RECALIBRATED, np.full(panel.recorded.shape, np.nan))
    by_averages = ~np.isclose(columns[_VALIDATED], recalibrated, rtol=_SAME_LOSS, atol=0)
    weight = columns[_WEIGHT]
    still = np.isclose(weight, _before(weight), rtol=_SAME_WEIGHT, atol=0)
    found: Bools = np.logical_and.reduce([*alike, by_averages, still])
    return found


def _before(weight: Floats) -> Floats:
    """The weight at each trial's last probe before, 1 where there is none; (B, R, E)."""
    before = np.empty_like(weight)
    last = np.ones(weight.shape[:2])
    for column in range(weight.shape[2]):
        before[:, :, column] = last
        here = weight[:, :, column]
        last = np.where(np.isfinite(here), here, last)
    return before
