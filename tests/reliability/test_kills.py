"""Kills change nothing: the same command, started again, ends with the history of a run never killed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from commands import HERE, started, stubbed, written
from siege import Blow, Siege

import batchscope
from batchscope.records import TrialState
from batchscope.resolving import resolve
from batchscope.running import pool
from batchscope.running.options import RunOptions
from batchscope.running.run import run_study
from run_samples import SMALL_TAIL, STUB, TESTS, Events, small_study, trained_study
from timeless import history_without_time
from tiny import stage

EPOCHS = 7
STUDY = trained_study(
    replicates=3,
    stages=[stage("head_stage", "head", epochs=3), stage("tail_stage", SMALL_TAIL, epochs=EPOCHS - 3)],
)
TRIALS = [f"b{size}-r{replicate}" for size in (8, 16) for replicate in (1, 2, 3)]
EARLY, STARTING = Blow("run", "now", 2.5), Blow("worker", "worker started", 4.0)
RUN, AFTER_CHECKPOINT = Blow("run", "epoch told", 0.2), Blow("run", "checkpoint kept", 0.1)
WORKER, WORKER_AFTER_CHECKPOINT = Blow("worker", "epoch told", 0.2), Blow("worker", "checkpoint kept", 0.1)
BLOWS = [
    *(EARLY, EARLY, STARTING, RUN),
    *(EARLY, WORKER, AFTER_CHECKPOINT),
    *(EARLY, STARTING, WORKER_AFTER_CHECKPOINT, RUN),
    *(EARLY, EARLY, WORKER, WORKER, AFTER_CHECKPOINT),
    *(EARLY, WORKER_AFTER_CHECKPOINT, WORKER, RUN),
    *(EARLY, WORKER),
]
TORN = ["b8-r1-2-torn", "b16-r2-3-before", "b8-r3-4-after"]


@pytest.fixture(scope="module")
def two_cores() -> Iterator[None]:
    """Two workers then compute with a thread each, on every machine."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:2])
    yield
    os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class Besieged:
    """A run after all the blows, what was done to it, and the epochs that its workers began and kept."""

    run: batchscope.Run
    siege: Siege
    kills_left: list[str]
    log: list[tuple[str, str, int]]


def command(folder: Path, study: Path) -> list[str | Path]:
    return [sys.executable, "-m", "batchscope", "run", study, "--out", folder, "--workers", "2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, two_cores: None) -> pd.DataFrame:
    """The history of a run that nothing disturbs."""
    place = tmp_path_factory.mktemp("whole")
    with started(command(place / "run", written(STUDY, place)), cwd=place, import_from=[TESTS]) as process:
        _, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    return batchscope.load(place / "run").history


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory, two_cores: None) -> Besieged:
    place = tmp_path_factory.mktemp("besieged")
    folder, study = place / "run", written(STUDY, place)
    log, kills = place / "epochs.log", place / "kills"
    kills.mkdir()
    for name in TORN:
        (kills / name).touch()
    hooks = {"EPOCHS_LOG": str(log), "CHECKPOINT_KILLS": str(kills)}
    path = [HERE / "hooks", TESTS]
    start = partial(started, command(folder, study), cwd=place, import_from=path, **hooks)
    with Siege(start, folder, seed=5) as siege:
        siege.strike(BLOWS)
        siege.conclude(restarts=4)
    lines = [line.split() for line in log.read_text(encoding="utf-8").splitlines()]
    done = [(what, trial, int(epoch)) for what, trial, epoch in lines]
    return Besieged(batchscope.load(folder), siege, [path.name for path in kills.iterdir()], done)


@pytest.mark.keras
@pytest.mark.timeout(1200)
def test_a_study_killed_more_than_twenty_times_ends_with_the_figures_of_one_never_killed(
    whole: pd.DataFrame, besieged: Besieged
):
    victims = [victim for victim, _ in besieged.siege.dealt]
    assert (victims.count("run"), victims.count("worker"), besieged.kills_left) == (13, 9, [])
    assert whole[["trial", "epoch"]].to_numpy().tolist() == [
        [trial, epoch] for trial in TRIALS for epoch in range(1, EPOCHS + 1)
    ]
    assert whole["train_loss"].nunique() == whole["val_loss"].nunique() == len(TRIALS) * EPOCHS
    assert whole.filter(like="probe_").notna().any(axis=None)
    pd.testing.assert_frame_equal(
        history_without_time(besieged.run.history), history_without_time(whole), check_exact=True
    )
    assert [status.state for status in besieged.run.trials] == [TrialState.COMPLETE] * 6
    assert list((besieged.run.path / "checkpoints").iterdir()) == []


@pytest.mark.keras
def test_no_epoch_whose_state_was_kept_is_trained_again(besieged: Besieged):
    """So that a kill repeats what was done of one epoch, and no more."""
    begun = 0
    for trial in TRIALS:
        kept = 0
        for what, epoch in [(what, epoch) for what, name, epoch in besieged.log if name == trial]:
            if what == "began":
                begun += 1
                # Where the kill came between the file and the line that tells of it, the line is missing.
                kept += epoch == kept + 2
            assert epoch == kept + 1
            kept = epoch if what == "kept" else kept
        assert kept >= EPOCHS - 1
    kills = [*(victim for victim, _ in besieged.siege.dealt), *("worker" for _ in TORN)]
    interrupted = sum(2 if victim == "run" else 1 for victim in kills)
    assert len(TRIALS) * EPOCHS + 2 <= begun <= len(TRIALS) * EPOCHS + interrupted


# --- with workers that train nothing ---

POINTS = [
    f"{when} {what}"
    for what in (
        "COMMIT in start_session",
        "COMMIT in keep_data",
        "COMMIT in plan",
        "COMMIT in set_state running",
        "INSERT in add",
        "COMMIT in add",
        "COMMIT in set_state complete",
        "COMMIT in update_session",
    )
    for when in ("before", "after")
]


def stored(folder: Path) -> Mapping[str, list[int]]:
    """Epochs of each trial, as a reader finds them."""
    history = batchscope.load(folder).history
    return {str(trial): rows["epoch"].tolist() for trial, rows in history.groupby("trial")}


def test_a_kill_at_any_point_of_the_stores_transactions_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One folder, killed at each point in turn."""
    study, folder = written(small_study(), tmp_path), tmp_path / "run"
    known: Mapping[str, list[int]] = {}
    for point in POINTS:
        arguments = ("run", study, "--out", folder, "--workers", "1")
        with stubbed("probe", point, *arguments, cwd=tmp_path) as process:
            out, err = process.communicate()
        assert (point, process.returncode) == (point, -signal.SIGKILL), out + err
        now = stored(folder)
        for trial, epochs in now.items():
            assert epochs == list(range(1, len(epochs) + 1))
            assert epochs[: len(known.get(trial, []))] == known.get(trial, [])
        known = now
    monkeypatch.setattr(pool, "_COMMAND", (sys.executable, str(STUB), "probe"))
    resolved = resolve(study, [])
    run_study(resolved, folder, Events(), RunOptions(workers=1))
    run_study(resolved, tmp_path / "whole", Events(), RunOptions(workers=1))
    histories = [batchscope.load(tmp_path / name).history for name in ("run", "whole")]
    assert histories[1]["probe_seconds"].tolist() == [0.5] * 4
    pd.testing.assert_frame_equal(*histories, check_exact=True)


def test_a_kill_while_the_report_is_written_leaves_whole_files_alone(tmp_path: Path):
    study, folder = written(small_study(), tmp_path), tmp_path / "run"
    for name in ("history.parquet", "report.html"):
        arguments = ("run", study, "--out", folder)
        with stubbed("train", f"before replacing {name}", *arguments, cwd=tmp_path) as process:
            out, err = process.communicate()
        assert process.returncode == -signal.SIGKILL, out + err
    before = files(folder / "report")
    assert {"history.csv", "history.parquet"} <= set(before)
    assert "report.html" not in before
    batchscope.run(study, out=folder)
    after = files(folder / "report")
    assert set(after) - set(before) == {"report.html"}
    assert {name: after[name] for name in before} == before


def files(folder: Path) -> dict[str, bytes]:
    """Those with names of their own; a kill may leave a hidden one, whose name was to be given up."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}
