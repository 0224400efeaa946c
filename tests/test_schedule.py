"""Epochs, updates and examples of a stage, counted by hand."""

from __future__ import annotations

import pytest

from batchscope.schedule import schedule
from batchscope.studies import load_study
from tiny import stage, tiny_study


@pytest.mark.parametrize(
    ("batch_size", "last_batch", "updates", "examples"),
    [(16, "keep", 3, 44), (16, "drop", 2, 32), (11, "keep", 4, 44), (11, "drop", 4, 44), (44, "drop", 1, 44)],
)
def test_an_epoch_of_44_images(batch_size: int, last_batch: str, updates: int, examples: int):
    study = tiny_study(stages=[stage("one", "head", epochs=5)], last_batch=last_batch)
    (planned,) = schedule(study, batch_size, 44)
    assert (planned.epochs, planned.last_epoch) == (5, 5)
    assert (planned.updates_in(1), planned.examples_in(1)) == (updates, examples)
    assert (planned.updates, planned.examples) == (5 * updates, 5 * examples)


def test_a_budget_in_updates_cuts_the_last_epoch_short():
    raw = stage("one", "head", epochs=0) | {"updates": 7}
    del raw["epochs"]
    study = tiny_study(stages=[raw, stage("two", "head", epochs=1)])
    first, second = schedule(study, 16, 44)
    assert [first.updates_in(epoch) for epoch in (1, 2, 3)] == [3, 3, 1]
    assert [first.examples_in(epoch) for epoch in (1, 2, 3)] == [44, 44, 16]
    assert (first.epochs, first.updates, first.examples) == (3, 7, 104)
    assert (second.first_epoch, second.last_epoch) == (4, 4)
    assert schedule(study, 44, 44)[0].epochs == 7


def test_the_2019_study_has_its_published_numbers_of_updates():
    study = load_study("aerial-cactus-2019")
    per_epoch = [schedule(study, size, 14_000)[0].updates_in(1) for size in study.batch_sizes]
    assert per_epoch == [875, 437, 218, 109]
    assert [schedule(study, size, 14_000)[1].last_epoch for size in study.batch_sizes] == [20] * 4


def test_ghost_batches_pass_in_parts():
    stages = [stage("one", "head", epochs=1, batchnorm="batch", ghost_batch=4)]
    (planned,) = schedule(tiny_study(stages=stages, last_batch="drop"), 16, 44)
    assert (planned.forward_batch, planned.updates_in(1), planned.examples_in(1)) == (4, 2, 32)
