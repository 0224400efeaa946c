"""Runs in a real MLflow store: every figure once, whatever happened before."""

from __future__ import annotations

import dataclasses
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from export_samples import (
    ENDED,
    NAMES,
    STARTED,
    TRIALS,
    Stored,
    Told,
    expected,
    figures,
    stored,
    whole,
)
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_metric_name

from batchscope import load
from batchscope.errors import ExportError
from batchscope.export import mlflow_tracker
from batchscope.export.content import read_run
from batchscope.export.mlflow_tracker import MlflowTracker, metric_name
from batchscope.history import read_history
from batchscope.records import TrialState
from run_samples import record

LARGEST = sys.float_info.max
"""As what MLflow's SQL store keeps infinity."""


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_mlflow: Path) -> str:
    monkeypatch.chdir(tmp_path)  # where MLflow puts the artifacts of a SQLite store
    return f"sqlite:///{shutil.copy(empty_mlflow, tmp_path / 'mlflow.db')}"


def send(run: Stored, uri: str) -> None:
    """What an export does, by a process of its own, but for the files."""
    MlflowTracker(uri).update(read_run(run.folder))


def runs(uri: str, experiment: str = "sorting") -> dict[str, Run]:
    """All runs of an experiment by their names, each name once."""
    client = MlflowClient(uri)
    [found] = [entry for entry in client.search_experiments() if entry.name == experiment]
    entries = client.search_runs([found.experiment_id], max_results=1000)
    named = {entry.info.run_name: entry for entry in entries}
    assert len(named) == len(entries)
    return named


def points(uri: str, run: Run) -> list[tuple[str, int, float]]:
    """(metric, step, value) of everything that MLflow keeps of a run, in order."""
    client = MlflowClient(uri)
    return sorted(
        (metric.key, metric.step, metric.value)
        for name in run.data.metrics
        for metric in client.get_metric_history(run.info.run_id, name)
    )


def assert_holds(uri: str, run: Stored, infinity: float = LARGEST) -> None:
    """MLflow has each figure of each trial once, and nothing else."""
    found = runs(uri)
    begun = {name: told for name, told in run.told.items() if told.records}
    assert found.keys() == {"sorting", *(NAMES[name] for name in begun)}
    for name, told in begun.items():
        wanted = sorted(
            (key, step, math.copysign(infinity, value) if math.isinf(value) else value)
            for key, step, value in expected(told)
        )
        assert list(map(repr, points(uri, found[NAMES[name]]))) == list(map(repr, wanted))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Iterator[tuple[str, Stored]]:
    """A run that was exported twice."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run, address = stored(folder / "run"), f"sqlite:///{shutil.copy(empty_mlflow, folder / 'mlflow.db')}"
        for _ in range(2):
            told = load(run.folder.path).export("mlflow", tracking_uri=address)
        assert told == f"experiment sorting of {address}"
        yield address, run


def test_every_figure_is_there_once_after_two_exports(exported: tuple[str, Stored]):
    assert_holds(*exported)


def test_trials_are_nested_in_one_run_and_bear_their_parameters(exported: tuple[str, Stored]):
    found = runs(exported[0])
    parent = found.pop("sorting")
    assert parent.data.params["stages.one.learning_rate"] == "0.001"
    assert parent.data.metrics == {}
    for name, entry in found.items():
        trial = next(trial for trial in TRIALS if NAMES[trial.name] == name)
        assert entry.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert entry.data.tags["batchscope.run"] == parent.data.tags["batchscope.run"]
        assert entry.data.tags["batchscope.trial"] == trial.name
        own = {"batch_size": str(trial.batch_size), "replicate": str(trial.replicate)}
        assert entry.data.params == parent.data.params | own


def test_states_and_times_are_the_trials(exported: tuple[str, Stored]):
    found = runs(exported[0])
    began = pd.Timestamp(STARTED).timestamp() * 1000
    told = {
        name: (entry.info.status, entry.info.start_time, entry.info.end_time) for name, entry in found.items()
    }
    assert told == {
        "sorting": ("FAILED", began, pd.Timestamp(ENDED).timestamp() * 1000),
        "b0008-r01": ("FINISHED", began, began + 4000),  # two epochs of 2 s
        "b0016-r01": ("FAILED", began, began + 4000),
        "b0008-r02": ("FAILED", began, began + 2000),
    }
    states = {name: entry.data.tags.get("batchscope.state") for name, entry in found.items()}
    assert states == {
        "sorting": None,
        "b0008-r01": "complete",
        "b0016-r01": "diverged",
        "b0008-r02": "failed",
    }
    assert found["b0008-r02"].data.tags["mlflow.note.content"] == "Traceback:\nValueError: broken"
    client = MlflowClient(exported[0])
    history = client.get_metric_history(found["b0008-r01"].info.run_id, "val_accuracy")
    assert [metric.timestamp for metric in history] == [began + 2000, began + 4000]


def test_the_parent_holds_page_history_study_and_verdict(exported: tuple[str, Stored], tmp_path: Path):
    address, run = exported
    client, parent = MlflowClient(address), runs(address)["sorting"]
    names = [entry.path for entry in client.list_artifacts(parent.info.run_id)]
    assert names == ["analysis.json", "history.csv", "history.parquet", "report.html", "study.toml"]
    kept = {name: Path(client.download_artifacts(parent.info.run_id, name, str(tmp_path))) for name in names}
    for name in ("history.csv", "history.parquet"):
        pd.testing.assert_frame_equal(
            read_history(kept[name]), load(run.folder.path).history, check_exact=True
        )
    assert kept["study.toml"].read_bytes() == run.folder.study_file.read_bytes()
    assert "<title>sorting" in kept["report.html"].read_text(encoding="utf-8")
    verdict = [sentence.text for sentence in load(run.folder.path).analyze().verdict]
    assert parent.data.tags["mlflow.note.content"].split("\n\n") == ["Why it is done.", *verdict]


def test_a_run_that_went_on_is_gone_on_with(tmp_path: Path, uri: str):
    run = stored(tmp_path / "run")
    send(run, uri)
    before = {name: entry.info.run_id for name, entry in runs(uri).items()}
    later = stored(tmp_path / "run", run.told | {"b8-r2": whole(TRIALS[2]), "b16-r2": whole(TRIALS[3], 1)})
    send(run, uri)
    assert_holds(uri, later)
    after = runs(uri)
    assert {name: after[name].info.run_id for name in before} == before
    assert after["b0008-r02"].info.status == "FINISHED"
    assert after["b0008-r02"].data.tags["mlflow.note.content"] == ""


@pytest.mark.parametrize("sent", [0, 1, 5, 11])
def test_what_was_cut_off_in_the_middle_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: int
):
    """As by a kill: the run is there with some figures, but not the tag that tells of them.

    In a store of files, for that in SQL drops equal figures by itself.
    """
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    run = stored(tmp_path / "run")
    content = read_run(run.folder)
    first, empty = content.trials[0], dataclasses.replace(content, trials=())
    MlflowTracker(uri).update(empty)
    client, parent = MlflowClient(uri), runs(uri)["sorting"]
    tags = {
        "batchscope.run": content.identity,
        "batchscope.trial": "b8-r1",
        "mlflow.parentRunId": parent.info.run_id,
    }
    made = client.create_run(parent.info.experiment_id, tags=tags, run_name="b0008-r01")
    figures = [
        Metric(key, value, round((content.started + point.seconds) * 1000), point.epoch)
        for point in first.points
        for key, value in point.figures.items()
    ]
    client.log_batch(made.info.run_id, metrics=figures[:sent])
    send(run, uri)
    assert_holds(uri, run, infinity=math.inf)
    assert runs(uri)["b0008-r01"].info.run_id == made.info.run_id
    assert runs(uri)["b0008-r01"].data.params["batch_size"] == "8"


def test_more_than_one_request_holds_is_sent_in_parts(tmp_path: Path, uri: str):
    told = stored(tmp_path / "run").told | {"b8-r2": whole(TRIALS[2], 140)}
    assert len(list(expected(told["b8-r2"]))) > mlflow_tracker._MOST_METRICS
    run = stored(tmp_path / "run", told)
    send(run, uri)
    assert_holds(uri, run)


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_trial_that_began_anew_takes_the_place_of_what_it_was(tmp_path: Path, uri: str, epochs: int):
    run = stored(tmp_path / "run")
    content = read_run(run.folder)
    slower = tuple(dataclasses.replace(point, seconds=9.0) for point in content.trials[0].points)
    longer = dataclasses.replace(content.trials[2], points=slower[:epochs])
    MlflowTracker(uri).update(dataclasses.replace(content, trials=(*content.trials[:2], longer)))
    send(run, uri)
    assert_holds(uri, run)


def test_a_run_that_goes_on_or_was_stopped_is_shown_so(tmp_path: Path, uri: str):
    told = {trial.name: Told(TrialState.WAITING) for trial in TRIALS}
    told["b8-r1"] = Told(TrialState.RUNNING, (figures(TRIALS[0], 1),))
    run = stored(tmp_path / "run", told)
    tracker = MlflowTracker(uri)
    content = read_run(run.folder)
    for ended, status in [(content.ended, "KILLED"), (None, "RUNNING"), (content.ended, "KILLED")]:
        tracker.update(dataclasses.replace(content, ended=ended))
        assert {entry.info.status for entry in runs(uri).values()} == {status}


def test_two_runs_of_one_study_lie_side_by_side(tmp_path: Path, uri: str):
    for name in ("one", "two"):
        send(stored(tmp_path / name), uri)
    client = MlflowClient(uri)
    [experiment] = [entry for entry in client.search_experiments() if entry.name == "sorting"]
    entries = client.search_runs([experiment.experiment_id])
    assert sorted(entry.info.run_name for entry in entries) == sorted(
        ["sorting", *list(NAMES.values())[:3]] * 2
    )
    assert len({entry.data.tags["batchscope.run"] for entry in entries}) == 2


def test_an_experiment_that_was_deleted_is_told_with_what_brings_it_back(tmp_path: Path, uri: str):
    run, client = stored(tmp_path / "run"), MlflowClient(uri)
    going_on = MlflowTracker(uri)
    going_on.update(read_run(stored(tmp_path / "run", run.told | {"b8-r1": whole(TRIALS[0], 1)}).folder))
    place = client.get_experiment_by_name("sorting").experiment_id
    client.delete_experiment(place)
    told = (
        rf"the experiment sorting of {uri} must be active, but it was deleted there; restore it \(mlflow "
        rf"experiments restore --experiment-id {place}\), or remove it for good \(mlflow gc --experiment-ids "
        rf"{place}\), and export again"
    )
    later = stored(tmp_path / "run")
    for tracker in (going_on, MlflowTracker(uri)):  # one that has it open, one that opens it
        with pytest.raises(ExportError, match=f"^{told}$"):
            tracker.update(read_run(later.folder))
    client.restore_experiment(place)
    send(later, uri)
    assert_holds(uri, later)


@pytest.mark.parametrize("name", ["sorting", "b0008-r02"])
def test_a_run_that_was_deleted_is_told_and_made_anew(tmp_path: Path, uri: str, name: str):
    run, client, tracker = stored(tmp_path / "run"), MlflowClient(uri), MlflowTracker(uri)
    tracker.update(read_run(run.folder))
    client.delete_run(runs(uri)[name].info.run_id)
    later = stored(tmp_path / "run", run.told | {"b8-r2": whole(TRIALS[2]), "b16-r2": whole(TRIALS[3])})
    with pytest.raises(ExportError, match=rf"^the run {name} of experiment sorting of .* must be active"):
        tracker.update(read_run(later.folder))
    send(later, uri)
    assert_holds(uri, later)
    found = runs(uri)
    parent = found.pop("sorting").info.run_id
    assert {entry.data.tags["mlflow.parentRunId"] for entry in found.values()} == {parent}


def test_a_store_that_cannot_be_used_is_told_without_secrets(tmp_path: Path):
    run = load(stored(tmp_path / "run").folder.path)
    with pytest.raises(
        ExportError, match=r"MLflow .* must take what is exported, but: .*check --tracking-uri"
    ) as told:
        run.export("mlflow", tracking_uri="nonsense://someone:hidden@nowhere/x")
    assert "hidden" not in str(told.value)


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("val_accuracy", "val_accuracy"),
        ("top-5 acc: x", "top-5 acc: x"),
        ("val/f1", "val/f1"),
        ("acc %", "acc _"),
        ("a//b", "a__b"),
        ("/a", "_a"),
        ("a/", "a_"),
        ("../a", "___a"),
        (".", "_"),
        ("größe", "größe"),
        ('"<b>', "__b_"),
    ],
)
def test_names_are_made_such_that_mlflow_takes_them(column: str, name: str):
    assert metric_name(column) == name
    _validate_metric_name(name)
    if column != name:
        with pytest.raises(MlflowException):
            _validate_metric_name(column)


def test_columns_that_would_become_one_metric_are_refused(tmp_path: Path, uri: str):
    entry = record(1, probes={"probe %": 1.0, "probe &": 2.0})
    told = {trial.name: Told(TrialState.COMPLETE, (entry,)) for trial in TRIALS}
    with pytest.raises(ExportError, match=r"each column needs a name of its own in MLflow.*probe %, probe &"):
        send(stored(tmp_path / "run", told), uri)
