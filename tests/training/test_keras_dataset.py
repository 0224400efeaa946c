"""What Keras downloads becomes an archive that the data layer reads; only the download itself is planted."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path

import numpy as np
import pytest

from array_samples import load
from batchscope.training.keras_dataset import main

pytestmark = pytest.mark.keras

IMAGES = np.random.default_rng(6).integers(0, 256, (10, 28, 28), np.uint8)
LABELS = np.arange(10, dtype=np.uint8) % 5


def plant(monkeypatch: pytest.MonkeyPatch, name: str, path: Path) -> None:
    """Answers a dataset's download with a file or folder that is there."""
    module = importlib.import_module(f"keras.src.datasets.{name}")
    monkeypatch.setattr(module, "get_file", lambda *_, **__: str(path))


def test_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    parts = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:5], "y_test": LABELS[:5]}
    np.savez(tmp_path / "downloaded.npz", **parts)
    plant(monkeypatch, "mnist", tmp_path / "downloaded.npz")
    main("mnist", tmp_path / "kept" / "mnist.npz")
    dataset = load(tmp_path / "kept" / "mnist.npz")
    np.testing.assert_array_equal(dataset.inputs[..., 0], np.concatenate([IMAGES, IMAGES[:5]]))
    np.testing.assert_array_equal(dataset.labels, np.concatenate([LABELS, LABELS[:5]]))


def test_cifar100_keeps_its_colours_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Keras unpickles these archives itself, after it has held them against their digest."""
    import keras

    planes = np.random.default_rng(7).integers(0, 256, (6, 3, 32, 32), np.uint8)
    (tmp_path / "cifar-100-python").mkdir()
    for part in ("train", "test"):
        batch = {b"data": planes.reshape(6, -1), b"fine_labels": [5, 9, 5, 9, 5, 9]}
        (tmp_path / "cifar-100-python" / part).write_bytes(pickle.dumps(batch))
    plant(monkeypatch, "cifar100", tmp_path)
    keras.config.set_image_data_format("channels_first")
    try:
        main("cifar100", tmp_path / "kept.npz")
    finally:
        keras.config.set_image_data_format("channels_last")
    dataset = load(tmp_path / "kept.npz")
    np.testing.assert_array_equal(dataset.inputs[:6], planes.transpose(0, 2, 3, 1))
    assert (dataset.classes, dataset.labels[:3].tolist()) == (("5", "9"), [0, 1, 0])


def test_a_failed_download_ends_with_a_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> str:
        raise Exception("URL fetch failure on mnist.npz:\n  None -- [Errno -3] no name")  # noqa: TRY002

    monkeypatch.setattr(importlib.import_module("keras.src.datasets.mnist"), "get_file", fail)
    with pytest.raises(SystemExit, match=r"^URL fetch failure on mnist.npz: None -- \[Errno -3\] no name$"):
        main("mnist", tmp_path / "mnist.npz")
    assert list(tmp_path.iterdir()) == []
