"""Trackers while a run goes on: they get what is stored, and never hold a run up."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import batchscope
from batchscope.errors import ExportError
from batchscope.export import live, mlflow_tracker, targets
from batchscope.export.content import RunContent
from batchscope.export.files import Material
from batchscope.records import EpochRecord, Trial, TrialState
from batchscope.running.folder import RunFolder
from run_samples import Events, Stub, small_study

STUDY = small_study()
STEPS = {"b8-r1": [1, 2], "b16-r1": [1, 2]}
NAMES = {"b8-r1": "b0008-r01", "b16-r1": "b0016-r01"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, stub: Stub, tmp_path: Path) -> None:
    """Workers that train nothing, one at a time, and no page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(batchscope.Run, "write_report", lambda _: None)
    monkeypatch.setattr(mlflow_tracker, "run_material", lambda *_: Material({"page": b"..."}, "verdict"))


class Fake:
    """A tracker that writes down what it is given, and does what it is told to at each update."""

    tool, place = "mlflow", "there"

    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        self.act = act
        self.seen: list[RunContent] = []
        self.concluded = 0
        self.threads: set[str] = set()

    def update(self, run: RunContent) -> None:
        self.seen.append(run)
        self.threads.add(threading.current_thread().name)
        self.act()

    def conclude(self, run: RunContent, folder: RunFolder) -> None:
        self.concluded += 1


@pytest.fixture
def tracked(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fake], None]:
    def by(fake: Fake) -> None:
        monkeypatch.setattr(targets, "_tracker", lambda *_: fake)

    return by


def epochs(run: RunContent) -> dict[str, list[int]]:
    return {series.status.trial.name: [point.epoch for point in series.points] for series in run.trials}


def test_a_tracker_is_given_the_whole_run_in_the_end_from_a_thread_of_its_own(
    tracked: Callable[[Fake], None],
):
    fake = Fake()
    tracked(fake)
    seen = Events()
    batchscope.run(STUDY, out="run", track="mlflow", watcher=seen)
    assert epochs(fake.seen[-1]) == STEPS
    assert {series.status.state for series in fake.seen[-1].trials} == {TrialState.COMPLETE}
    assert fake.seen[-1].ended is not None
    assert fake.concluded == 1
    assert threading.main_thread().name not in fake.threads
    assert seen.records == [("b8-r1", 1), ("b8-r1", 2), ("b16-r1", 1), ("b16-r1", 2)]
    assert seen.starts == [("b8-r1", 0, 0.0), ("b16-r1", 0, 0.0)]
    assert len(seen.ends) == 2


class Waiting(Events):
    """Holds the run at its second epoch until something has happened."""

    def __init__(self, happened: threading.Event) -> None:
        super().__init__()
        self._happened = happened

    def epoch(self, trial: Trial, record: EpochRecord) -> None:
        super().epoch(trial, record)
        if (trial.name, record.epoch) == ("b8-r1", 2):
            assert self._happened.wait(60)


def test_a_record_is_tracked_while_the_run_goes_on(tracked: Callable[[Fake], None]):
    has_it = threading.Event()
    fake = Fake(has_it.set)
    tracked(fake)
    batchscope.run(STUDY, out="run", track="mlflow", watcher=Waiting(has_it))
    assert fake.seen[0].ended is None
    assert epochs(fake.seen[0])["b8-r1"] in ([1], [1, 2])
    assert epochs(fake.seen[-1]) == STEPS


@pytest.mark.parametrize("error", [ExportError("there is gone"), ValueError("there is gone")])
def test_a_tracker_that_fails_is_told_once_and_holds_nothing_up(
    tracked: Callable[[Fake], None], error: Exception
):
    def fail() -> None:
        raise error

    fake, seen = Fake(fail), Events()
    tracked(fake)
    run = batchscope.run(STUDY, out="run", track="mlflow", watcher=seen)
    assert [status.state for status in run.trials] == [TrialState.COMPLETE] * 2
    assert (len(fake.seen), fake.concluded) == (1, 0)
    [complaint] = [note for note in seen.notes if "--track" in note]
    assert complaint == (
        "--track mlflow was given up, what the run stores is safe: there is gone. "
        "Later 'batchscope export run --to mlflow' adds what is missing."
    )


def test_a_tracker_that_hangs_holds_nothing_up(
    tracked: Callable[[Fake], None], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(live, "PATIENCE", 0.05)
    hangs, end = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        end.wait(60)

    fake, seen = Fake(hang), Waiting(hangs)
    tracked(fake)
    run = batchscope.run(STUDY, out="run", track="mlflow", watcher=seen)
    end.set()
    assert [status.state for status in run.trials] == [TrialState.COMPLETE] * 2
    assert len(fake.seen) == 1
    [complaint] = [note for note in seen.notes if "--track" in note]
    assert "there does not answer, and was waited for" in complaint


def test_a_run_that_is_refused_is_not_tracked(tracked: Callable[[Fake], None]):
    fake = Fake()
    batchscope.run(STUDY, out="run")
    tracked(fake)
    with pytest.raises(batchscope.RunFolderError, match="holds a run of a study that differs"):
        batchscope.run(STUDY, out="run", track="mlflow", changes={"seed": 8})
    assert fake.seen == []


def test_a_run_without_an_epoch_has_nothing_to_track(tracked: Callable[[Fake], None], stub: Stub):
    stub("be killed before the first epoch")
    fake, seen = Fake(), Events()
    tracked(fake)
    with pytest.warns(batchscope.BatchscopeWarning, match="2 of 2 trials failed"):
        batchscope.run(STUDY, out="run", track="mlflow", watcher=seen)
    assert (fake.seen, fake.concluded) == ([], 0)
    assert [note for note in seen.notes if "--track" in note] == []


def test_a_run_that_is_interrupted_is_tracked_up_to_there(tracked: Callable[[Fake], None]):
    fake = Fake()
    tracked(fake)

    class Impatient(Events):
        def epoch(self, trial: Trial, record: EpochRecord) -> None:
            if (trial.name, record.epoch) == ("b16-r1", 1):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batchscope.run(STUDY, out="run", track="mlflow", watcher=Impatient())
    assert epochs(fake.seen[-1]) == {"b8-r1": [1, 2], "b16-r1": [1]}
    assert fake.seen[-1].ended is not None
    assert fake.concluded == 0


def mlflow_steps(uri: str) -> dict[str, list[int]]:
    """Steps of the validation accuracy by trial, from a real store."""
    client = MlflowClient(uri)
    [experiment] = [entry for entry in client.search_experiments() if entry.name == "tiny"]
    entries = client.search_runs([experiment.experiment_id])
    named = [(entry.data.tags.get("batchscope.trial"), entry.info.run_id) for entry in entries]
    assert sorted(str(name) for name, _ in named) == sorted(["None", *STEPS])
    return {
        name: sorted(metric.step for metric in client.get_metric_history(run_id, "val_accuracy"))
        for name, run_id in named
        if name is not None
    }


def tensorboard_steps(folder: Path) -> dict[str, list[int]]:
    found = {}
    for name, shown in NAMES.items():
        [path] = folder.glob(f"tiny-*/{shown}/*")
        accumulator = EventAccumulator(str(path)).Reload()
        found[name] = [event.step for event in accumulator.Scalars("by_epoch/val_accuracy")]
    return found


def test_a_run_that_broke_off_is_gone_on_with_in_the_same_runs(
    tmp_path: Path, stub: Stub, empty_mlflow: Path
):
    """Live, with a worker that dies, live again, and at last an export: each epoch is there once."""
    uri = f"sqlite:///{shutil.copy(empty_mlflow, tmp_path / 'mlflow.db')}"
    both = {"track": ["mlflow", "tensorboard", "mlflow"], "tracking_uri": uri}
    stub("be killed", "b8-r1")
    with pytest.warns(batchscope.BatchscopeWarning, match="1 of 2 trials failed: b8-r1 "):
        batchscope.run(STUDY, out="run", **both)
    shown = tmp_path / "run" / "export" / "tensorboard"
    broken_off = {"b8-r1": [1], "b16-r1": [1, 2]}
    assert (mlflow_steps(uri), tensorboard_steps(shown)) == (broken_off, broken_off)
    stub("train")
    run = batchscope.run(STUDY, out="run", **both)
    for _ in range(2):
        assert (mlflow_steps(uri), tensorboard_steps(shown)) == (STEPS, STEPS)
        for tool, options in (("mlflow", {"tracking_uri": uri}), ("tensorboard", {})):
            run.export(tool, **options)


class Deleting(Events):
    """Holds the run at its second epoch until MLflow has the first, and deletes the experiment then."""

    def __init__(self, client: MlflowClient) -> None:
        super().__init__()
        self._client = client
        self.deleted = ""

    def epoch(self, trial: Trial, record: EpochRecord) -> None:
        super().epoch(trial, record)
        if (trial.name, record.epoch) == ("b8-r1", 2):
            until = time.monotonic() + 60
            while (found := self._client.get_experiment_by_name("tiny")) is None:
                assert time.monotonic() < until
                time.sleep(0.05)
            self.deleted = found.experiment_id
            self._client.delete_experiment(self.deleted)


def test_an_experiment_that_is_deleted_meanwhile_does_not_stop_a_run(tmp_path: Path, empty_mlflow: Path):
    uri = f"sqlite:///{shutil.copy(empty_mlflow, tmp_path / 'mlflow.db')}"
    seen = Deleting(MlflowClient(uri))
    run = batchscope.run(STUDY, out="run", track="mlflow", tracking_uri=uri, watcher=seen)
    assert [(status.state, status.epochs) for status in run.trials] == [(TrialState.COMPLETE, 2)] * 2
    [complaint] = [note for note in seen.notes if "--track" in note]
    assert (
        f"was deleted there; restore it (mlflow experiments restore --experiment-id {seen.deleted})"
        in complaint
    )
    MlflowClient(uri).restore_experiment(seen.deleted)
    run.export("mlflow", tracking_uri=uri)
    assert mlflow_steps(uri) == STEPS


def test_a_server_that_is_down_does_not_stop_a_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    seen = Events()
    run = batchscope.run(
        STUDY, out="run", track="mlflow", tracking_uri="http://someone:hidden@127.0.0.1:9", watcher=seen
    )
    assert [status.state for status in run.trials] == [TrialState.COMPLETE] * 2
    [complaint] = [note for note in seen.notes if "--track" in note]
    assert "check --tracking-uri and whether its server runs" in complaint
    assert "hidden" not in complaint
    assert dataclasses.asdict(run.trials[0])["epochs"] == 2
