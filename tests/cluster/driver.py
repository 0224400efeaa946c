"""A program that runs a function on a Ray cluster: ``python driver.py FOLDER ADDRESS``.

Trials stop ahead of their third epoch until the file ``go-on`` lies beside the folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

import batchscope
from batchscope.own.handle import TrialHandle
from batchscope.records import EpochRecord, Trial
from batchscope.running.progress import Silent

FOLDER = Path(sys.argv[1])


class Printing(Silent):
    """Prints each record's trial and epoch."""

    def epoch(self, trial: Trial, record: EpochRecord) -> None:
        sys.stdout.write(f"{trial.name} {record.epoch}\n")
        sys.stdout.flush()


def train(trial: TrialHandle) -> None:
    import os
    import time

    beside = trial.folder.parents[2]
    with (beside / "pids").open("a") as pids:
        pids.write(f"{os.getpid()} ")
    for epoch in range(len(trial.reported) + 1, 5):
        while epoch == 3 and not (beside / "go-on").exists():
            time.sleep(0.05)
        trial.report(updates=epoch, val_accuracy=epoch / 10)


if __name__ == "__main__":
    batchscope.run(
        train,
        batch_sizes=[16, 32],
        replicates=1,
        out=FOLDER,
        executor="ray",
        address=sys.argv[2],
        watcher=Printing(),
    )
