"""One run of `make scale`: how many letters the desk of a run through Ray takes.

``python desk_run.py LETTERS`` prints what it measured as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from batchscope.records import EpochRecord
from batchscope.running.cluster.desk import Desk
from batchscope.running.messages import EpochDone, Stored

__all__ = ["DeskRun"]

_TASKS = 2
_AT_A_TIME = 200  # as many as there would be trials at work
_RECORD = EpochRecord(
    stage="training",
    epoch=1,
    updates=512,
    examples=4096,
    seconds=1.0,
    learning_rate=0.1,
    train_loss=1.0,
    train_accuracy=0.5,
    val_loss=1.1,
    val_accuracy=0.5,
)


@dataclass(frozen=True)
class DeskRun:
    """What a desk took, with nobody storing anything.

    Attributes:
        answered: Letters a second that wait for an answer, as those with records do.
        unanswered: Letters a second that wait for none, as those of progress do.
    """

    answered: float
    unanswered: float


def write(desk: Any, letters: int, *, wait: bool) -> None:
    """Leaves letters, so many at a time."""
    import ray

    method = desk.ask if wait else desk.put
    for _ in range(letters // _AT_A_TIME):
        ray.get([method.remote(0, EpochDone(_RECORD)) for _ in range(_AT_A_TIME)])


def rate(letters: int, *, wait: bool) -> float:
    """Letters a second, taken as the driver takes them."""
    import ray

    remote: Any = ray.remote
    desk = remote(num_cpus=0, max_concurrency=_TASKS * _AT_A_TIME + 10)(Desk).remote()
    task = remote(num_cpus=1)(write)
    ray.get(task.remote(desk, 0, wait=wait))  # its process is there
    begin, taken = time.perf_counter(), 0
    tasks = [task.remote(desk, letters // _TASKS, wait=wait) for _ in range(_TASKS)]
    mail = desk.exchange.remote({})
    while taken < letters:
        found = ray.get(mail)
        taken += len(found)
        mail = desk.exchange.remote({one.ticket: Stored() for one in found if one.ticket is not None})
    ray.get(tasks)
    return letters / (time.perf_counter() - begin)


def main(letters: int) -> None:
    """Measures and prints."""
    import ray

    ray.init(address="local", num_cpus=_TASKS, log_to_driver=False)
    measured = DeskRun(rate(letters, wait=True), rate(letters, wait=False))
    sys.stdout.write(json.dumps(asdict(measured)) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
