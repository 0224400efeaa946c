"""A run that is given more: replicates, a search for narrow intervals, targets."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from batchscope import load
from batchscope.errors import RunFolderError, StudyError
from batchscope.own.handle import TrialHandle
from batchscope.running.folder import RunFolder
from own_runs import outcomes, run_function
from run_samples import Events

pytestmark = pytest.mark.usefixtures("machine")
TARGETS = [{"metric": "val_accuracy", "value": 0.6}]


def train(trial: TrialHandle) -> None:
    for epoch in (1, 2):
        figure = 0.5 + 0.01 * trial.replicate * (trial.batch_size == 32) + trial.replicate / 1000
        trial.report(updates=epoch, val_accuracy=figure)


def figures(history: pd.DataFrame) -> pd.DataFrame:
    return history.drop(columns="seconds")


def test_replicates_are_added_to_a_finished_run_and_it_says_so(tmp_path: Path):
    run_function(train, tmp_path / "run", replicates=1)
    seen = Events()
    run = run_function(train, tmp_path / "run", seen, replicates=3)
    assert seen.records == [(f"b{size}-r{r}", epoch) for r in (2, 3) for size in (16, 32) for epoch in (1, 2)]
    assert "the study was changed: replicates: 1 -> 3" in seen.notes
    assert run.study.replicates == 3
    whole = run_function(train, tmp_path / "whole", replicates=3)
    assert outcomes(run) == outcomes(whole)
    pd.testing.assert_frame_equal(figures(run.history), figures(whole.history), check_exact=True)
    page = run.write_report().read_text(encoding="utf-8")
    assert "replicates: 1 -&gt; 3" in page
    assert "replicates 1 to 3" in page


def test_a_search_that_is_asked_for_later_ends_as_one_from_the_start(tmp_path: Path):
    run_function(train, tmp_path / "run", replicates=3)
    search = {"half_width": 0.02, "max_replicates": 6}
    run = run_function(train, tmp_path / "run", replicates=3, until_ci=search | {"max_replicates": 4})
    assert run.history.groupby("batch_size")["replicate"].nunique().to_dict() == {16: 3, 32: 4}
    run = run_function(train, tmp_path / "run", replicates=3, until_ci=search)
    whole = run_function(train, tmp_path / "whole", replicates=3, until_ci=search)
    assert whole.history.groupby("batch_size")["replicate"].nunique().to_dict() == {16: 3, 32: 6}
    pd.testing.assert_frame_equal(figures(run.history), figures(whole.history), check_exact=True)
    assert "replicates 1 to 6 (at some batch sizes 1 to 3)" in run.write_report().read_text(encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"until_ci\.half_width: 0\.02 -> absent"):
        run_function(train, tmp_path / "run", replicates=3)


def test_targets_are_changed_and_nothing_is_trained(tmp_path: Path):
    before = run_function(train, tmp_path / "run").history
    seen = Events()
    run = run_function(train, tmp_path / "run", seen, targets=TARGETS)
    assert (seen.starts, seen.planned) == ([], [(2, 2, 0)])
    assert [(one.metric, one.value) for one in run.analyze().updates_to_target] == [("val_accuracy", 0.6)]
    pd.testing.assert_frame_equal(run.history, before, check_exact=True)


def test_a_search_by_what_the_stored_trials_do_not_report_is_refused_and_leaves_the_study(tmp_path: Path):
    run_function(train, tmp_path / "run", replicates=3)
    frozen = RunFolder(tmp_path / "run").study_file.read_bytes()
    search = {"half_width": 0.1, "max_replicates": 4, "metric": "val_loss"}
    with pytest.raises(StudyError, match=r"they report val_accuracy: set until_ci\.metric to it"):
        run_function(train, tmp_path / "run", replicates=3, until_ci=search)
    assert RunFolder(tmp_path / "run").study_file.read_bytes() == frozen


def test_what_else_is_frozen_stays_as_the_run_began(tmp_path: Path):
    run_function(train, tmp_path / "run")
    first = load(tmp_path / "run").study

    def changed(trial: TrialHandle) -> None:
        trial.report(updates=1, val_accuracy=0.25)

    changed.__module__, changed.__qualname__ = train.__module__, train.__qualname__
    run = run_function(changed, tmp_path / "run", replicates=2, name="train")
    assert run.study == first.model_copy(update={"replicates": 2})
    assert [count for _, _, count in outcomes(run)] == [2, 2, 1, 1]
