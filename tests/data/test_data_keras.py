"""Datasets of Keras by name: fetched by a process of its own, once, and told of where that fails."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from array_samples import load, refusal
from batchscope.data import keras_datasets
from batchscope.errors import DataError

FETCHER = """
import sys
from pathlib import Path
import numpy as np
name, target = sys.argv[1:]
if "{what}" == "fail":
    sys.exit("Exception: URL fetch failure with token {secret}")
if "{what}" == "die":
    sys.exit(3)
Path(target).parent.mkdir(parents=True)
x, y = np.arange(12 * 16, dtype=np.uint8).reshape(12, 4, 4), np.arange(12).reshape(12, 1) % 2
np.savez(target, x_train=x, y_train=y, x_test=x[:4], y_test=y[:4])
"""


def fetching(monkeypatch: pytest.MonkeyPatch, folder: Path, what: str, secret: str = "") -> Path:
    """Puts a program of our own in Keras' place; gives the folder that takes the archives."""
    program = folder / "fetch.py"
    program.write_text(FETCHER.format(what=what, secret=secret))
    monkeypatch.setattr(keras_datasets, "_COMMAND", (sys.executable, str(program)))
    monkeypatch.setattr("platformdirs.user_cache_path", lambda _: folder / "cache")
    return folder / "cache" / "datasets"


def test_what_is_fetched_is_read_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = fetching(monkeypatch, tmp_path, "fetch")
    dataset = load("keras:mnist")
    np.testing.assert_array_equal(dataset.inputs.ravel()[: 12 * 16], np.arange(12 * 16))
    assert (dataset.given, dataset.classes, dataset.source) == (4, ("0", "1"), "keras:mnist")
    assert dataset.notes[0].startswith(
        "keras:mnist has no validation part of its own, so its test part is used"
    )
    assert [path.name for path in kept.iterdir()] == ["mnist.npz"]
    fetching(monkeypatch, tmp_path, "fail")
    assert load("keras:mnist").fingerprint() == dataset.fingerprint()
    with pytest.raises(DataError, match="URL fetch failure"):
        load("keras:cifar10")


def test_a_failure_says_why_and_hides_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "hunter2hunter2")
    fetching(monkeypatch, tmp_path, "fail", secret="hunter2hunter2")
    told = refusal("keras:mnist")
    assert "keras:mnist: Keras must be able to fetch it, but: Exception: URL fetch failure" in told
    assert "bring the arrays yourself as a .npz archive" in told
    assert "hunter2" not in told
    fetching(monkeypatch, tmp_path, "die")
    assert "but: it ended with exit code 3" in refusal("keras:mnist")
    assert not (tmp_path / "cache").exists()


def test_a_label_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetching(monkeypatch, tmp_path, "fail")
    assert "data.label names a column of a table" in refusal("keras:mnist", label="y")
