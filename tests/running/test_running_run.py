"""A whole run with workers that train nothing: states, sessions, data, and going on."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from batchscope.errors import DataError, RunFolderError, StudyError
from batchscope.records import Trial, TrialState
from batchscope.running import layout, pool, provenance, run
from batchscope.running.folder import RunFolder
from batchscope.running.machine import Machine
from batchscope.running.options import RunOptions, parse_size
from batchscope.running.run import run_study
from batchscope.running.store import Store
from run_samples import STUB, Events, logged_threads, small_study

Stub = Callable[..., None]


@pytest.fixture(autouse=True)
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


def states(folder: Path) -> list[tuple[str, str, int]]:
    with Store(RunFolder(folder).database) as store:
        return [(status.trial.name, status.state.value, status.epochs) for status in store.trials()]


@pytest.mark.usefixtures("stub")
def test_a_run_stores_everything_and_tells_it(tmp_path: Path):
    seen, folder = Events(), tmp_path / "run"
    statuses = run_study(small_study(), folder, seen)
    assert [(status.trial.name, status.state, status.error) for status in statuses] == [
        ("b8-r1", TrialState.COMPLETE, None),
        ("b16-r1", TrialState.COMPLETE, None),
    ]
    assert seen.notes[0] == "reading the images of synthetic-cactus"
    assert seen.planned == [(2, 0, 2 * 2 * 48)]
    assert seen.starts == [("b8-r1", 0, 0.0), ("b16-r1", 0, 0.0)]
    assert seen.records == [("b8-r1", 1), ("b8-r1", 2), ("b16-r1", 1), ("b16-r1", 2)]
    assert seen.ends == [("b8-r1", TrialState.COMPLETE, None), ("b16-r1", TrialState.COMPLETE, None)]
    with Store(folder / "results.sqlite") as store:
        summary, samples = store.data() or pytest.fail("nothing kept")
        [(started, ended, facts)] = store.sessions()
    assert (summary.source, summary.classes) == ("synthetic-cactus", ("0", "1"))
    assert (summary.training, summary.validation) == ((12, 36), (3, 9))
    assert [sample.label for sample in samples] == ["0"] * 12 + ["1"] * 12
    assert started <= str(ended)
    assert facts["keras"] == "stub"
    assert (facts["workers"], facts["threads of a worker"]) == ("1", "1")
    assert facts["choice of workers"] == "there are trials for all cores"
    assert "1 worker with 1 thread: there are trials for all cores" in seen.notes


def test_a_diverged_trial_is_finished_and_not_tried_again(tmp_path: Path, stub: Stub):
    stub("diverge", "b8-r1")
    run_study(small_study(), tmp_path / "run", Events())
    assert states(tmp_path / "run") == [("b8-r1", "diverged", 1), ("b16-r1", "complete", 2)]
    again = Events()
    run_study(small_study(), tmp_path / "run", again)
    assert (again.planned, again.starts) == ([(2, 2, 0)], [])


def test_a_failed_trial_goes_on_next_time_from_what_is_stored(tmp_path: Path, stub: Stub):
    stub("be killed", "b8-r1")
    statuses = run_study(small_study(), tmp_path / "run", Events())
    assert states(tmp_path / "run") == [("b8-r1", "failed", 1), ("b16-r1", "complete", 2)]
    assert str(statuses[0].error).endswith("the worker process was ended by SIGKILL")
    stub("train")
    again = Events()
    run_study(small_study(), tmp_path / "run", again)
    assert again.planned == [(2, 1, 48)]
    assert again.starts == [("b8-r1", 48, 2.0)]
    assert again.records == [("b8-r1", 2)]
    assert states(tmp_path / "run") == [("b8-r1", "complete", 2), ("b16-r1", "complete", 2)]
    with Store(tmp_path / "run" / "results.sqlite") as store:
        assert store.trials()[0].error is None
        assert len(store.sessions()) == 2


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, stub: Stub):
    folder = tmp_path / "run"
    run_study(small_study(), folder, Events())
    shutil.rmtree(folder / "cache")
    with Store(folder / "results.sqlite") as store:
        before = store.sessions()
    stub("refuse")
    run_study(small_study(), folder, Events())
    with Store(folder / "results.sqlite") as store:
        assert store.sessions() == before
    assert not (folder / "cache").exists()


def test_checkpoints_of_finished_trials_are_removed_and_others_kept(tmp_path: Path, stub: Stub):
    place, study = RunFolder(tmp_path / "run"), small_study()
    with place.claim(study):
        place.checkpoints.mkdir()
    for name in ("b8-r1", "b16-r1"):
        (place.checkpoints / f"{name}.npz").write_bytes(b"state")
    stub("be killed", "b8-r1")
    run_study(study, place.path, Events())
    assert [entry.name for entry in place.checkpoints.iterdir()] == ["b8-r1.npz"]


class Stopping(Events):
    def epoch(self, *told: object) -> None:
        raise KeyboardInterrupt


@pytest.mark.usefixtures("stub")
def test_ctrl_c_leaves_the_epoch_that_was_told_stored(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        run_study(small_study(), tmp_path / "run", Stopping())
    assert states(tmp_path / "run") == [("b8-r1", "running", 1), ("b16-r1", "waiting", 0)]
    again = Events()
    run_study(small_study(), tmp_path / "run", again)
    assert again.planned == [(2, 0, 3 * 48)]
    assert again.records == [("b8-r1", 2), ("b16-r1", 1), ("b16-r1", 2)]


def image_folder(path: Path, per_class: int = 30) -> Path:
    rng = np.random.default_rng(1)
    for label in ("cat", "dog"):
        (path / label).mkdir(parents=True)
        for number in range(per_class):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path / label / f"{number:02}.png")
    return path


def test_images_that_changed_since_are_refused(tmp_path: Path, stub: Stub):
    images = image_folder(tmp_path / "images")
    study = small_study(data={"source": str(images)})
    stub("be killed")
    run_study(study, tmp_path / "run", Events())
    before = states(tmp_path / "run")
    Image.new("RGB", (8, 8), "green").save(images / "cat" / "07.png")
    with pytest.raises(RunFolderError, match="must be those that the run began with") as caught:
        run_study(study, tmp_path / "run", Events())
    assert "restore the images" in str(caught.value)
    assert states(tmp_path / "run") == before


@pytest.mark.usefixtures("stub")
def test_skipped_images_are_recorded_and_told(tmp_path: Path):
    images = image_folder(tmp_path / "images")
    (images / "dog" / "03.png").write_bytes(b"no image")
    study = small_study(data={"source": str(images)})
    with pytest.raises(DataError, match=r"03\.png"):
        run_study(study, tmp_path / "refused", Events())
    seen = Events()
    run_study(small_study(data={"source": str(images), "skip_bad_images": True}), tmp_path / "run", seen)
    assert "bad images left out: 1; the page lists them" in seen.notes
    with Store(tmp_path / "run" / "results.sqlite") as store:
        summary, _ = store.data() or pytest.fail("nothing kept")
    assert [name for name, _ in summary.skipped] == ["dog/03.png"]
    assert sum(summary.training) + sum(summary.validation) == 59


def test_too_large_a_batch_is_refused_before_anything_is_trained(tmp_path: Path):
    with pytest.raises(DataError, match="got batch size 64 and 48 images"):
        run_study(small_study(batch_sizes=[8, 64]), tmp_path / "run", Events())
    assert states(tmp_path / "run") == []


def test_a_cache_that_finds_no_room_is_told(tmp_path: Path):
    study = small_study()
    with RunFolder(tmp_path / "run").claim(study):
        (tmp_path / "run" / "cache").touch()
    with pytest.raises(RunFolderError, match="the images must find room here, but"):
        run_study(study, tmp_path / "run", Events())


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/opt/bin/batchscope", "run", "demo", "--out", "my runs"], "batchscope run demo --out 'my runs'"),
        (["/x/batchscope/__main__.py", "run", "demo"], "python -m batchscope run demo"),
        (["notebook.py"], "notebook.py"),
    ],
)
def test_the_command_can_be_pasted_into_a_shell(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], command: str
):
    monkeypatch.setattr(sys, "argv", argv)
    assert provenance.surroundings()["command"] == command


def test_surroundings_tell_the_machine_and_no_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2hunter2")
    facts = provenance.surroundings()
    assert set(facts) == {"batchscope", "command", "system", "processor", "cores", "memory"}
    assert int(facts["cores"]) >= 1
    assert "hunter2" not in "".join(facts.values())


STUDY = small_study(replicates=3)


def facts_of(folder: Path) -> list[tuple[str, str, str]]:
    """Workers, threads and the reason for them in each session."""
    with Store(folder / "results.sqlite") as store:
        names = ("workers", "threads of a worker", "choice of workers")
        return [tuple(facts[name] for name in names) for _, _, facts in store.sessions()]  # type: ignore[misc]


@pytest.mark.usefixtures("stub")
def test_the_history_is_the_same_whatever_the_number_of_workers(tmp_path: Path, machine: Callable[..., None]):
    machine(8)
    histories = []
    for workers in (1, 2, 4):
        folder = tmp_path / str(workers)
        run_study(STUDY, folder, Events(), RunOptions(workers=workers))
        assert facts_of(folder) == [(str(workers), str(8 // workers), "as asked for")]
        assert logged_threads(folder / "logs") == [8 // workers] * workers
        with Store(folder / "results.sqlite") as store:
            histories.append(store.history("tiny"))
    assert len(histories[0]) == 12
    for history in histories[1:]:
        pd.testing.assert_frame_equal(history, histories[0], check_exact=True)


@pytest.mark.usefixtures("stub")
def test_trials_begin_replicate_by_replicate_with_several_workers(
    tmp_path: Path, machine: Callable[..., None]
):
    machine(2)
    seen = Events()
    run_study(STUDY, tmp_path / "run", seen)
    expected = ["b8-r1", "b16-r1", "b8-r2", "b16-r2", "b8-r3", "b16-r3"]
    assert [start[0] for start in seen.starts] == expected
    assert facts_of(tmp_path / "run") == [("2", "1", "there are trials for all cores")]


@pytest.mark.usefixtures("stub")
def test_what_was_measured_is_told_stored_and_used_again(
    tmp_path: Path, machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    machine(4)
    monkeypatch.setattr(layout, "MEASURED_FROM_EXAMPLES", 6 * 2 * 48)
    monkeypatch.setenv("STUB_PACE", "100,0,0,150")
    seen, folder = StopsAtFirstEpoch(), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_study(STUDY, folder, seen)
    reason = "fastest of 1 worker with 4 threads (150 images/s), 4 workers with 1 thread each (400 images/s)"
    assert "measuring what is fastest: 1 worker with 4 threads, 4 workers with 1 thread each" in seen.notes
    assert f"4 workers with 1 thread each: {reason}" in seen.notes
    assert facts_of(folder) == [("4", "1", reason)]
    machine(2)
    run_study(STUDY, folder, Events())
    assert facts_of(folder)[1] == ("2", "1", "threads as in the session before")
    assert logged_threads(folder / "logs")[:2] == [1, 1]


class StopsAtFirstEpoch(Events):
    def epoch(self, *told: object) -> None:
        raise KeyboardInterrupt


@pytest.mark.usefixtures("stub")
def test_a_run_goes_on_with_its_threads_unless_workers_are_asked_for(
    tmp_path: Path, machine: Callable[..., None]
):
    machine(6)
    folder = tmp_path / "run"
    for options in (RunOptions(workers=2), RunOptions(), RunOptions(workers=6)):
        with pytest.raises(KeyboardInterrupt):
            run_study(STUDY, folder, StopsAtFirstEpoch(), options)
    before = "threads as in the session before"
    assert facts_of(folder) == [("2", "3", "as asked for"), ("2", "3", before), ("6", "1", "as asked for")]


def test_before_an_epoch_is_stored_the_choice_is_free(
    tmp_path: Path, machine: Callable[..., None], stub: Stub
):
    machine(4)
    stub("be killed before the first epoch")
    run_study(STUDY, tmp_path / "run", Events(), RunOptions(workers=1))
    stub("train")
    run_study(STUDY, tmp_path / "run", Events())
    assert facts_of(tmp_path / "run")[1] == ("4", "1", "there are trials for all cores")


class Looking(Events):
    """Notes the features that are there whenever a trial has ended, and makes some of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._features = RunFolder(folder).features
        self.seen: list[tuple[str, list[str]]] = []

    def started(self, trial: Trial, *counts: float) -> None:
        self._features.mkdir(exist_ok=True)
        for name in (f"r{trial.replicate}-e1.npy", "all-base.npy"):
            (self._features / name).touch()

    def ended(self, trial: Trial, *told: str | None) -> None:
        self.seen.append((trial.name, sorted(path.name for path in self._features.iterdir())))


def test_features_are_deleted_when_no_trial_needs_them(tmp_path: Path, stub: Stub):
    folder, study = tmp_path / "run", small_study(replicates=2)
    stub("be killed", "b16-r1")
    seen = Looking(folder)
    run_study(study, folder, seen)
    base = "all-base.npy"
    assert seen.seen == [
        ("b8-r1", [base, "r1-e1.npy"]),
        ("b16-r1", [base]),
        ("b8-r2", [base, "r2-e1.npy"]),
        ("b16-r2", [base]),
    ]
    left_behind = RunFolder(folder).features / "r2-lost.npy"
    left_behind.touch()
    stub("train")
    seen = Looking(folder)
    run_study(study, folder, seen)
    assert seen.seen == [("b16-r1", [base])]
    assert not RunFolder(folder).features.exists()


@pytest.mark.usefixtures("stub")
def test_workers_are_told_where_features_go_and_how_many_bytes_they_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given = []
    monkeypatch.setattr(run, "execute", lambda set_up, *_: given.append(set_up))
    run_study(small_study(), tmp_path / "run", Events(), RunOptions(cache_limit=123))
    [set_up] = given
    assert (set_up.data, set_up.cache) == (tmp_path / "run/cache", tmp_path / "run/cache/features")
    assert set_up.cache_limit == 123


@pytest.mark.usefixtures("stub")
def test_features_leave_half_of_the_free_disk_alone_and_the_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given = []
    monkeypatch.setattr(run, "execute", lambda set_up, *_: given.append(set_up))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000_000))
    watcher = Events()
    run_study(small_study(), tmp_path / "run", watcher, RunOptions(cache_limit=8_000_000_000))
    assert given[0].cache_limit == 2_500_000_000
    assert "ready features may take 2.5 GB, half of what is free on the disk" in watcher.notes
    watcher = Events()
    run_study(small_study(), tmp_path / "run", watcher, RunOptions(cache_limit=2_500_000_000))
    assert given[1].cache_limit == 2_500_000_000
    assert not [note for note in watcher.notes if "ready features" in note]


@pytest.mark.usefixtures("stub")
def test_features_of_an_earlier_session_are_not_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(KeyboardInterrupt):
        run_study(small_study(), tmp_path / "run", StopsAtFirstEpoch())
    features = RunFolder(tmp_path / "run").features
    features.mkdir(exist_ok=True)
    (features / "all-base.npy").touch()
    found = []
    monkeypatch.setattr(run, "execute", lambda *_: found.append(features.exists()))
    run_study(small_study(), tmp_path / "run", Events())
    assert found == [False]


@pytest.mark.parametrize(
    ("text", "size"), [("8GB", 8 * 10**9), ("1.5 GiB", 3 * 2**29), ("500mb", 5 * 10**8), ("0", 0), (7, 7)]
)
def test_sizes(text: str | int, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["much", "8 XB", "-1", -1, "", "inf"])
def test_what_is_no_size_is_refused(text: str | int):
    with pytest.raises(StudyError) as caught:
        parse_size(text)
    expected = f"cache_limit: must be a number of bytes, or a size such as 500MB, 8GB or 8GiB (got {text!r})"
    assert str(caught.value) == f"run: 1 problem\n  {expected}"


@pytest.mark.parametrize("workers", [0, -1])
def test_no_worker_is_refused(workers: int):
    with pytest.raises(StudyError, match=rf"workers: must be at least 1 \(got {workers}\)"):
        RunOptions(workers=workers)
