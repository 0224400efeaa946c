"""Runs whose workers and machine are made up."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from executions import Execution

from batchscope.running import pool, run
from batchscope.running.machine import Machine
from run_samples import STUB, Stub


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says what the machine has; where a test does not, one core, so that trials run in their order."""

    def has(cores: int, memory: int | None = None, *, gpu: bool = False) -> None:
        monkeypatch.setattr(run, "look_around", lambda: Machine(cores, memory, gpu))

    has(1)
    return has


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    def misbehave(*how: str) -> None:
        monkeypatch.setattr(pool, "_COMMAND", (sys.executable, str(STUB), *how))

    misbehave("train")
    return misbehave


@pytest.fixture
def execution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Execution:
    return Execution(tmp_path, monkeypatch)
