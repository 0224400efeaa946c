"""One run of `make scale`: trials of a function that only reports, through one executor.

``python scale_run.py EXECUTOR FOLDER REPLICATES EPOCHS`` prints what it measured as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import batchscope
from batchscope.running.folder import RunFolder
from batchscope.running.progress import Silent
from batchscope.running.store import Store
from nodes_run import Clock

__all__ = ["BATCH_SIZES", "ScaleRun"]

BATCH_SIZES = [2**power for power in range(3, 13)]


@dataclass(frozen=True)
class ScaleRun:
    """What a run took.

    Attributes:
        executor: ``local`` or ``ray``.
        trials: That were carried out.
        records: That were stored.
        workers: Trials at a time.
        start: Seconds from the call to the first trial.
        trained: Seconds from there to the end of the last trial.
        after: Seconds from there to the end of the call: clean-up and end of a cluster, then history,
            analysis, pictures and page.
        again: Seconds of the same call once more, which trains nothing and makes the report again.
        memory: Bytes, the most that the driver held; its workers are processes of their own.
    """

    executor: str
    trials: int
    records: int
    workers: int
    start: float
    trained: float
    after: float
    again: float
    memory: int

    @property
    def cost_of_trial(self) -> float:
        """Seconds of a worker that a trial took, which itself does nothing."""
        return self.trained * self.workers / self.trials


def training(epochs: int) -> Callable[[batchscope.TrialHandle], None]:
    """A function that reports made-up figures as fast as they are taken."""

    def train(trial: batchscope.TrialHandle) -> None:
        for epoch in range(1, epochs + 1):
            trial.report(
                updates=epoch * 4096 // trial.batch_size,
                train_loss=1 / epoch,
                train_accuracy=1 - 1 / (epoch + 1),
                val_loss=1 / epoch + 0.1,
                val_accuracy=0.8 - 0.5 / (epoch + 1) + trial.seed % 1000 / 1e4,
            )

    return train


def main(executor: str, folder: Path, replicates: int, epochs: int) -> None:
    """Runs and prints."""

    def run(watcher: Silent) -> batchscope.Run:
        return batchscope.run(
            training(epochs),
            name="scale",
            out=folder,
            batch_sizes=BATCH_SIZES,
            replicates=replicates,
            executor=executor,
            address="local" if executor == "ray" else None,
            watcher=watcher,
        )

    clock, begin = Clock(), time.perf_counter()
    run(clock)
    end = time.perf_counter()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    again = run(Silent())
    measured = ScaleRun(
        executor=executor,
        trials=len(again.trials),
        records=len(again.history),
        workers=_workers(folder),
        start=clock.last - clock.trained - begin,
        trained=clock.trained,
        after=end - clock.last,
        again=time.perf_counter() - end,
        memory=memory,
    )
    sys.stdout.write(json.dumps(asdict(measured)) + "\n")


def _workers(folder: Path) -> int:
    with Store(RunFolder(folder).database) as store:
        return int(store.sessions()[0][2]["workers"])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
