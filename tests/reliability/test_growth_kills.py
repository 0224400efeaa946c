"""Replicates that are added are the same ones, with the same figures, wherever a run was killed."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from commands import HERE, started

import batchscope
from batchscope.records import TrialState

PLACES = ["worker b16-r2", "before b32-r4", "run b32-r4", "after b32-r5", "worker b32-r5"]
MOST_STARTS = 20


def carried_out(folder: Path, workers: int, rates: int, kills: Path) -> list[int]:
    """The command, started until it ends well; its exit codes."""
    codes: list[int] = []
    while codes[-1:] != [0]:
        assert len(codes) < MOST_STARTS
        command = [sys.executable, HERE / "growth_driver.py", folder, str(workers), str(rates), kills]
        with started(command, cwd=folder.parent) as process:
            _, err = process.communicate()
        codes.append(process.returncode)
        assert process.returncode in (0, 1, -signal.SIGKILL), err
    return codes


def history(folder: Path) -> pd.DataFrame:
    """But for times, and in which order trials were planned."""
    return batchscope.load(folder).history.drop(columns="seconds")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], pd.DataFrame]:
    """The history of a run of one worker that nothing disturbs, given the number of learning rates."""

    @cache
    def undisturbed(rates: int) -> pd.DataFrame:
        place = tmp_path_factory.mktemp("whole")
        assert carried_out(place / "run", 1, rates, place) == [0]
        return history(place / "run")

    return undisturbed


@pytest.mark.parametrize(("workers", "rates"), [(1, 0), (2, 0), (2, 2)], ids=["one", "two", "grid"])
def test_a_run_with_added_replicates_ends_alike_however_often_it_is_killed(
    tmp_path: Path, whole: Callable[[int], pd.DataFrame], workers: int, rates: int
):
    expected = whole(rates)
    counts = expected.groupby("batch_size")["replicate"].nunique().to_dict()
    assert counts[16] == 3
    assert 5 <= counts[32] < 9
    kills = tmp_path / "kills"
    kills.mkdir()
    for place in PLACES:
        (kills / place).touch()
    codes = carried_out(tmp_path / "run", workers, rates, kills)
    assert list(kills.iterdir()) == []
    assert codes.count(-signal.SIGKILL) == sum(not place.startswith("worker") for place in PLACES)
    pd.testing.assert_frame_equal(history(tmp_path / "run"), expected, check_exact=True)
    states = {status.state for status in batchscope.load(tmp_path / "run").trials}
    assert states == {TrialState.COMPLETE}
