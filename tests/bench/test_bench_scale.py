"""The bench of scale: what its tables hold, and a run through each executor in small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from desk_run import DeskRun
from nodes_run import NodesRun
from scale import desk_sentence, nodes_table, scale_table
from scale_run import BATCH_SIZES, ScaleRun

BENCH = Path(__file__).parents[2] / "bench"


def test_a_trial_that_does_nothing_costs_its_share_of_the_workers_time():
    run = ScaleRun("ray", 10_000, 200_000, 2, 3.25, 400.0, 12.5, 7.5, 600_000_000)
    assert run.cost_of_trial == pytest.approx(0.08)
    row = scale_table([run]).splitlines()[-1]
    assert row == "| ray | 10,000 | 200,000 | 3.2 | 500 | 80.0 | 12.5 | 7.5 | 600 |"


def test_two_nodes_stand_beside_the_one_of_their_pair():
    runs = [NodesRun(1, 10, 200.0, 180.0), NodesRun(2, 10, 110.0, 90.0)]
    assert nodes_table([*runs, *runs]).splitlines()[2:] == [
        "| 1 | 200 | 110 | 0.55 | 180 | 90 | 0.50 |",
        "| 2 | 200 | 110 | 0.55 | 180 | 90 | 0.50 |",
    ]


def test_the_desk_takes_letters_of_both_kinds():
    pytest.importorskip("ray")
    command = [sys.executable, str(BENCH / "desk_run.py"), "400"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = DeskRun(**json.loads(told))
    assert min(found.answered, found.unanswered) > 0
    sentence = desk_sentence(DeskRun(1234.5, 2345.6))
    assert sentence.endswith("took 1,234 letters a second that wait for an answer and 2,346 that do not.")


@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_run_counts_what_it_stored(executor: str, tmp_path: Path):
    if executor == "ray":
        pytest.importorskip("ray")
    command = [sys.executable, str(BENCH / "scale_run.py"), executor, str(tmp_path / "run"), "1", "2"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = ScaleRun(**json.loads(told))
    assert (found.trials, found.records) == (len(BATCH_SIZES), 2 * len(BATCH_SIZES))
    assert min(found.start, found.trained, found.after, found.again) > 0
    assert 50e6 < found.memory < 5e9
