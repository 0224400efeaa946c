"""Arrays of features: filled once, together, through deaths and full disks; never the wrong one."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from feature_worker import CHUNK, SHAPE, value

from batchscope.errors import TrainingError
from batchscope.training import features
from batchscope.training.features import NOTHING_KEPT, FeatureStore

WORKER = Path(__file__).with_name("feature_worker.py")
IN_USE = {name: getattr(features, name) for name in ("_CHUNK_BYTES", "_CHUNK_MULTIPLE")}
STARTS = list(range(0, SHAPE[0], CHUNK))
WHOLE = value(np.arange(SHAPE[0]))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_CHUNK_BYTES", CHUNK * 4 * SHAPE[1])
    monkeypatch.setattr(features, "_CHUNK_MULTIPLE", 1)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(behaviour: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(WORKER), str(tmp_path), behaviour]
        started.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ends(process: subprocess.Popen[str]) -> list[str]:
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return said.splitlines()


class Asked:
    """Computes, and remembers what."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor, self.positions = factor, []

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        self.positions.append(positions.tolist())
        return self.factor * value(positions)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def files(folder: Path) -> set[str]:
    return {path.suffix for path in folder.iterdir()}


def test_an_array_is_computed_once_in_chunks_of_the_same_examples(tmp_path: Path):
    first, second = Asked(), Asked()
    found = FeatureStore(tmp_path, 10**6).ready("all-training", "key", SHAPE, first)
    assert first.positions == [list(range(at, min(at + CHUNK, SHAPE[0]))) for at in STARTS]
    np.testing.assert_array_equal(found, WHOLE)
    assert (found.dtype, found.flags.writeable) == (np.float32, False)
    again = FeatureStore(tmp_path, 10**6).ready("all-training", "key", SHAPE, second)
    assert second.positions == []
    np.testing.assert_array_equal(again, WHOLE)


def test_processes_fill_an_array_together_each_chunk_once(
    tmp_path: Path, worker: Callable[[str], subprocess.Popen[str]]
):
    # Each waits within its first chunk until the others are in theirs, which must therefore be other ones.
    said = [ends(process) for process in [worker("meet-3") for _ in range(3)]]
    assert {lines[-1] for lines in said} == {f"sum {WHOLE.sum():.0f}"}
    computed = [[int(line) for line in lines[:-1]] for lines in said]
    assert all(computed)
    assert sorted(at for each in computed for at in each) == STARTS


def test_a_killed_process_leaves_its_chunk_to_another(
    tmp_path: Path, worker: Callable[[str], subprocess.Popen[str]]
):
    dying = worker("hang")
    assert dying.stdout is not None
    assert dying.stdout.readline() == "0\n"
    heir = worker("work")
    assert heir.stdout is not None
    others = [int(heir.stdout.readline()) for _ in STARTS[1:]]
    assert others == STARTS[1:]
    assert heir.poll() is None  # it waits for the chunk that is being computed
    dying.kill()
    assert ends(heir) == ["0", f"sum {WHOLE.sum():.0f}"]


def test_what_a_killed_process_has_done_is_not_done_again(tmp_path: Path):
    def breaks(positions: np.ndarray) -> np.ndarray:
        if positions[0] == STARTS[4]:
            raise KeyboardInterrupt
        return value(positions)

    with pytest.raises(KeyboardInterrupt):
        FeatureStore(tmp_path, 10**6).ready("all-training", "key", SHAPE, breaks)
    rest = Asked()
    found = FeatureStore(tmp_path, 10**6).ready("all-training", "key", SHAPE, rest)
    assert [positions[0] for positions in rest.positions] == STARTS[4:]
    np.testing.assert_array_equal(found, WHOLE)


@pytest.mark.parametrize(
    ("name", "key", "shape"),
    [
        ("all-training", "other", SHAPE),
        ("r1-training", "key", SHAPE),
        ("all-training", "key", (SHAPE[0] - 1, 4)),
    ],
)
def test_another_key_name_or_shape_is_another_array(
    tmp_path: Path, name: str, key: str, shape: tuple[int, ...]
):
    store = FeatureStore(tmp_path, 10**6)
    store.ready("all-training", "key", SHAPE, Asked())
    other = Asked(factor=2)
    np.testing.assert_array_equal(store.ready(name, key, shape, other), 2 * WHOLE[: shape[0]])
    assert len(other.positions) == len(STARTS)
    np.testing.assert_array_equal(store.ready("all-training", "key", SHAPE, Asked(factor=3)), WHOLE)


@pytest.mark.parametrize("suffix", [".npy", ".state"])
def test_an_array_that_lost_a_file_is_computed_anew(tmp_path: Path, suffix: str):
    store = FeatureStore(tmp_path, 10**6)
    store.ready("all-training", "key", SHAPE, Asked())
    (gone,) = tmp_path.glob(f"*{suffix}")
    gone.unlink()
    anew = Asked(factor=2)
    np.testing.assert_array_equal(store.ready("all-training", "key", SHAPE, anew), 2 * WHOLE)
    assert len(anew.positions) == len(STARTS)


def test_room_is_set_aside_up_to_the_limit(tmp_path: Path):
    store = FeatureStore(tmp_path, 100)
    assert [store.admit(size) for size in (60, 41, 40, 1)] == [True, False, True, False]
    assert not NOTHING_KEPT.admit(1)


def test_a_full_disk_is_told_with_its_remedy_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(file: int, start: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = open_files()
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(TrainingError, match=r"need 2\.5 GB here.* No space left.*smaller --cache-limit"):
            FeatureStore(tmp_path, 10**10).ready("all-training", "key", (618_000_000, 1), Asked())
    assert files(tmp_path) <= {".state"}
    assert open_files() == before
    asked = Asked()
    np.testing.assert_array_equal(
        FeatureStore(tmp_path, 10**6).ready("all-training", "key", SHAPE, asked), WHOLE
    )
    assert len(asked.positions) == len(STARTS)


def test_a_limit_on_the_size_of_files_is_told_likewise(
    tmp_path: Path, worker: Callable[[str], subprocess.Popen[str]]
):
    (said,) = ends(worker("small"))
    assert "File too large" in said
    assert "give a smaller --cache-limit (0 computes them anew in every trial)" in said
    assert files(tmp_path) <= {".state"}


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path):
    (tmp_path / "cache").touch()
    with pytest.raises(TrainingError, match=r"cache: ready features need .* --cache-limit 0 \(0 computes"):
        FeatureStore(tmp_path / "cache", 10**6).ready("all-training", "key", SHAPE, Asked())


def test_chunks_are_small_and_hold_whole_parts(monkeypatch: pytest.MonkeyPatch):
    for name, value_in_use in IN_USE.items():
        monkeypatch.setattr(features, name, value_in_use)
    # The features behind MobileNetV2's block 10 at 96 pixels, pooled ones, and some larger than a chunk.
    for shape, rows in (((768, 6, 6, 96), 64), ((768, 1280), 192), ((768, 512, 512, 3), 32)):
        assert features._rows(shape) == rows
        bounds = [features._bounds(shape, chunk) for chunk in range(features._count(shape))]
        assert [row for start, end in bounds for row in range(start, end)] == list(range(768))
