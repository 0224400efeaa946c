"""MLflow asks nobody, and runs have workers that train nothing, one at a time."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from batchscope.running import pool, run
from batchscope.running.machine import Machine
from run_samples import STUB, Stub

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# TensorBoard looks for this name to learn that it is to do without TensorFlow.
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    def misbehave(*how: str) -> None:
        monkeypatch.setattr(pool, "_COMMAND", (sys.executable, str(STUB), *how))

    monkeypatch.setattr(run, "look_around", lambda: Machine(1, None, gpu=False))
    misbehave("train")
    return misbehave


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of MLflow's with its tables, to be copied: making them takes seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path
