"""A Ray cluster of several nodes on this machine, and what a run asks of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from batchscope.api import Run
from batchscope.running.machine import usable_cores
from batchscope.running.options import ClusterOptions, RunOptions
from batchscope.spec import Study
from run_samples import small_study
from timeless import history_without_time
from tiny import stage

__all__ = ["LOCAL", "assert_alike", "cluster", "on_ray", "study_of_views"]

LOCAL = RunOptions(usable_cores())
"""Workers of one thread each, as trials on a cluster have by default: threads move the last bits."""
_SETTINGS = {
    "RAY_raylet_start_wait_time_s": "120",  # a machine that is busy starts its nodes late
    "RAY_AUTH_MODE": "disabled",  # with tokens a cluster of this kind ends the actors of other processes
    "RAY_USAGE_STATS_ENABLED": "0",
}


@contextmanager
def cluster(nodes: int = 2) -> Iterator[Any]:
    """Nodes of one core each, the first of them the head; this process is connected to them.

    The head has two GPUs in name: Ray hands out their numbers.
    """
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as environment:
        for name, value in _SETTINGS.items():
            environment.setenv(name, value)
        started = Cluster()
        try:
            with pytest.MonkeyPatch.context() as of_the_head:
                of_the_head.setenv("CUDA_VISIBLE_DEVICES", "0,1")
                started.add_node(num_cpus=1, num_gpus=2, include_dashboard=False)
            for _ in range(nodes - 1):
                started.add_node(num_cpus=1, num_gpus=0)
            ray.init(address=started.address, log_to_driver=False, logging_level=logging.ERROR)
            yield started
        finally:
            ray.shutdown()
            started.shutdown()


def on_ray(workers: int | None = None, **asked: Any) -> RunOptions:
    """A run on the cluster."""
    return RunOptions(workers, cluster=ClusterOptions(**asked))


def study_of_views(epochs: int) -> Study:
    """Two batch sizes and two replicates of Keras, whose augmented views nodes make ready."""
    return small_study(
        replicates=2, stages=[stage("one", "head", epochs=epochs, augmentation={"rotation": 10})]
    )


def assert_alike(found: Path, expected: Path) -> None:
    """Two runs' histories agree to 1e-6, but for what clocks and the system's memory tell."""
    histories = [history_without_time(Run(folder).history) for folder in (found, expected)]
    pd.testing.assert_frame_equal(*histories, check_exact=False, rtol=1e-6, atol=1e-6)
