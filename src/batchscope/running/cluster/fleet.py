"""The nodes that a run uses: which are there, which are fit for it, and which has room next."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Protocol

from batchscope.errors import ClusterError
from batchscope.running.cluster.nodes import Node, alive
from batchscope.running.options import ClusterOptions

__all__ = ["LOOK_SECONDS", "Fleet"]

LOOK_SECONDS = 2.0
_SOFTWARE = ("python", "keras", "tensorflow", "jax", "torch")
_PATIENCE_SECONDS = 120.0
_UNREADY = 3
"""Workers in a row that may end on a node before they are set up, ahead of its being given up."""
_BREAKS = 3
"""Trials that a node may lose, none of its own getting further between and others elsewhere, likewise."""


class _Told(Protocol):
    def note(self, text: str) -> None:
        """Something worth telling."""


class Fleet:
    """The nodes of a cluster as one run sees them.

    Args:
        options: What a trial asks for.
        told: Of nodes that come, go and are given up.
        nodes: Those that are there.
    """

    def __init__(self, options: ClusterOptions, told: _Told, nodes: tuple[Node, ...]) -> None:
        self._options, self._told = options, told
        self._nodes = {node.id: node for node in nodes}
        self._looked = time.monotonic()
        self._barred: dict[str, Exception] = {}
        self._gone: set[str] = set()
        self._unready: Counter[str] = Counter()
        self._records = 0
        self._broken: dict[str, tuple[int, set[str]]] = {}
        self._software: Mapping[str, str] | None = None
        self._idle_since: float | None = None

    @property
    def with_room(self) -> list[Node]:
        """Those that have room for a trial, were they idle, and are not given up."""
        return [
            node
            for node in self._nodes.values()
            if node.slots and node.id not in self._barred and node.id not in self._gone
        ]

    def name(self, node: str) -> str:
        """Of a node's host, with the beginning of its id, for several nodes may be one machine."""
        known = self._nodes.get(node)
        return f"{known.name if known else 'of before'} ({node[:8]})"

    def free(self, busy: Counter[str]) -> list[Node]:
        """Those with a slot left, emptiest first, so that few trials are spread over all.

        Args:
            busy: Trials under way, by node.
        """
        free = [node for node in self.with_room if busy[node.id] < node.slots]
        return sorted(free, key=lambda node: busy[node.id] / node.slots)

    def look(self) -> list[str]:
        """Sees from time to time which nodes have come and gone; gives the ids of the latter."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return []
        self._looked = time.monotonic()
        self._gone.clear()
        before, self._nodes = self._nodes, {node.id: node for node in alive(self._options)}
        left = [node for node in before if node not in self._nodes]
        for node in left:
            self._told.note(f"node {before[node].name} ({node[:8]}) has left the cluster")
        for node in self._nodes.keys() - before.keys():
            self._told.note(f"node {self.name(node)} has joined the cluster")
        return left

    def lost(self, node: str) -> None:
        """A node was not there for a task: none is sent to it before the next look."""
        self._gone.add(node)

    def ready(self, node: str, facts: Mapping[str, str]) -> None:
        """A worker is set up; that its software is another than that of the first is told."""
        self._unready[node] = 0
        software = {name: facts[name] for name in _SOFTWARE if name in facts}
        if self._software is None:
            self._software = software
        elif software != self._software:
            self._told.note(
                f"node {self.name(node)} trains with {_listed(software)}, others with "
                f"{_listed(self._software)}: figures may differ"
            )

    def unready(self, node: str, reason: str) -> None:
        """A worker ended before it was set up."""
        self._unready[node] += 1
        if self._unready[node] == _UNREADY:
            self.bar(node, ClusterError(f"{_UNREADY} workers in a row could not be set up; {reason}"))

    def stored(self, node: str) -> None:
        """A trial has got further there."""
        self._records += 1
        self._broken.pop(node, None)

    def broke(self, node: str, trial: str, reason: str) -> None:
        """A worker that was set up is gone, and with it a trial.

        It may be the trial's fault or the node's. The latter is given up, where there are others: one that
        loses trial after trial is always free, and would see each of them fail.
        """
        before, trials = self._broken.setdefault(node, (self._records, set()))
        trials.add(trial)
        if len(trials) >= _BREAKS and self._records > before and len(self.with_room) > 1:
            self.bar(node, ClusterError(f"it lost {len(trials)} trials in a row; {reason}"))

    def bar(self, node: str, error: Exception) -> None:
        """Gives a node up for this run; what is under way there goes on."""
        if node not in self._barred:
            self._told.note(f"node {self.name(node)} is given up: {str(error).strip().splitlines()[-1]}")
            self._barred[node] = error

    def wait(self, waiting: int) -> None:
        """Waits a little where no node has room and nothing is under way.

        Args:
            waiting: Trials that wait.

        Raises:
            Exception: All nodes with room are given up; why the last one was.
            ClusterError: None has come for `_PATIENCE_SECONDS`.
        """
        if self._barred and not self._gone and not self.with_room:
            raise list(self._barred.values())[-1]
        if self._idle_since is None:
            self._idle_since = time.monotonic()
            self._told.note(f"no node has room for a trial; waiting {_PATIENCE_SECONDS:g} s for one")
        if time.monotonic() - self._idle_since > _PATIENCE_SECONDS:
            raise ClusterError(
                "some node of the cluster must have room for a trial, but none had for "
                f"{_PATIENCE_SECONDS:g} s, and {waiting} trials wait; add nodes, then the same command goes "
                "on"
            )
        time.sleep(LOOK_SECONDS)

    def begun(self) -> None:
        """A trial begins: whatever was waited for is there."""
        self._idle_since = None


def _listed(software: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in software.items())
