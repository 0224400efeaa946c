"""One run of `make scale`: equal trials of Keras on a Ray cluster of one-core nodes on this machine.

``python nodes_run.py NODES FOLDER`` prints what it measured as JSON.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import batchscope
from batchscope.loading import parse_study
from batchscope.records import Trial, TrialState
from batchscope.running.progress import Silent

__all__ = ["TRIALS", "NodesRun"]

TRIALS = 10
_STUDY = {
    "name": "nodes",
    "batch_sizes": [32],
    "replicates": TRIALS,
    "seed": 2019,
    "data": {"source": "synthetic-cactus", "images": 2000},
    "model": {"network": "cnn", "image_size": 32},
    "stages": [
        {"name": "training", "trainable": "all", "optimizer": "sgd", "learning_rate": 0.05, "epochs": 5}
    ],
}


@dataclass(frozen=True)
class NodesRun:
    """What a run took.

    Attributes:
        nodes: Of one core each.
        trials: Equal ones, one after the other on each node.
        whole: Seconds of the call, from the data to the page.
        trained: Seconds from the first trial's start to the last one's end.
    """

    nodes: int
    trials: int
    whole: float
    trained: float


class Clock(Silent):
    """When the first trial began and the last ended."""

    first: float | None = None
    last = 0.0

    def started(self, trial: Trial, examples: int, seconds: float) -> None:
        self.first = time.perf_counter() if self.first is None else self.first

    def ended(self, trial: Trial, state: TrialState, error: str | None) -> None:
        self.last = time.perf_counter()

    @property
    def trained(self) -> float:
        """Seconds between."""
        if self.first is None:
            raise RuntimeError("a run that is measured must train a trial")
        return self.last - self.first


def main(nodes: int, folder: Path) -> None:
    """Starts the nodes, runs and prints."""
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(nodes - 1):
        cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    clock, begin = Clock(), time.perf_counter()
    run = batchscope.run(parse_study(_STUDY, "nodes"), out=folder, executor="ray", watcher=clock)
    whole = time.perf_counter() - begin
    if any(trial.state != TrialState.COMPLETE for trial in run.trials):
        raise RuntimeError("all trials must complete")
    sys.stdout.write(json.dumps(asdict(NodesRun(nodes, len(run.trials), whole, clock.trained))) + "\n")
    ray.shutdown()
    cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
