"""Batch sizes in a process whose memory is limited: the largest that fits is found, and has been run."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import batchscope
from batchscope.analysis.sizing import MARGIN
from batchscope.running import pool
from run_samples import TESTS, python_path
from tiny import stage

pytestmark = [
    pytest.mark.keras,
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="only Linux limits a process's address space"
    ),
]

# Each example becomes 1,024 x 1,024 px in 8 channels, 32 MiB, and its gradient as much again.
LARGE = """
import keras

def build(input_shape, classes):
    inputs = keras.Input(input_shape)
    x = keras.layers.UpSampling2D(256)(inputs)
    x = keras.layers.Conv2D(8, 1, use_bias=False)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))
"""
ROOM = 384  # MiB


@pytest.mark.timeout(600)
def test_the_largest_size_that_fits_is_found_and_its_double_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "large_network.py").write_text(LARGE, encoding="utf-8")
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    np.savez(tmp_path / "noise.npz", x=rng.integers(0, 255, (40, 4, 4, 1)).astype(np.uint8), y=labels)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", python_path(tmp_path))
    monkeypatch.setattr(pool, "_COMMAND", (sys.executable, str(TESTS / "limited_worker.py"), str(ROOM)))
    study = {
        "name": "large",
        "batch_sizes": [8],
        "replicates": 1,
        "probes": "none",
        "data": {"source": "noise.npz", "validation_share": 0.05},  # 2: these take memory, too
        "model": {"network": "large_network:build"},
        "stages": [stage("all_of_it", "all", epochs=1)],
    }
    found = batchscope.probe(study, batch_sizes=(2, 32), seconds=0.05)
    assert found.largest is not None
    assert found.too_large is not None
    assert found.row(found.largest).fits
    assert found.largest < found.too_large <= found.largest + max(found.largest // 16, 1)
    for row in found.rows:
        assert row.fits == (row.batch_size <= found.largest)
    uses = {row.batch_size: row.memory for row in found.rows if row.memory is not None}
    assert {use.kind for use in uses.values()} == {"address_space"}
    assert all(use.peak <= (use.limit or 0) for use in uses.values())
    roomy = [size for size, use in uses.items() if use.share <= MARGIN]
    assert found.largest_with_room == max(roomy, default=None)
