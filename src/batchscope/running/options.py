"""How a run uses the machine; nothing here is part of the study."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import ByteSize, TypeAdapter, ValidationError

from batchscope.errors import Problem, StudyError

__all__ = ["ClusterOptions", "RunOptions", "cluster_options", "parse_size"]


_SMALLEST_SHARE = 0.0001  # that Ray tells from nothing


@dataclass(frozen=True)
class ClusterOptions:
    """What a run asks of a Ray cluster.

    Attributes:
        address: As for `batchscope.running.cluster.connection.connected`.
        cpus_per_trial: That a trial is given, shares of one allowed; it computes with as many threads as
            these are whole ones, at least one.
        gpus_per_trial: Likewise.

    Raises:
        StudyError: One is negative, both are 0, or the address is that of a Ray client.
    """

    address: str | None = None
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0

    def __post_init__(self) -> None:
        problems = [
            Problem(key, "must be a number from 0 on", f"{value:g}")
            for key in ("cpus_per_trial", "gpus_per_trial")
            if not (math.isfinite(value := getattr(self, key)) and value >= 0)
        ]
        problems += [
            Problem(key, "must be a whole number above 1, and 0 or at least 0.0001 below", f"{value:g}")
            for key in ("cpus_per_trial", "gpus_per_trial")
            if (value := getattr(self, key)) > 0
            and (value < _SMALLEST_SHARE or (value > 1 and not float(value).is_integer()))
        ]
        if self.cpus_per_trial == self.gpus_per_trial == 0:
            problems.append(Problem("cpus_per_trial", "must be above 0 where gpus_per_trial is 0", "0"))
        if self.address is not None and "://" in self.address:
            rule = (
                "must be HOST:PORT of the cluster's head, auto or local; start the run on a node of "
                "the cluster, for its driver keeps the results there"
            )
            problems.append(Problem("address", rule, self.address))
        if problems:
            raise StudyError("run", problems)

    @property
    def threads(self) -> int:
        """That a trial computes with."""
        return max(math.floor(self.cpus_per_trial), 1)


@dataclass(frozen=True)
class RunOptions:
    """How a run uses the machine.

    Attributes:
        workers: Trials at a time; None lets the run choose.
        cache_limit: Bytes that ready features may take up on disk, of each node on a cluster.
        cluster: The Ray cluster to run on; None for this machine's own processes.

    Raises:
        StudyError: There is to be no worker.
    """

    workers: int | None = None
    cache_limit: int = 8_000_000_000
    cluster: ClusterOptions | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise StudyError("run", [Problem("workers", "must be at least 1", str(self.workers))])


def cluster_options(
    executor: str, address: str | None, cpus_per_trial: float | None, gpus_per_trial: float | None
) -> ClusterOptions | None:
    """What is asked of a cluster, as somebody gave it; None with the local executor.

    Args:
        executor: ``local`` or ``ray``.
        address: As in `ClusterOptions`; None as everywhere here where it was not given.
        cpus_per_trial: As there, 1 by default.
        gpus_per_trial: As there, 0 by default.

    Raises:
        StudyError: There is no such executor, or the local one is given what only Ray has a use for.
    """
    given = {"address": address, "cpus_per_trial": cpus_per_trial, "gpus_per_trial": gpus_per_trial}
    if executor == "ray":
        cpus = 1.0 if cpus_per_trial is None else cpus_per_trial
        return ClusterOptions(address, cpus, gpus_per_trial or 0.0)
    if executor != "local":
        raise StudyError("run", [Problem("executor", "must be local or ray", repr(executor))])
    idle = [
        Problem(key, 'needs executor = "ray"', f"{value}")
        for key, value in given.items()
        if value is not None
    ]
    if idle:
        raise StudyError("run", idle)
    return None


def parse_size(size: int | str, key: str = "cache_limit") -> int:
    """Bytes from a number of them, or from a text such as ``8GB`` (10^9) or ``8GiB`` (2^30).

    Args:
        size: As given.
        key: Names it in the message.

    Raises:
        StudyError: It is no size.
    """
    try:
        return int(TypeAdapter(ByteSize).validate_python(size))
    except ValidationError as error:
        rule = "must be a number of bytes, or a size such as 500MB, 8GB or 8GiB"
        raise StudyError("run", [Problem(key, rule, repr(size))]) from error
