"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# TensorFlow reads these when it is first imported, in tests and in the workers that they start.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's root."""
    return Path(__file__).parents[1]
