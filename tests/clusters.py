"""A Ray cluster of several nodes on this machine, and what a run asks of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from batchscope.running.machine import usable_cores
from batchscope.running.options import ClusterOptions, RunOptions

__all__ = ["LOCAL", "cluster", "on_ray"]

LOCAL = RunOptions(usable_cores())
"""Workers of one thread each, as trials on a cluster have by default: threads move the last bits."""
_SETTINGS = {
    "RAY_raylet_start_wait_time_s": "120",  # a machine that is busy starts its nodes late
    "RAY_AUTH_MODE": "disabled",  # with tokens a cluster of this kind ends the actors of other processes
    "RAY_USAGE_STATS_ENABLED": "0",
}


@contextmanager
def cluster(nodes: int = 2) -> Iterator[Any]:
    """Nodes of one core each, the first of them the head; this process is connected to them."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ.update(_SETTINGS)
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            started.add_node(num_cpus=1)
        ray.init(address=started.address, log_to_driver=False, logging_level=logging.ERROR)
        yield started
    finally:
        ray.shutdown()
        started.shutdown()


def on_ray(workers: int | None = None, **asked: Any) -> RunOptions:
    """A run on the cluster."""
    return RunOptions(workers, cluster=ClusterOptions(**asked))
