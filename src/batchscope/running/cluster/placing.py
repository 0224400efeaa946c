"""Which trial goes to which node: those of a replicate go where its shared views are already."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Set

from batchscope.running.pool import Job

__all__ = ["Queue"]


class Queue:
    """Jobs that wait, by replicate.

    All trials of a replicate are shown the same images, in views that a node makes ready once and keeps on
    its disk. So a node takes on trials of a replicate that it has had before; else of one that no node
    has had; else of the one of which most trials wait, which so gets a further home.

    Args:
        jobs: In the order in which to start them, as far as their places leave it so.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._waiting: dict[int, deque[Job]] = {}
        self._homes: dict[int, set[str]] = {}
        self._count = 0
        self.add(jobs)

    def __len__(self) -> int:
        return self._count

    @property
    def replicates(self) -> Set[int]:
        """Those of which trials wait."""
        return self._waiting.keys()

    def add(self, jobs: Iterable[Job]) -> None:
        """Puts jobs behind those of their replicates that wait."""
        for job in jobs:
            self._waiting.setdefault(job.trial.replicate, deque()).append(job)
            self._count += 1

    def put_back(self, job: Job) -> None:
        """Puts a job before all others of its replicate."""
        self._waiting.setdefault(job.trial.replicate, deque()).appendleft(job)
        self._count += 1

    def take(self, node: str) -> Job:
        """Takes the next job for a node.

        Raises:
            IndexError: None waits.
        """
        if not self._waiting:
            raise IndexError("no job waits")
        replicate = self._choose(node)
        self._homes.setdefault(replicate, set()).add(node)
        waiting = self._waiting[replicate]
        job = waiting.popleft()
        self._count -= 1
        if not waiting:
            del self._waiting[replicate]
        return job

    def _choose(self, node: str) -> int:
        homeless = None
        for replicate in self._waiting:
            homes = self._homes.get(replicate)
            if homes and node in homes:
                return replicate
            if not homes and homeless is None:
                homeless = replicate
        if homeless is not None:
            return homeless
        return max(self._waiting, key=lambda replicate: len(self._waiting[replicate]))

    def lost(self, node: str) -> None:
        """A node is gone with what it kept."""
        for homes in self._homes.values():
            homes.discard(node)
