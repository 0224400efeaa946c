"""Runs on a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from clusters import cluster


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Any]:
    """A cluster of two nodes with one core each, to which the tests are connected."""
    pytest.importorskip("ray")
    with cluster(2) as started:
        yield started
