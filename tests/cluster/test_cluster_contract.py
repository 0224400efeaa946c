"""What a run promises, whichever executor carries it out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from batchscope.api import Run
from batchscope.errors import BatchscopeError
from batchscope.own.handle import TrialHandle
from batchscope.records import EpochRecord, Trial
from batchscope.resolving import resolve
from batchscope.running.options import RunOptions
from batchscope.running.run import run_study
from batchscope.spec import Study
from clusters import LOCAL, assert_alike, on_ray
from own_runs import outcomes, run_function, run_program
from run_samples import Events, small_study
from tiny import stage


@pytest.fixture(params=["local", "ray"])
def executor(request: pytest.FixtureRequest) -> RunOptions:
    if request.param == "local":
        return LOCAL
    request.getfixturevalue("two_nodes")
    return on_ray()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a study of Keras, trained on this machine without interruption."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run_study(keras_study(), folder, Events(), LOCAL)
    return folder


def keras_study() -> Study:
    """Augmentation, BatchNorm that moves, and probes: all that could differ between machines."""
    return small_study(
        replicates=2,
        stages=[stage("one", "all", epochs=2, augmentation={"rotation": 10}, batchnorm="batch")],
    )


def test_a_study_of_keras_has_the_same_history(executor: RunOptions, undisturbed: Path, tmp_path: Path):
    seen, folder = Events(), tmp_path / "run"
    run_study(keras_study(), folder, seen, executor)
    assert_alike(folder, undisturbed)
    names = [f"b{size}-r{replicate}" for replicate in (1, 2) for size in (8, 16)]
    assert sorted(seen.records) == sorted((name, epoch) for name in names for epoch in (1, 2))
    assert sorted(seen.ends) == sorted((name, "complete", None) for name in names)
    assert sorted(name for name, *_ in seen.starts) == sorted(names)
    assert {note.split()[0] for note in seen.notes if note.endswith("/48")} == set(names)  # within epochs


def test_a_run_that_is_stopped_goes_on_to_the_same_history(
    executor: RunOptions, undisturbed: Path, tmp_path: Path
):
    class StopAtThirdRecord(Events):
        def epoch(self, trial: Trial, record: EpochRecord) -> None:
            super().epoch(trial, record)
            if len(self.records) == 3:
                raise KeyboardInterrupt

    folder, seen = tmp_path / "run", Events()
    with pytest.raises(KeyboardInterrupt):
        run_study(keras_study(), folder, StopAtThirdRecord(), executor)
    assert sum(status.epochs for status in Run(folder).trials) == 3
    run_study(keras_study(), folder, seen, executor)
    assert len(seen.records) == 4 * 2 - 3
    assert_alike(folder, undisturbed)


def test_what_a_function_reports_is_the_history_and_its_folder_is_its_own(
    executor: RunOptions, tmp_path: Path
):
    def train(trial: TrialHandle) -> None:
        assert list(trial.folder.iterdir()) == []
        (trial.folder / "state").touch()
        for epoch in (1, 2, 3):
            trial.report(
                updates=epoch * 64 // trial.batch_size,
                val_accuracy=epoch / 10 + trial.batch_size / 1000,
                seed=trial.seed,
                replicate_seen=trial.replicate,
            )

    run = run_function(train, tmp_path / "run", None, executor, replicates=3, learning_rates=[0.1, 0.2])
    history = run.history
    assert outcomes(run) == [
        (f"b{size}-lr{rate}-r{replicate}", "complete", 3)
        for replicate in (1, 2, 3)
        for size in (16, 32)
        for rate in (0.1, 0.2)
    ]
    assert history["val_accuracy"].tolist() == (history["epoch"] / 10 + history["batch_size"] / 1000).tolist()
    assert history["replicate_seen"].equals(history["replicate"].astype(float))
    assert history.groupby("replicate")["seed"].nunique().tolist() == [1, 1, 1]
    assert history["seed"].nunique() == 3


def test_a_trial_that_fails_keeps_its_traceback_and_goes_on_next_time(executor: RunOptions, tmp_path: Path):
    mended = tmp_path / "mended"

    def train(trial: TrialHandle) -> None:
        state = trial.folder / "epoch"
        done = int(state.read_text()) if state.exists() else 0
        assert done == len(trial.reported)
        for epoch in range(done + 1, 4):
            if epoch == 3 and trial.batch_size == 16 and not mended.exists():
                raise ValueError("the third epoch is too much")
            state.write_text(str(epoch))
            trial.report(updates=epoch, val_accuracy=epoch / 10)

    run = run_function(train, tmp_path / "run", None, executor)
    assert outcomes(run) == [("b16-r1", "failed", 2), ("b32-r1", "complete", 3)]
    error = run.trials[0].error or ""
    assert error.strip().endswith("ValueError: the third epoch is too much")
    assert "Traceback (most recent call last)" in error
    mended.touch()
    seen = Events()
    run = run_function(train, tmp_path / "run", seen, executor)
    assert outcomes(run) == [("b16-r1", "complete", 3), ("b32-r1", "complete", 3)]
    assert seen.records == [("b16-r1", 3)]


def test_a_trial_that_diverges_is_finished(executor: RunOptions, tmp_path: Path):
    def train(trial: TrialHandle) -> None:
        for epoch in (1, 2, 3):
            trial.report(updates=epoch, train_loss=math.nan if epoch == 2 else 1.0, val_accuracy=0.5)

    run = run_function(train, tmp_path / "run", None, executor, batch_sizes=[16])
    assert outcomes(run) == [("b16-r1", "diverged", 2)]


def test_a_record_that_contradicts_those_before_fails_its_trial_alone(executor: RunOptions, tmp_path: Path):
    def train(trial: TrialHandle) -> None:
        trial.report(updates=5, val_accuracy=0.5)
        if trial.batch_size == 16:
            trial.report(val_accuracy=0.5)

    run = run_function(train, tmp_path / "run", None, executor)
    assert outcomes(run) == [("b16-r1", "failed", 1), ("b32-r1", "complete", 1)]
    assert "updates" in (run.trials[0].error or "")


def test_a_worker_that_dies_costs_no_more_than_its_trial(executor: RunOptions, tmp_path: Path):
    def train(trial: TrialHandle) -> None:
        import os

        trial.report(updates=1, val_accuracy=0.5)
        if trial.batch_size == 16:
            os._exit(7)

    run = run_function(train, tmp_path / "run", None, executor)
    assert outcomes(run) == [("b16-r1", "failed", 1), ("b32-r1", "complete", 1)]
    assert "ended with exit code 7" in (run.trials[0].error or "")


def test_what_no_worker_can_be_set_up_with_is_raised_as_it_is(executor: RunOptions, tmp_path: Path):
    raw = {"name": "none", "command": "no-such-program {batch_size}", "batch_sizes": [16], "replicates": 1}
    with pytest.raises(BatchscopeError, match="no-such-program"):
        run_study(resolve(raw, []), tmp_path / "run", Events(), executor)


def test_a_command_runs_where_the_run_was_started(
    executor: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside").write_text("0.75")
    text = "print(record(1, here=float(open('beside').read())))"
    run = run_program(text, tmp_path / "run", (), None, executor)
    assert outcomes(run) == [("b16-r1", "complete", 1), ("b32-r1", "complete", 1)]
    assert run.history["here"].tolist() == [0.75, 0.75]


def test_replicates_are_added_until_the_mean_is_known_well_enough(executor: RunOptions, tmp_path: Path):
    spread: Mapping[int, float] = {16: 0.0001, 32: 0.1}

    def train(trial: TrialHandle) -> None:
        trial.report(updates=1, val_accuracy=0.5 + (trial.replicate % 2) * spread[trial.batch_size])

    until = {"metric": "val_accuracy", "half_width": 0.01, "max_replicates": 5}
    run = run_function(train, tmp_path / "run", None, executor, replicates=3, until_ci=until)
    sizes = [status.trial.batch_size for status in run.trials]
    assert (sizes.count(16), sizes.count(32)) == (3, 5)
