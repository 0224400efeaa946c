"""Nodes that come and go, and those that are given up."""

from __future__ import annotations

from collections import Counter

import pytest

from batchscope.errors import ClusterError
from batchscope.running.cluster import fleet
from batchscope.running.cluster.fleet import Fleet
from batchscope.running.cluster.nodes import Node
from batchscope.running.options import ClusterOptions
from run_samples import Events

A, B, SMALL = Node("a" * 56, "one", 2), Node("b" * 56, "two", 4), Node("c" * 56, "three", 0)


@pytest.fixture
def told() -> Events:
    return Events()


@pytest.fixture
def nodes(told: Events) -> Fleet:
    return Fleet(ClusterOptions(), told, (A, B, SMALL))


def test_the_emptiest_node_comes_first_and_full_ones_not_at_all(nodes: Fleet):
    assert nodes.free(Counter()) == [A, B]
    assert nodes.free(Counter({A.id: 1, B.id: 1})) == [B, A]
    assert nodes.free(Counter({A.id: 2, B.id: 3})) == [B]
    assert nodes.free(Counter({A.id: 2, B.id: 4})) == []


def test_a_node_that_refuses_is_given_up_and_the_last_ones_refusal_ends_the_waiting(
    nodes: Fleet, told: Events, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fleet, "LOOK_SECONDS", 0.0)
    nodes.bar(A.id, ClusterError("no room on its disk"))
    nodes.bar(A.id, ClusterError("no room for another trial"))
    assert nodes.with_room == [B]
    nodes.wait(1)
    nodes.bar(B.id, ClusterError("another version"))
    assert told.notes == [
        "node one (aaaaaaaa) is given up: no room on its disk",
        "no node has room for a trial; waiting 120 s for one",
        "node two (bbbbbbbb) is given up: another version",
    ]
    with pytest.raises(ClusterError, match="another version"):
        nodes.wait(1)


def test_a_node_that_loses_what_goes_well_elsewhere_is_given_up(nodes: Fleet, told: Events):
    for trial in ("b8-r1", "b16-r1", "b16-r1", "b32-r1"):  # nothing goes well anywhere
        nodes.broke(A.id, trial, "its GPU is gone")
    nodes.stored(A.id)
    for trial in ("b8-r1", "b16-r1", "b16-r1"):
        nodes.broke(A.id, trial, "its GPU is gone")
    nodes.stored(B.id)
    assert nodes.with_room == [A, B]
    nodes.broke(A.id, "b32-r1", "its GPU is gone")
    assert nodes.with_room == [B]
    for trial in ("b8-r1", "b16-r1", "b32-r1"):  # the last one is kept
        nodes.broke(B.id, trial, "its GPU is gone")
        nodes.stored(A.id)
    assert nodes.with_room == [B]
    assert told.notes == ["node one (aaaaaaaa) is given up: it lost 3 trials in a row; its GPU is gone"]


def test_a_node_on_which_three_workers_in_a_row_end_early_is_given_up(nodes: Fleet, told: Events):
    nodes.unready(A.id, "first")
    nodes.unready(A.id, "second")
    nodes.ready(A.id, {"python": "3.11"})
    for reason in ("third", "fourth"):
        nodes.unready(A.id, reason)
        assert nodes.with_room == [A, B]
    nodes.unready(A.id, "fifth")
    assert nodes.with_room == [B]
    assert told.notes == ["node one (aaaaaaaa) is given up: 3 workers in a row could not be set up; fifth"]


def test_software_that_differs_is_told(nodes: Fleet, told: Events):
    same = {"python": "3.11.7", "keras": "3.12.0", "tensorflow": "2.21.0", "stage one": "in full"}
    nodes.ready(A.id, same)
    nodes.ready(B.id, same | {"stage one": "cut"})
    assert told.notes == []
    nodes.ready(B.id, same | {"keras": "3.13.0"})
    [note] = told.notes
    assert note == (
        "node two (bbbbbbbb) trains with python 3.11.7, keras 3.13.0, tensorflow 2.21.0, others with "
        "python 3.11.7, keras 3.12.0, tensorflow 2.21.0: figures may differ"
    )


def test_nodes_that_come_and_go_are_told(nodes: Fleet, told: Events, monkeypatch: pytest.MonkeyPatch):
    new = Node("d" * 56, "four", 1)
    monkeypatch.setattr(fleet, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(fleet, "alive", lambda _: (B, SMALL, new))
    nodes.lost(B.id)
    assert nodes.with_room == [A]
    assert nodes.look() == [A.id]
    assert nodes.with_room == [B, new]
    assert told.notes == [
        "node one (aaaaaaaa) has left the cluster",
        "node four (dddddddd) has joined the cluster",
    ]


def test_what_was_waited_for_ends_the_waiting(nodes: Fleet, told: Events, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fleet, "LOOK_SECONDS", 0.0)
    nodes.wait(3)
    nodes.begun()
    monkeypatch.setattr(fleet, "_PATIENCE_SECONDS", -1.0)
    with pytest.raises(ClusterError, match="and 5 trials wait; add nodes"):
        nodes.wait(5)
    assert len(told.notes) == 2
