"""The plan: which trials, in which order, and whether there are images enough."""

from __future__ import annotations

import math
import re

import pytest

from batchscope.errors import DataError
from batchscope.running.plan import check_sizes, examples_per_trial, plan_trials
from run_samples import small_study
from tiny import stage


def test_replicates_come_one_after_the_other_small_batches_first():
    study = small_study(batch_sizes=[32, 8, 128], replicates=2)
    names = ["b8-r1", "b32-r1", "b128-r1", "b8-r2", "b32-r2", "b128-r2"]
    assert [trial.name for trial in plan_trials(study)] == names


def test_each_batch_size_tries_the_whole_grid_within_a_replicate():
    grid = stage("one", "head", epochs=2) | {"learning_rate": {"grid": [0.1, 1e-5, 1.0]}}
    study = small_study(batch_sizes=[16, 8], replicates=2, stages=[grid])
    names = [
        f"b{size}-lr{rate}-r{replicate}"
        for replicate in (1, 2)
        for size in (8, 16)
        for rate in ("1e-05", "0.1", "1")
    ]
    assert [trial.name for trial in plan_trials(study)] == names


def test_a_batch_may_be_as_large_as_the_training_images_and_no_larger():
    study = small_study(batch_sizes=[8, 48])
    check_sizes(study, training=48, validation=1)
    with pytest.raises(DataError, match="got batch size 48 and 47 examples"):
        check_sizes(study, training=47, validation=12)


def test_where_short_batches_are_dropped_validation_needs_a_whole_one():
    study = small_study(batch_sizes=[8, 16], last_batch="drop")
    check_sizes(study, training=48, validation=16)
    with pytest.raises(DataError, match='set last_batch = "keep" or take more examples') as caught:
        check_sizes(study, training=48, validation=15)
    assert "batch size 16 and 15 validation examples" in str(caught.value)


UNTIL = {"until": {"metric": "val_loss", "value": 0.1, "epochs": 5}}


@pytest.mark.parametrize(
    ("budget", "warmup", "fits", "updates"),
    [
        ({"epochs": 5}, {"warmup_updates": 245}, True, 245),
        ({"epochs": 5}, {"warmup_updates": 246}, False, 245),
        (UNTIL, {"warmup_updates": 245}, True, 245),
        (UNTIL, {"warmup_updates": 500}, False, 245),
        ({"updates": 588}, {"warmup_epochs": 3}, True, 588),
        ({"updates": 587}, {"warmup_epochs": 3}, False, 587),
        ({"examples": 1536}, {"warmup_updates": 48}, True, 48),
        ({"examples": 1536}, {"warmup_updates": 49}, False, 48),
        ({"seconds": 1}, {"warmup_updates": 500}, True, 0),
    ],
)
def test_a_warm_up_must_not_outlast_its_stage_at_any_batch_size(
    budget: dict[str, object], warmup: dict[str, int], fits: bool, updates: int
):
    """Batch size 32 takes 49 updates an epoch of 1,568 examples, batch size 8 four times as many."""
    raw = stage("one", "head", epochs=0) | {"learning_rate": {"base": 0.1} | warmup}
    del raw["epochs"]
    study = small_study(batch_sizes=[32, 8], stages=[stage("zero", "head", epochs=1), raw | budget])
    if fits:
        check_sizes(study, training=1568, validation=32)
        return
    with pytest.raises(DataError, match="leave out the batch size") as caught:
        check_sizes(study, training=1568, validation=32)
    assert re.search(
        rf"at batch size (8|32) that of the stage one takes .* has {updates};", str(caught.value)
    )


@pytest.mark.parametrize(("last_batch", "expected"), [("keep", {7: 100, 16: 100}), ("drop", {7: 98, 16: 96})])
def test_images_of_a_whole_trial(last_batch: str, expected: dict[int, int]):
    study = small_study(batch_sizes=[7, 16], last_batch=last_batch)
    assert examples_per_trial(study, 50) == expected


def test_images_of_a_trial_are_the_most_until_a_target_and_unknown_in_seconds():
    until = stage("one", "head", epochs=0) | {"until": {"metric": "val_loss", "value": 0.1, "epochs": 5}}
    seconds = stage("two", "head", epochs=0) | {"seconds": 60}
    for raw in (until, seconds):
        del raw["epochs"]
    assert examples_per_trial(small_study(stages=[until]), 50) == {8: 250, 16: 250}
    assert all(map(math.isnan, examples_per_trial(small_study(stages=[until, seconds]), 50).values()))
