"""The nodes of a cluster, and how many trials each has room for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from batchscope.errors import ClusterError
from batchscope.running.options import ClusterOptions

__all__ = ["Node", "alive", "refuse_too_small", "room_on"]

# Shares such as 0.1 do not add up to 1 exactly.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Node:
    """A node that is there.

    Attributes:
        id: Ray's, hexadecimal.
        name: Of its host.
        slots: Trials that it has room for at a time, were there nothing else.
    """

    id: str
    name: str
    slots: int


def alive(options: ClusterOptions) -> tuple[Node, ...]:
    """The nodes that are there now."""
    import ray

    return room_on(ray.nodes(), options)  # type: ignore[no-untyped-call]


def room_on(told: Iterable[Mapping[str, Any]], options: ClusterOptions) -> tuple[Node, ...]:
    """The nodes that are alive, of those that Ray tells of.

    Args:
        told: As `ray.nodes` returns them.
        options: What a trial asks for.
    """
    return tuple(
        Node(node["NodeID"], node["NodeManagerHostname"], _slots(node["Resources"], options))
        for node in told
        if node["Alive"]
    )


def _slots(resources: Mapping[str, float], options: ClusterOptions) -> int:
    asked = {"CPU": options.cpus_per_trial, "GPU": options.gpus_per_trial}
    return min(
        math.floor(resources.get(name, 0.0) / amount + _ROUNDING) for name, amount in asked.items() if amount
    )


def refuse_too_small(nodes: Iterable[Node], options: ClusterOptions) -> None:
    """Refuses a cluster of which no node has room for a trial.

    Raises:
        ClusterError: So it is.
    """
    there = list(nodes)
    if any(node.slots for node in there):
        return
    names = ", ".join(sorted({node.name for node in there})) or "none"
    raise ClusterError(
        f"a trial asks for {options.cpus_per_trial:g} CPUs and {options.gpus_per_trial:g} GPUs; some node "
        f"of the cluster must have as many, but none has (nodes: {names}); give a smaller --cpus-per-trial "
        "or --gpus-per-trial, or add such a node"
    )
