"""The way into a Ray cluster, and out of it again."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from batchscope.errors import ClusterError
from batchscope.running.stopping import ASK_TO_END

__all__ = ["connected", "refuse_without_ray"]


def refuse_without_ray() -> None:
    """Refuses to go on where what only Ray's extra installs is not there.

    Raises:
        ClusterError: So it is.
    """
    missing = [name for name in ("ray", "filelock") if importlib.util.find_spec(name) is None]
    if missing:
        raise ClusterError(
            f"the Ray executor needs {' and '.join(missing)}, which is not installed; "
            "pip install 'batchscope[ray]' on every machine of the cluster"
        )


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connects this process to a cluster for the length of the block.

    A connection that the program has already is used, and left as it is.

    Args:
        address: ``HOST:PORT`` of a cluster's head, ``auto`` for the one that this machine belongs to, or
            ``local`` for one of this machine alone, which is started here and ends with the block. None for
            the one that ``RAY_ADDRESS`` names, without that as ``auto``, and where there is none as
            ``local``.

    Raises:
        ClusterError: There is no such cluster.
    """
    # A cluster that is started here tells nobody of it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        from ray.util import client

        from_elsewhere: Any = client.ray
        if from_elsewhere.is_connected():
            raise _must_be_on_a_node("ray.init")
        yield
        return
    where = address or os.environ.get("RAY_ADDRESS", "")
    if "://" in where:
        raise _must_be_on_a_node(where)
    with _handlers_kept():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises that itself where a node is slow to start
            raise ClusterError(
                f"{address or os.environ.get('RAY_ADDRESS') or 'a cluster of this machine alone'}: must be a "
                f"Ray cluster that can be reached from here, but: {error}; if it asks for a token, set "
                "RAY_AUTH_MODE=token; see docs/clusters.md"
            ) from error
    try:
        yield
    finally:
        with _handlers_kept():
            ray.shutdown()


def _must_be_on_a_node(where: str) -> ClusterError:
    return ClusterError(
        f"{where}: a run must be started on a node of its cluster, by HOST:PORT or auto, for its driver "
        "keeps the results there; unset RAY_ADDRESS or give --address"
    )


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Puts back handlers that Ray replaces: its own for SIGTERM would end the run unsaid."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ASK_TO_END}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
