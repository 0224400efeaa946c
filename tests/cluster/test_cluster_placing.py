"""Which trial goes to which node, how many a node has room for, and what a run may ask of a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchscope.errors import ClusterError, StudyError
from batchscope.records import Trial
from batchscope.running.cluster.nodes import Node, refuse_too_small, room_on
from batchscope.running.cluster.placing import Queue
from batchscope.running.options import ClusterOptions, cluster_options
from batchscope.running.pool import Job

ALL = {"a", "b", "c"}


def jobs(*replicates: int, sizes: tuple[int, ...] = (8, 16, 32)) -> list[Job]:
    return [Job(Trial(size, replicate), Path("state")) for replicate in replicates for size in sizes]


def taken(queue: Queue, *nodes: str) -> list[str | None]:
    jobs = [queue.take(node, ALL) for node in nodes]
    return [None if job is None else job.trial.name for job in jobs]


def test_a_node_goes_on_with_the_replicate_that_it_has_and_another_begins_the_next():
    queue = Queue(jobs(1, 2, 3))
    assert taken(queue, "a", "b", "a", "b", "a", "b") == [
        *("b8-r1", "b8-r2"),
        *("b16-r1", "b16-r2"),
        *("b32-r1", "b32-r2"),
    ]
    assert taken(queue, "b") == ["b8-r3"]
    assert queue.replicates == {3}


def test_a_node_without_work_of_its_own_helps_where_most_waits():
    queue = Queue([*jobs(1, sizes=(8,)), *jobs(2), *jobs(3, sizes=(8, 16))])
    assert taken(queue, "a", "b", "c") == ["b8-r1", "b8-r2", "b8-r3"]
    assert taken(queue, "a", "a", "a") == ["b16-r2", "b32-r2", "b16-r3"]
    assert len(queue) == 0
    assert queue.take("a", ALL) is None
    assert queue.begun == {1, 2, 3}


def test_one_replicate_is_spread_over_nodes_that_would_idle():
    queue = Queue(jobs(1))
    assert taken(queue, "a", "b", "c") == ["b8-r1", "b16-r1", "b32-r1"]


def test_what_is_put_back_comes_next_and_a_lost_node_keeps_nothing():
    queue = Queue(jobs(1, 2))
    first = queue.take("a", ALL)
    assert first is not None
    assert taken(queue, "b") == ["b8-r2"]
    queue.lost("a")
    queue.put_back(first)
    assert taken(queue, "b", "b", "b") == ["b16-r2", "b32-r2", "b8-r1"]
    queue.add(jobs(1, sizes=(64,)))
    assert taken(queue, "c", "b", "b") == ["b16-r1", "b32-r1", "b64-r1"]


def test_a_trial_goes_to_none_of_the_nodes_that_lost_it_while_there_are_others():
    queue = Queue(jobs(1, sizes=(8, 16)))
    first = queue.take("a", ALL)
    assert first is not None
    queue.put_back(first, lost_on="a")
    assert taken(queue, "a", "a") == ["b16-r1", None]
    assert len(queue) == 1
    assert taken(queue, "b") == ["b8-r1"]
    queue.put_back(first, lost_on="b")
    assert taken(queue, "b", "a") == [None, None]  # though c may be busy for hours
    assert queue.take("a", {"a", "b"}) == first  # c has left
    queue.put_back(first, lost_on="a")
    assert taken(queue, "c") == ["b8-r1"]


@pytest.mark.parametrize(
    ("cpus", "gpus", "slots"),
    [
        (1.0, 0.0, 4),
        (3.0, 0.0, 1),
        (0.1, 0.0, 40),
        (1.0, 0.5, 4),
        (1.0, 1.0, 2),
        (0.0, 0.25, 8),
        (5.0, 0.0, 0),
    ],
)
def test_a_node_has_room_for_as_many_trials_as_its_scarcest_resource(cpus: float, gpus: float, slots: int):
    told = [
        {"NodeID": "1", "NodeManagerHostname": "one", "Alive": True, "Resources": {"CPU": 4.0, "GPU": 2.0}},
        {"NodeID": "2", "NodeManagerHostname": "two", "Alive": False, "Resources": {"CPU": 64.0}},
    ]
    options = ClusterOptions(cpus_per_trial=cpus, gpus_per_trial=gpus)
    assert room_on(told, options) == (Node("1", "one", slots),)


def test_a_node_without_gpus_has_no_room_for_a_trial_that_asks_for_one():
    told = [{"NodeID": "1", "NodeManagerHostname": "one", "Alive": True, "Resources": {"CPU": 4.0}}]
    options = ClusterOptions(gpus_per_trial=0.5)
    nodes = room_on(told, options)
    assert nodes == (Node("1", "one", 0),)
    rule = r"asks for 1 CPUs and 0\.5 GPUs; some node of the cluster must have as many.*\(nodes: one\)"
    with pytest.raises(ClusterError, match=rule):
        refuse_too_small(nodes, options)
    refuse_too_small([*nodes, Node("2", "two", 1)], options)


@pytest.mark.parametrize(("cpus", "threads"), [(0.5, 1), (1.0, 1), (4.0, 4)])
def test_a_trial_computes_with_its_whole_cpus(cpus: float, threads: int):
    assert ClusterOptions(cpus_per_trial=cpus).threads == threads


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        (("ray", None, -1.0, None), "cpus_per_trial: must be a number from 0 on (got -1)"),
        (("ray", None, float("nan"), None), "cpus_per_trial: must be a number from 0 on (got nan)"),
        (("ray", None, 0.0, None), "cpus_per_trial: must be above 0 where gpus_per_trial is 0 (got 0)"),
        (
            ("ray", None, 1.5, None),
            "cpus_per_trial: must be a whole number above 1, and 0 or at",
        ),
        (("ray", None, None, 0.00001), "gpus_per_trial: must be a whole number above 1, and 0 or at least"),
        (("ray", "ray://head:10001", None, None), "must be HOST:PORT of the cluster's head, auto or local"),
        (("local", "auto", None, None), 'address: needs executor = "ray" (got auto)'),
        (("local", None, None, 0.0), 'gpus_per_trial: needs executor = "ray" (got 0.0)'),
        (("slurm", None, None, None), "executor: must be local or ray (got 'slurm')"),
    ],
)
def test_what_cannot_be_asked_of_a_cluster_is_refused(
    given: tuple[str, str | None, float | None, float | None], rule: str
):
    with pytest.raises(StudyError) as refused:
        cluster_options(*given)
    assert rule in str(refused.value)


def test_what_is_not_asked_is_one_cpu_and_no_gpu():
    assert cluster_options("local", None, None, None) is None
    assert cluster_options("ray", None, None, None) == ClusterOptions(None, 1.0, 0.0)
    assert cluster_options("ray", "auto", 0.0, 0.5) == ClusterOptions("auto", 0.0, 0.5)
