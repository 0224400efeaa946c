"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# TensorFlow reads these when it is first imported, in tests and in the workers that they start.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# OpenBLAS reads this when NumPy is first imported. Where other tests keep the cores busy, its threads wait
# for each other in turn: a fit by scipy.optimize then took 25 times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# The tests start hundreds of processes, each of which would compile the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's root."""
    return Path(__file__).parents[1]
