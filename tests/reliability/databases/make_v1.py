"""Made ``v1.sqlite``, with the store of the version whose schema it shows; kept to tell what is in it.

Run again it makes a database of the schema of today:
``python tests/reliability/databases/make_v1.py FILE``.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from batchscope.records import EpochRecord, Trial, TrialState
from batchscope.running.entries import DataSummary, SampleImage
from batchscope.running.store import Store

TRIALS = [Trial(batch_size, replicate) for replicate in (1, 2) for batch_size in (8, 16)]
SUMMARY = DataSummary(
    source="synthetic-cactus",
    fingerprint="f00d" * 16,
    classes=("cactus", "no cactus"),
    training=(12, 36),
    validation=(3, 9),
    skipped=(("broken.jpg", "must not be empty"),),
)
SAMPLES = [SampleImage("a.jpg", "cactus", b"\x89PNG\x00"), SampleImage("b.jpg", "no cactus", b"\x89PNG\x01")]
TRACEBACK = 'Traceback (most recent call last):\n  File "x", line 1\nValueError: "ü"'


def record(trial: Trial, epoch: int) -> EpochRecord:
    """Figures that no rounding leaves as they are, and that tell trial and epoch."""
    share = epoch / (3 * trial.batch_size + trial.replicate)
    diverged = (trial.batch_size, trial.replicate, epoch) == (8, 2, 2)
    return EpochRecord(
        stage="head" if epoch == 1 else "tail",
        epoch=epoch,
        updates=epoch * 48 // trial.batch_size,
        examples=48 * epoch,
        seconds=math.pi * epoch / trial.batch_size,
        learning_rate=1e-3 if epoch == 1 else 2e-5,
        train_loss=math.nan if diverged else share,
        train_accuracy=1 - share / 3,
        val_loss=math.inf if diverged else 2 * share,
        val_accuracy=1 - share / 7,
        probes={"probe_clean_accuracy": 1 - share / 9, "probe_seconds": share} if epoch == 2 else {},
    )


def fill(store: Store) -> None:
    """Two trials complete but for one that diverged, one that failed after an epoch, and one not begun."""
    store.plan(TRIALS)
    store.keep_data(SUMMARY, SAMPLES)
    session = store.start_session("2026-01-01T00:00:00+00:00", {"command": "batchscope run x", "cores": "2"})
    first, second, diverged, _ = TRIALS[0], TRIALS[1], TRIALS[2], TRIALS[3]
    for trial, epochs in ((first, 2), (second, 1), (diverged, 2)):
        for epoch in range(1, epochs + 1):
            store.add(trial, record(trial, epoch))
    store.set_state(first, TrialState.COMPLETE)
    store.set_state(second, TrialState.FAILED, TRACEBACK)
    store.set_state(diverged, TrialState.DIVERGED)
    store.update_session(session, {"keras": "3.12"}, ended="2026-01-01T01:00:00+00:00")


if __name__ == "__main__":
    with Store(Path(sys.argv[1]), create=True) as made:
        fill(made)
