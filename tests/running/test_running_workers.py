"""A whole run with workers that train nothing: how many, with how many threads, and their features."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from batchscope.records import Trial
from batchscope.running import layout, provenance, run
from batchscope.running.features import FeatureCleaner
from batchscope.running.folder import RunFolder
from batchscope.running.options import RunOptions
from batchscope.running.recorder import Recorder
from batchscope.running.run import run_study
from batchscope.running.store import Store
from run_samples import FIRST, SECOND, Events, Stub, logged_threads, record, small_study

pytestmark = pytest.mark.usefixtures("machine")
STUDY = small_study(replicates=3)


def facts_of(folder: Path) -> list[tuple[str, str, str]]:
    """Workers, threads and the reason for them in each session."""
    with Store(folder / "results.sqlite") as store:
        names = ("workers", "threads of a worker", "choice of workers")
        return [tuple(facts[name] for name in names) for _, _, facts in store.sessions()]  # type: ignore[misc]


@pytest.mark.usefixtures("stub")
def test_every_record_is_stored_once_whatever_the_number_of_workers(
    tmp_path: Path, machine: Callable[..., None]
):
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
    reason = (
        "fastest of 1 worker with 4 threads (150 examples/s), 4 workers with 1 thread each (400 examples/s)"
    )
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


def test_how_a_stage_is_computed_is_stored_and_told_once(tmp_path: Path):
    place, watcher = RunFolder(tmp_path / "run"), Events()
    with place.claim(STUDY) as store:
        session = store.start_session(provenance.now(), {})
        recorder = Recorder(STUDY, store, place, watcher, session, FeatureCleaner(place.features, []), "")
        facts = {"keras": "3", "stage one": "the whole network runs"}
        recorder.ready(facts)
        recorder.ready(facts | {"stage two": "only the head is trained"})
        assert watcher.notes == ["stage one: the whole network runs", "stage two: only the head is trained"]
        [(_, _, stored)] = store.sessions()
        assert stored == facts | {"stage two": "only the head is trained"}


@pytest.mark.parametrize("name", ["network sha256", "weights sha256"])
@pytest.mark.parametrize(("stored", "again"), [(True, "f00d"), (True, "beef"), (False, "f00d")])
def test_another_file_of_the_network_than_before_is_told(tmp_path: Path, name: str, stored: bool, again: str):
    place, watcher = RunFolder(tmp_path / "run"), Events()
    with place.claim(STUDY) as store:
        store.plan([FIRST, SECOND])
        first = store.start_session(provenance.now(), {})
        store.update_session(first, {name: "beef"})
        if stored:
            store.add(FIRST, record(1))
        session = store.start_session(provenance.now(), {})
        recorder = Recorder(STUDY, store, place, watcher, session, FeatureCleaner(place.features, []), "")
        for _ in range(2):  # workers
            recorder.ready({name: again})
    changed = (
        f"{name.removesuffix(' sha256')}: its file has changed since epochs of this run were stored "
        "(sha256 beef, now f00d); trials before and after may not be of one network"
    )
    assert watcher.notes == ([changed] if stored and again != "beef" else [])


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
def test_what_cannot_be_deleted_ends_no_run(tmp_path: Path):
    place, study = RunFolder(tmp_path / "run"), small_study()
    obstacles = [place.checkpoints / "b8-r1.npz", place.features / "r1-e1.npy"]

    class Placing(Events):
        def started(self, trial: Trial, *counts: float) -> None:
            for obstacle in obstacles:
                obstacle.mkdir(parents=True, exist_ok=True)  # a folder cannot be unlinked

    statuses = run_study(study, place.path, Placing())
    assert [status.state.value for status in statuses] == ["complete", "complete"]
    assert obstacles[0].exists()


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
