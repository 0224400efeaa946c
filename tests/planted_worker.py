"""The real worker program around a trainer that trains nothing and fails as its argument says.

``hungry`` needs 1 GiB at batch size 16 in a process that may have a quarter of that more than it
has; ``telling`` fails at batch size 16 with an error that holds the texts in ``PLANTED``.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from batchscope.records import BatchProgress, EpochRecord, Trial
from batchscope.running import worker
from batchscope.running.recipes import KerasRecipe
from batchscope.training.memory import shortage_told
from stub_worker import made_up

EPOCHS = 2


class Trainer:
    """Speaks as the real one does."""

    def __init__(self, behaviour: str) -> None:
        self._fails: Callable[[], object] = {"hungry": hungry, "telling": telling}[behaviour]

    def run(
        self,
        trial: Trial,
        checkpoint: Path,
        stored_epochs: int,
        on_batch: Callable[[BatchProgress], None],
    ) -> Iterator[EpochRecord]:
        with shortage_told(f"training at batch size {trial.batch_size}"):
            for epoch in range(stored_epochs + 1, EPOCHS + 1):
                if trial.batch_size == 16:
                    self._fails()
                yield made_up(epoch, trial.batch_size, 1 / (epoch + trial.replicate))


def hungry() -> None:
    np.ones(2**27)


def telling() -> None:
    raise ConnectionError(f"refused: {os.environ['PLANTED']}")


def main() -> None:
    behaviour = sys.argv[1]
    if behaviour == "hungry":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + 2**28
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    recipe = KerasRecipe(Trainer(behaviour))  # type: ignore[arg-type]
    worker._prepare = lambda set_up: (recipe, {"keras": "planted"})
    worker.main()


if __name__ == "__main__":
    main()
