"""Runs a study that replicates are added to, and kills itself or a worker once at each place asked for.

Arguments: the run's folder, the number of workers, the number of learning rates, and a folder in which a file
stands for each place where a kill is to come: ``run b32-r4`` or ``worker b32-r4``, within that trial, and
``before b32-r4`` or ``after b32-r4``, as the run plans it. The exit code is 1 where a trial did not complete.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import batchscope
from batchscope import api
from batchscope.own.handle import TrialHandle
from batchscope.records import Trial, TrialState
from batchscope.running.store import Store

folder, workers, rates, kills = sys.argv[1:]
api.Run.write_report = lambda self: self.path  # type: ignore[method-assign]
plan = Store.plan


def train(trial: TrialHandle) -> None:
    import os
    import random
    import signal
    from pathlib import Path

    tried = trial.learning_rate or 0.0
    drawn = random.Random(f"{trial.batch_size} {trial.seed} {tried}")
    figure = 0.8 - tried / 4 + drawn.gauss(0, {16: 0.001, 32: 0.03}[trial.batch_size])
    name = f"b{trial.batch_size}-r{trial.replicate}"
    for epoch in (1, 2):
        trial.report(updates=epoch, val_accuracy=figure - 0.1 * (2 - epoch))
        for victim, pid in (("run", os.getppid()), ("worker", os.getpid())):
            place = Path(kills) / f"{victim} {name}"
            if place.exists():
                place.unlink()
                os.kill(pid, signal.SIGKILL)


def die_at(place: Path) -> None:
    if place.exists():
        place.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def planning(self: Store, trials: Sequence[Trial]) -> None:
    names = [f"b{trial.batch_size}-r{trial.replicate}" for trial in trials if trial.replicate > 3]
    for when in ("before", "after"):
        if when == "after":
            plan(self, trials)
        for name in names:
            die_at(Path(kills) / f"{when} {name}")


if __name__ == "__main__":
    Store.plan = planning  # type: ignore[method-assign]
    run = batchscope.run(
        train,
        batch_sizes=[16, 32],
        replicates=3,
        until_ci=0.03,
        max_replicates=9,
        learning_rates=[0.1, 0.2, 0.4][: int(rates)] if int(rates) else None,
        out=folder,
        workers=int(workers),
        quiet=True,
    )
    sys.exit(any(status.state is not TrialState.COMPLETE for status in run.trials))
