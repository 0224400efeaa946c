"""Training that is measured and not kept: blocks by a made-up clock, memory that was taken, and no trace."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from backbones import small_study

from batchscope.records import Trial
from batchscope.training import memory_use
from batchscope.training.features import FeatureStore
from batchscope.training.memory import shortage_of
from batchscope.training.memory_use import MemoryMeter, peak_since_reset, reset_peaks
from batchscope.training.rehearsal import rehearse, time_blocks
from batchscope.training.trial import Trainer
from timeless import without_time
from tiny import TRAINING, stage, tiny_data

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux resets high-water marks")
MIB = 2**20


class Clock:
    """Every update takes `seconds`, the first ten times as long."""

    def __init__(self, seconds: float) -> None:
        self.now, self.seconds, self.blocks = 0.0, seconds, list[int]()

    def train(self, updates: int) -> None:
        self.now += self.seconds * (updates + (0 if self.blocks else 9))
        self.blocks.append(updates)

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "most", "block", "count"),
    [
        (0.001, 1000, 64, 16),  # a twentieth of a second takes 50 updates
        (0.001, 10, 10, 100),
        (0.001, 1, 1, 1000),
        (0.5, 1000, 1, 3),  # three blocks, though two take the time
        (20.0, 1000, 1, 3),
    ],
)
def test_blocks_are_as_long_as_the_clock_needs(seconds: float, most: int, block: int, count: int):
    clock = Clock(seconds)
    found, times = time_blocks(clock.train, most, 1.0, clock)
    assert found == block
    assert abs(len(times) - count) <= 1
    assert times == pytest.approx([seconds] * len(times))
    assert clock.blocks[-len(times) :] == [block] * len(times)
    assert max(clock.blocks) <= most


@linux
def test_memory_that_was_taken_and_given_back_is_told():
    assert reset_peaks()
    meter = MemoryMeter(memory=10**12)
    del_me = np.ones(64 * MIB // 8)
    del del_me
    [use] = [use for use in meter.uses() if use.kind == "resident"]
    assert 60 * MIB < use.peak - use.idle < 100 * MIB
    assert use.limit == 10**12
    assert peak_since_reset() == pytest.approx(use.peak, abs=4 * MIB)
    meter.reset()
    [after] = [use for use in meter.uses() if use.kind == "resident"]
    assert after.peak < use.peak - 50 * MIB


@linux
def test_what_was_freed_before_counts_no_more():
    """Freed below a block that is still in use, it is kept for later unless the library is asked."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim"):
        pytest.skip("needs glibc")
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    blocks = [library.malloc(MIB // 16) for _ in range(64 * 16)]
    for block in blocks:
        ctypes.memset(block, 1, MIB // 16)
    reset_peaks()
    full = peak_since_reset()
    for block in blocks[:-1]:
        library.free(block)
    assert reset_peaks()
    after = peak_since_reset()
    library.free(blocks[-1])
    assert full is not None
    assert after is not None
    assert full - after > 50 * MIB


@linux
def test_the_address_space_is_told_where_it_is_limited(monkeypatch: pytest.MonkeyPatch):
    assert {use.kind for use in MemoryMeter(None).uses()} == {"resident"}
    monkeypatch.setattr(memory_use.resource, "getrlimit", lambda _: (2**40, 2**41))
    uses = {use.kind: use for use in MemoryMeter(None).uses()}
    assert uses.keys() == {"resident", "address_space"}
    assert uses["address_space"].limit == 2**40
    assert uses["address_space"].peak >= uses["resident"].peak
    assert np.isnan(uses["resident"].share)


def test_elsewhere_getrusage_tells_and_nothing_is_reset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(memory_use, "_PROC", tmp_path / "none")
    assert not reset_peaks()
    told = SimpleNamespace(ru_maxrss=5)
    monkeypatch.setattr(memory_use.resource, "getrusage", lambda _: told)
    for system, expected in (("darwin", 5), ("freebsd14", 5 * 1024)):
        monkeypatch.setattr(sys, "platform", system)
        assert peak_since_reset() == expected
    monkeypatch.setattr(memory_use, "resource", None)
    assert MemoryMeter(1).uses() == ()
    assert peak_since_reset() is None


def test_a_gpus_memory_is_tensorflows(monkeypatch: pytest.MonkeyPatch):
    reset: list[str] = []
    experimental = SimpleNamespace(
        reset_memory_stats=reset.append, get_memory_info=lambda _: {"current": 10, "peak": 70}
    )
    config = SimpleNamespace(experimental=experimental, list_physical_devices=lambda _: ["a GPU"])
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(config=config))
    devices = [
        SimpleNamespace(name=f"/device:{name}", memory_limit=size)
        for name, size in (("CPU:0", 1), ("GPU:0", 90))
    ]
    device_lib = SimpleNamespace(list_local_devices=lambda: devices)
    monkeypatch.setitem(sys.modules, "tensorflow.python.client", SimpleNamespace(device_lib=device_lib))
    meter = MemoryMeter(None)
    [gpu] = [use for use in meter.uses() if use.kind == "gpu"]
    assert (gpu.idle, gpu.peak, gpu.limit) == (10, 70, 90)
    assert peak_since_reset() == 70
    meter.reset()
    assert reset == ["GPU:0"]


def test_what_tensorflow_could_not_have_is_told():
    class ResourceExhaustedError(Exception):
        pass

    told = "Graph execution error:\n\nDetected at node\nOOM when allocating tensor with shape[8,2]\n"
    assert shortage_of(ResourceExhaustedError(told)) == "OOM when allocating tensor with shape[8,2]"
    assert shortage_of(MemoryError()) == "MemoryError"
    assert shortage_of(ValueError("alloc")) is None


@pytest.mark.keras
@pytest.mark.usefixtures("small_net")
def test_each_stage_is_measured_with_what_ends_it_and_no_figure_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stages = [
        stage("head_stage", "head", epochs=2),
        stage("whole", "all", epochs=3, batchnorm="batch", augmentation={"horizontal_flip": True}),
    ]
    study = small_study(stages=stages, batch_sizes=[8], probe_images=16)
    trainer = Trainer(study, tiny_data(), FeatureStore(tmp_path, 10**8))
    trial = Trial(8, 1)
    before = [replace(record, probes={}) for record in trainer.run(trial)]
    ended: list[str] = []
    real = Trainer.end_stage
    monkeypatch.setattr(
        Trainer,
        "end_stage",
        lambda self, planned, *rest: (ended.append(planned.stage.name), real(self, planned, *rest)),
    )
    found = rehearse(trainer, trial, 0.02, MemoryMeter(10**12))
    assert [(one.stage, one.examples) for one in found] == [
        ("head_stage", 2 * TRAINING),
        ("whole", 3 * TRAINING),
    ]
    assert ended == ["head_stage", "whole"]
    for one in found:
        assert 1 <= one.block <= TRAINING // 8
        assert len(one.seconds) >= 3
        assert min(one.seconds) > 0
        assert one.memory[0].peak > 100 * MIB
    # What each is fed: the head's features, and the images for the whole network.
    fed = [trainer.shown(planned).take(np.arange(2))[0].shape for planned in trainer.stages(trial)]
    assert fed == [(2, 16), (2, 32, 32, 3)]
    after = [replace(record, probes={}) for record in trainer.run(trial)]
    assert without_time(after) == without_time(before)
