"""What probes cost beside training."""

from __future__ import annotations

import numpy as np

from batchscope.analysis.panel import Panel
from batchscope.analysis.words import Sentence, percent

__all__ = ["probe_cost"]

_SECONDS = "probe_seconds"


def probe_cost(panel: Panel) -> Sentence | None:
    """Says how long probes took, for every second of training, over all trials together.

    Args:
        panel: The whole history.

    Returns:
        None where the history has no ``probe_seconds`` or no ``seconds``, or no finite one.
    """
    if _SECONDS not in panel.probes or "seconds" not in panel.costs:
        return None
    probes = float(np.nansum(panel.probes[_SECONDS]))
    trained = np.nan_to_num(panel.costs["seconds"]).max(axis=2)
    training = float(trained.sum())
    if not (probes > 0 and training > 0):
        return None
    share = probes / training
    text = (
        f"Probes took {percent(share)} as long as training, off its clock: {probes:,.0f} s beside "
        f"{training:,.0f} s over all trials."
    )
    return Sentence("probe_cost", text, (("probes", probes), ("training", training), ("share", share)))
