"""Whole runs of training functions: what they are given, what becomes of it, and how they go on."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import pandas as pd
import pytest

from batchscope import load
from batchscope.errors import RunFolderError
from batchscope.history import COLUMNS
from batchscope.own.function import function_spec
from batchscope.own.handle import TrialHandle
from batchscope.records import TrialState
from batchscope.run_report import page_content
from batchscope.running.folder import RunFolder
from batchscope.running.store import Store
from own_runs import outcomes, run_function
from run_samples import Events

pytestmark = pytest.mark.usefixtures("machine")
BOTH = [("b16-r1", "complete", 3), ("b32-r1", "complete", 3)]


def test_a_function_is_given_its_trial_and_what_it_reports_is_the_history(tmp_path: Path):
    def train(trial: TrialHandle) -> None:
        import os

        import numpy as np

        print("speaking of", trial.name)  # noqa: T201
        (trial.folder / "state").touch()
        assert not trial.resumed
        for epoch in (1, 2, 3):
            trial.report(
                updates=epoch * 64 // trial.batch_size,
                train_loss=np.float32(1 / epoch),
                val_accuracy=np.array([0.1 * epoch + 0.01 * trial.replicate]),
                seed=trial.seed,
                threads=int(os.environ["OMP_NUM_THREADS"]),
            )
            assert len(trial.reported) == epoch

    seen, folder = Events(), tmp_path / "run"
    run = run_function(train, folder, seen, replicates=2, learning_rates=[0.05], seed=3)
    history = run.history
    assert outcomes(run) == [(f"b{size}-r{r}", "complete", 3) for r in (1, 2) for size in (16, 32)]
    expected = pd.DataFrame(
        [
            ("train", f"b{size}-r{r}", size, 0.05, r, "training", epoch, epoch * 64 // size, epoch * 64)
            for size in (16, 32)
            for r in (1, 2)
            for epoch in (1, 2, 3)
        ],
        columns=COLUMNS[:9],
    )
    pd.testing.assert_frame_equal(history[list(expected.columns)], expected, check_exact=True)
    assert list(history.columns[9:]) == ["seconds", "train_loss", "val_accuracy", "seed", "threads"]
    assert history["train_loss"].tolist() == [1.0, 0.5, float.fromhex("0x1.555556p-2")] * 4
    assert history["threads"].unique() == [1]
    assert (history.groupby("trial")["seconds"].diff().dropna() > 0).all()
    seeds = history.groupby("replicate")["seed"].unique()
    assert [len(seeds[1]), len(seeds[2]), seeds[1] == seeds[2]] == [1, 1, False]
    assert "speaking of b32-r2" in (folder / "logs" / "worker-1.log").read_text()
    assert list(RunFolder(folder).checkpoints.iterdir()) == []
    assert seen.planned[0][:2] == (4, 0)
    assert load(folder).study.name == "train"


def test_a_trial_that_fails_keeps_its_traceback_and_goes_on_where_it_stood(tmp_path: Path):
    folder, mended = tmp_path / "run", tmp_path / "mended"

    def train(trial: TrialHandle) -> None:
        state = trial.folder / "epoch"
        done = int(state.read_text()) if state.exists() else 0
        assert done == len(trial.reported)
        for epoch in range(done + 1, 4):
            if (trial.batch_size, epoch, mended.exists()) == (16, 3, False):
                raise ValueError("no third epoch")
            trial.report(updates=epoch * 64 // trial.batch_size, val_loss=1 / epoch)
            state.write_text(str(epoch))

    run = run_function(train, folder)
    assert outcomes(run) == [("b16-r1", "failed", 2), BOTH[1]]
    assert str(run.trials[0].error).splitlines()[-1] == "ValueError: no third epoch"
    assert [path.name for path in RunFolder(folder).checkpoints.iterdir()] == ["b16-r1"]
    mended.touch()
    seen = Events()
    run = run_function(train, folder, seen)
    assert outcomes(run) == BOTH
    assert seen.records == [("b16-r1", 3)]
    assert run.history["val_loss"].tolist() == [1, 1 / 2, 1 / 3] * 2
    assert not [note for note in seen.notes if "changed" in note]


def test_each_of_several_learning_rates_is_tried_and_the_best_compared(tmp_path: Path):
    def train(trial: TrialHandle) -> None:
        best = {16: 0.01, 32: 0.1}[trial.batch_size]
        accuracy = (0.9 if trial.learning_rate == best else 0.5) + trial.replicate / 100
        trial.report(updates=64 // trial.batch_size, val_accuracy=accuracy, selection_accuracy=accuracy)

    run = run_function(train, tmp_path / "run", learning_rates=[0.1, 0.01], replicates=2)
    names = [f"b{size}-lr{rate}-r{r}" for r in (1, 2) for size in (16, 32) for rate in (0.01, 0.1)]
    assert outcomes(run) == [(name, "complete", 1) for name in names]
    history = run.history
    assert (history["learning_rate"] == history["grid_learning_rate"]).all()
    assert sorted(history["learning_rate"]) == [0.01] * 4 + [0.1] * 4
    chosen = {point.batch_size: point.learning_rate for point in run.analyze().learning_rates.chosen}
    assert chosen == {16: 0.01, 32: 0.1}


def test_a_learning_rate_that_nobody_tells_is_unknown_and_none_of_zero(tmp_path: Path):
    def train(trial: TrialHandle) -> None:
        for epoch in (1, 2):
            trial.report(updates=epoch * 64 // trial.batch_size, val_accuracy=epoch / 10)

    run = run_function(train, tmp_path / "run", replicates=2)
    assert "learning_rate" not in run.history.columns
    with Store(RunFolder(run.path).database) as store:
        assert all(math.isnan(record.learning_rate) for record in store.records(run.trials[0].trial))
    analysis = run.analyze()
    assert analysis.facts.learning_rate_retuned is None
    assert "learning_rate_unknown" in [sentence.rule for sentence in analysis.verdict]
    assert "learning_rate_not_retuned" not in [reason.rule for reason in analysis.recommendation.reasons]


def test_another_source_goes_on_and_is_told(tmp_path: Path):
    def train(trial: TrialHandle) -> None:
        trial.report(updates=64 // trial.batch_size, val_loss=1.0)
        if trial.batch_size == 32:
            raise ValueError

    first, seen = train, Events()
    run = run_function(first, tmp_path / "run", seen)
    assert outcomes(run) == [("b16-r1", "complete", 1), ("b32-r1", "failed", 1)]

    def train(trial: TrialHandle) -> None:
        trial.report(updates=64 // trial.batch_size, val_loss=1.0)

    second, seen = train, Events()
    run = run_function(second, tmp_path / "run", seen)
    assert outcomes(run) == [("b16-r1", "complete", 1), ("b32-r1", "complete", 1)]
    [told] = [note for note in seen.notes if "has changed" in note]
    assert told.startswith(f"the source of {__name__}:{train.__qualname__} has changed (sha256 ")
    with Store(RunFolder(run.path).database) as store:
        page = page_content(run.study, store, run.history, run.analyze())
        [_, (began, _, facts)] = store.sessions()
    assert facts["source sha256"] == function_spec(second).sha256 != function_spec(first).sha256
    [notice] = page.notices
    assert notice.startswith("The training code was changed while the run went on: epochs from before and ")
    assert notice.endswith(f"after {began} are not of the same code.")
    # The finished run is that of the second source, and of no other.
    run_function(second, tmp_path / "run")
    with pytest.raises(RunFolderError, match="has changed"):
        run_function(first, tmp_path / "run")


def test_a_finished_run_is_not_passed_off_as_one_of_another_source(tmp_path: Path):
    def train(trial: TrialHandle) -> None:
        trial.report(updates=64 // trial.batch_size, val_loss=1.0)

    run = run_function(train, tmp_path / "run")
    assert outcomes(run) == [("b16-r1", "complete", 1), ("b32-r1", "complete", 1)]

    def train(trial: TrialHandle) -> None:
        """The same, with a remark."""
        trial.report(updates=64 // trial.batch_size, val_loss=1.0)  # a perfect one

    run_function(train, tmp_path / "run")

    def train(trial: TrialHandle) -> None:
        trial.report(updates=64 // trial.batch_size, val_loss=2.0)

    with pytest.raises(RunFolderError) as caught:
        run_function(train, tmp_path / "run")
    assert f"but the source of {__name__}:{train.__qualname__} has changed (sha256 " in str(caught.value)
    assert "; give --out (out=) another folder to train with it, or open what is" in str(caught.value)
    assert run_function(train, tmp_path / "other").history["val_loss"].tolist() == [2.0, 2.0]
    assert run.history["val_loss"].tolist() == [1.0, 1.0]


def test_a_function_that_begins_anew_with_other_figures_leaves_one_course_and_says_so(tmp_path: Path):
    folder, mended = tmp_path / "run", tmp_path / "mended"

    def train(trial: TrialHandle) -> None:
        """Knows nothing of being called again, and never comes to the same figures."""
        import os

        for epoch in (1, 2, 3):
            if epoch == 3 and not mended.exists():
                raise ValueError
            chance = int.from_bytes(os.urandom(6), "big") / 2**48
            trial.report(
                updates=epoch * 64 // trial.batch_size, val_accuracy=chance, course=int(mended.exists())
            )

    run_function(train, folder)
    before = load(folder).history
    mended.touch()
    seen = Events()
    run = run_function(train, folder, seen)
    history = run.history
    assert outcomes(run) == BOTH
    assert (before["course"].tolist(), history["course"].tolist()) == ([0.0] * 4, [1.0] * 6)
    notes = [note for note in seen.notes if "anew" in note]
    assert notes == [
        f"{name} began anew, with other figures than before: epochs 1 to 2 are discarded and replaced"
        for name in ("b16-r1", "b32-r1")
    ]
    with Store(RunFolder(folder).database) as store:
        facts = store.sessions()[1][2]
    assert facts["discarded of b32-r1"] == "epochs 1 to 2"


def test_epochs_beyond_those_of_a_function_that_was_shortened_are_discarded_and_said(tmp_path: Path):
    folder, mended = tmp_path / "run", tmp_path / "mended"

    def train(trial: TrialHandle) -> None:
        for epoch in (1, 2) if mended.exists() else (1, 2, 3, 4):
            trial.report(updates=epoch * 64 // trial.batch_size, val_accuracy=epoch / 10)
        if not mended.exists():
            raise ValueError

    assert outcomes(run_function(train, folder)) == [("b16-r1", "failed", 4), ("b32-r1", "failed", 4)]
    mended.touch()
    seen = Events()
    run = run_function(train, folder, seen)
    assert outcomes(run) == [("b16-r1", "complete", 2), ("b32-r1", "complete", 2)]
    assert run.history["val_accuracy"].tolist() == [0.1, 0.2] * 2
    assert [note for note in seen.notes if "anew" in note] == [
        f"{name} began anew, and ended earlier than before: epochs 3 to 4 are discarded"
        for name in ("b16-r1", "b32-r1")
    ]
    with Store(RunFolder(folder).database) as store:
        assert store.sessions()[1][2]["discarded of b32-r1"] == "epochs 3 to 4"


@pytest.mark.parametrize(
    ("body", "last_line"),
    [
        (
            "pass",
            "TrainingError: a trial must report at least one epoch, but ended without",
        ),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("import os; os._exit(7)", "the worker process ended with exit code 7"),
        (
            "trial.report(updates=1, val_accuracy=50)",
            "HistoryError: val_accuracy must lie between 0 and 1, but got 50; divide percentages by 100",
        ),
        (
            "trial.report(updates=1, val_accuracy=0.5)",
            "but this one has val_accuracy; give others names of their own",
        ),
    ],
)
def test_a_function_that_misbehaves_costs_its_trial_alone(tmp_path: Path, body: str, last_line: str):
    made: dict[str, object] = {"__name__": "__main__"}
    exec(
        "def train(trial):\n"
        "    if trial.batch_size == 16:\n"
        "        trial.report(updates=1, val_loss=1.0)\n"
        f"    else:\n        {body}\n",
        made,
    )
    run = run_function(made["train"], tmp_path / "run", batch_sizes=[16, 32, 64], replicates=1)
    assert [state for _, state, _ in outcomes(run)] == ["complete", "failed", "failed"]
    assert str(run.trials[1].error).strip().endswith(last_line)


def test_a_trial_that_diverges_ends_and_is_not_called_again(tmp_path: Path):
    folder, calls = tmp_path / "run", tmp_path / "calls"

    def train(trial: TrialHandle) -> None:
        with calls.open("a") as file:
            file.write(f"{trial.name}\n")
        trial.report(updates=1, val_loss=1.0)
        with contextlib.suppress(Exception):  # as code may that wants to go on whatever happens
            trial.report(updates=2, val_loss=float("nan") if trial.batch_size == 16 else 0.5)
        trial.report(updates=3, val_loss=0.4)

    run = run_function(train, folder)
    assert outcomes(run) == [("b16-r1", "diverged", 2), BOTH[1]]
    with Store(
        RunFolder(folder).database
    ) as store:  # as if a kill had come before the trial's end was stored
        store.set_state(run.trials[0].trial, TrialState.RUNNING)
    assert outcomes(run_function(train, folder)) == [("b16-r1", "diverged", 2), BOTH[1]]
    assert calls.read_text().split() == ["b16-r1", "b32-r1"]
