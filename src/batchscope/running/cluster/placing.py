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
    has had; else of the one of which most trials wait, which so gets a further home. A trial that was lost
    is given to no node that has lost it while there are others.

    Args:
        jobs: In the order in which to start them, as far as their places leave it so.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._waiting: dict[int, deque[Job]] = {}
        self._homes: dict[int, set[str]] = {}
        self._shunned: dict[str, set[str]] = {}
        self._count = 0
        self.add(jobs)

    def __len__(self) -> int:
        return self._count

    @property
    def replicates(self) -> Set[int]:
        """Those of which trials wait."""
        return self._waiting.keys()

    @property
    def begun(self) -> Set[int]:
        """Those of which trials were taken."""
        return self._homes.keys()

    def add(self, jobs: Iterable[Job]) -> None:
        """Puts jobs behind those of their replicates that wait."""
        for job in jobs:
            self._waiting.setdefault(job.trial.replicate, deque()).append(job)
            self._count += 1

    def put_back(self, job: Job, lost_on: str | None = None) -> None:
        """Puts a job before all others of its replicate.

        Args:
            job: The job.
            lost_on: The node that lost it.
        """
        self._waiting.setdefault(job.trial.replicate, deque()).appendleft(job)
        self._count += 1
        if lost_on is not None:
            self._shunned.setdefault(job.trial.name, set()).add(lost_on)

    def take(self, node: str, nodes: Set[str]) -> Job | None:
        """Takes the next job for a node; None where there is none for it.

        Args:
            node: Ray's id.
            nodes: All that trials may be given to.
        """
        for replicate in self._by_preference(node):
            waiting = self._waiting[replicate]
            for job in waiting:
                shunned = self._shunned.get(job.trial.name, set())
                if node in shunned and nodes - shunned:
                    continue
                waiting.remove(job)
                self._count -= 1
                self._homes.setdefault(replicate, set()).add(node)
                if not waiting:
                    del self._waiting[replicate]
                return job
        return None

    def _by_preference(self, node: str) -> list[int]:
        def rank(replicate: int) -> tuple[int, int]:
            homes = self._homes.get(replicate)
            if homes and node in homes:
                return 0, 0
            return (2, -len(self._waiting[replicate])) if homes else (1, 0)

        return sorted(self._waiting, key=rank)

    def lost(self, node: str) -> None:
        """A node is gone with what it kept."""
        for homes in self._homes.values():
            homes.discard(node)
