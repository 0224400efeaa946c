"""Epochs, updates and examples of a stage, counted by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from batchscope.schedule import StageSchedule, StageStart, schedule
from batchscope.studies import load_study
from run_samples import record
from tiny import stage, tiny_study

GOOD = {"metric": "val_accuracy", "value": 0.7, "epochs": 5}


def budgeted(name: str, **budget: object) -> dict[str, object]:
    raw = stage(name, "head", epochs=0) | budget
    if "epochs" not in budget:
        del raw["epochs"]
    return raw


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
    study = tiny_study(stages=[budgeted("one", updates=7), budgeted("two", epochs=1)])
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


def walked(images: int, size: int, *, drop: bool, budget: str, amount: int) -> list[tuple[int, int]]:
    """Updates and examples of each epoch, batch by batch, until the budget is spent."""
    epochs: list[tuple[int, int]] = []
    spent = {"epochs": 0, "updates": 0, "examples": 0}
    while spent[budget] < amount:
        left, updates, examples = images, 0, 0
        while left:
            batch = min(size, left)
            if budget == "examples":
                batch = min(batch, amount - spent["examples"])
            if (drop and batch < size) or (budget != "epochs" and spent[budget] == amount):
                break
            left -= batch
            updates, examples = updates + 1, examples + batch
            spent["updates"] += 1
            spent["examples"] += batch
        if updates == 0:
            break
        spent["epochs"] += 1
        epochs.append((updates, examples))
        if drop and budget == "examples" and amount - spent["examples"] < size:
            break
    return epochs


@pytest.mark.parametrize("last_batch", ["keep", "drop"])
@pytest.mark.parametrize("size", [1, 7, 11, 16, 44])
@pytest.mark.parametrize(
    ("budget", "amount"),
    [("epochs", 3), ("updates", 1), ("updates", 9), ("examples", 44), ("examples", 59), ("examples", 132)],
)
def test_budgets_come_to_what_a_walk_through_the_batches_counts(
    budget: str, amount: int, size: int, last_batch: str
):
    study = tiny_study(
        stages=[budgeted("one", **{budget: amount})], last_batch=last_batch, batch_sizes=[size]
    )
    (planned,) = schedule(study, size, 44)
    expected = walked(44, size, drop=last_batch == "drop", budget=budget, amount=amount)
    assert planned.epochs is not None
    assert [
        (planned.updates_in(epoch), planned.examples_in(epoch)) for epoch in range(1, planned.epochs + 1)
    ] == expected
    assert (planned.updates, planned.examples) == tuple(map(sum, zip(*expected, strict=True)))


def test_epochs_behind_a_stage_of_unknown_length_are_not_known_ahead():
    stages = [budgeted("a", epochs=2), budgeted("b", until=GOOD), budgeted("c", seconds=1.5)]
    planned = schedule(tiny_study(stages=stages), 16, 44)
    assert [part.first_epoch for part in planned] == [1, 3, None]
    assert [part.last_epoch for part in planned] == [2, 7, None]  # of the second, the most
    assert [part.updates for part in planned] == [6, 15, None]
    assert planned[2].examples_in(1000) == 44


@pytest.mark.parametrize(
    ("budget", "epochs", "changes", "over"),
    [
        ({"epochs": 2}, 1, {}, False),
        ({"epochs": 2}, 2, {}, True),
        ({"until": GOOD}, 1, {"val_accuracy": 0.69}, False),
        ({"until": GOOD}, 1, {"val_accuracy": 0.7}, True),
        ({"until": GOOD}, 4, {"val_accuracy": math.nan}, False),
        ({"until": GOOD}, 4, {"val_accuracy": 0.7, "val_loss": math.nan}, False),
        ({"until": GOOD}, 4, {"val_accuracy": 0.7, "val_loss": math.inf}, False),
        ({"until": GOOD | {"metric": "val_loss"}}, 1, {"val_loss": -math.inf}, False),
        ({"until": GOOD}, 5, {"val_accuracy": 0.1}, True),
        ({"until": GOOD | {"metric": "val_loss"}}, 1, {"val_loss": 0.71}, False),
        ({"until": GOOD | {"metric": "val_loss"}}, 1, {"val_loss": 0.7}, True),
        ({"seconds": 3.0}, 1, {"seconds": 102.9}, False),
        ({"seconds": 3.0}, 1, {"seconds": 103.0}, True),
    ],
)
def test_a_stage_is_over_when_its_budget_is(
    budget: dict[str, object], epochs: int, changes: dict[str, object], over: bool
):
    (planned,) = schedule(tiny_study(stages=[budgeted("one", **budget)]), 16, 44)
    start = StageStart(epoch=10, updates=30, seconds=100.0)
    last = record(10 + epochs, val_accuracy=0.0, seconds=101.0)
    assert planned.is_over(start, replace(last, **changes)) is over
    reached = replace(last, epoch=10, val_accuracy=1.0, val_loss=0.0, seconds=1e9)
    assert not planned.is_over(start, reached)  # what an earlier stage got to does not end this one


def rates(given: object, size: int, *, of_grid: float | None = None) -> StageSchedule:
    (planned,) = schedule(
        tiny_study(stages=[budgeted("one", epochs=9) | {"learning_rate": given}]), size, 44, of_grid
    )
    return planned


@pytest.mark.parametrize(
    ("rule", "expected"), [("linear", 0.1 * 64 / 16), ("sqrt", 0.1 * (64 / 16) ** 0.5), ("constant", 0.1)]
)
def test_a_rule_takes_the_learning_rate_from_its_base_batch_size(rule: str, expected: float):
    scaled = {"rule": rule} | ({} if rule == "constant" else {"base_batch_size": 16})
    assert rates({"base": 0.1, **scaled}, 64).learning_rate == pytest.approx(expected, rel=1e-15)
    assert rates({"base": 0.1, **scaled}, 16).learning_rate == 0.1
    grid = {"grid": [0.05, 0.1], **scaled}
    assert rates(grid, 64, of_grid=0.1).learning_rate == rates({"base": 0.1, **scaled}, 64).learning_rate


@pytest.mark.parametrize(
    ("warmup", "size", "length"),
    [({"warmup_updates": 7}, 16, 7), ({"warmup_epochs": 2}, 16, 6), ({"warmup_epochs": 2}, 44, 2)],
)
def test_a_warm_up_rises_by_equal_steps_to_the_learning_rate(warmup: dict[str, int], size: int, length: int):
    planned, rising = rates({"base": 0.2, **warmup}, size), 0.0
    for update in range(1, 12):
        rising = min(rising + 0.2 / length, 0.2)
        assert planned.learning_rate_at(update) == pytest.approx(rising, rel=1e-12)
    assert planned.learning_rate_at(length) == 0.2
