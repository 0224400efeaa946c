"""Made ``v2.sqlite``, with the store of the version whose schema it shows; kept to tell what is in it.

What version 2 added: trials of a grid of learning rates, and what these are chosen by. Run again it makes a
database of the schema of today: ``python tests/reliability/databases/make_v2.py FILE``.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from batchscope.records import EpochRecord, Trial, TrialState
from batchscope.running.store import Store

TRIALS = [Trial(batch_size, 1, rate) for batch_size in (8, 16) for rate in (1e-5, 0.1)]


def record(trial: Trial, epoch: int) -> EpochRecord:
    """Figures that no rounding leaves as they are, and that tell trial and epoch."""
    share = epoch / (3 * trial.batch_size + math.e * (trial.learning_rate or 0))
    return EpochRecord(
        stage="one",
        epoch=epoch,
        updates=epoch * 48 // trial.batch_size,
        examples=48 * epoch,
        seconds=math.pi * epoch / trial.batch_size,
        learning_rate=(trial.learning_rate or 0) * epoch / 2,
        train_loss=share,
        train_accuracy=1 - share / 3,
        val_loss=2 * share,
        val_accuracy=1 - share / 7,
        probes={"selection_loss": math.nan if epoch == 1 else share / 5, "selection_accuracy": 1 - share},
    )


def fill(store: Store) -> None:
    """Three trials complete, one not begun."""
    store.plan(TRIALS)
    for trial in TRIALS[:3]:
        for epoch in (1, 2):
            store.add(trial, record(trial, epoch))
        store.set_state(trial, TrialState.COMPLETE)


if __name__ == "__main__":
    with Store(Path(sys.argv[1]), create=True) as made:
        fill(made)
