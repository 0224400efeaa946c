"""Budgets and learning rates in training: what is in force, when a stage ends, and going on from there."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from backbones import SMALL_TAIL, small_study

from batchscope.errors import DataError
from batchscope.records import EpochRecord, Trial
from batchscope.training import trial as trial_module
from batchscope.training.trial import Trainer
from batchscope.training.warmup import Pace
from timeless import without_time
from tiny import stage, tiny_data

pytestmark = [pytest.mark.keras, pytest.mark.usefixtures("small_net")]

FIRST = Trial(batch_size=8, replicate=1)
WARMED_UP = {"base": 0.02, "warmup_updates": 9}


def budgeted(name: str, trainable: object, **keys: object) -> dict[str, object]:
    raw = stage(name, trainable, epochs=0) | {"optimizer": "sgd", **keys}
    if "epochs" not in keys:
        del raw["epochs"]
    return raw


def interrupted(trainer: Trainer, path: Path, stop: int) -> list[EpochRecord]:
    """A trial stopped after so many epochs, with another one between, and gone on with."""
    run = trainer.run(FIRST, path)
    before = list(itertools.islice(run, stop))
    next(trainer.run(Trial(batch_size=16, replicate=2)))  # leaves other weights and rates behind
    return [*before, *trainer.run(FIRST, path, stored_epochs=stop)]


@pytest.fixture(scope="module")
def plain() -> list[EpochRecord]:
    """Two stages of five epochs, the second warmed up."""
    stages = [
        budgeted("head_stage", "head", epochs=5, learning_rate=0.05),
        budgeted("tail_stage", SMALL_TAIL, epochs=3, learning_rate=WARMED_UP),
    ]
    return list(Trainer(small_study(stages=stages, probes="none"), tiny_data()).run(FIRST))


@pytest.fixture(scope="module")
def until(plain: list[EpochRecord]) -> tuple[Trainer, int]:
    """The same until the loss that the second epoch came to, and at which epoch that is."""
    value = plain[1].val_loss
    ends = next(record.epoch for record in plain if record.val_loss <= value)
    stages = [
        budgeted(
            "head_stage",
            "head",
            learning_rate=0.05,
            until={"metric": "val_loss", "value": value, "epochs": 5},
        ),
        budgeted("tail_stage", SMALL_TAIL, epochs=3, learning_rate=WARMED_UP),
    ]
    return Trainer(small_study(stages=stages, probes="last"), tiny_data()), ends


def test_the_history_has_the_rate_of_the_last_update(plain: list[EpochRecord]):
    """Six updates an epoch, of which nine warm up."""
    expected = [0.05] * 5 + [0.02 * 6 / 9, 0.02, 0.02]
    assert [record.learning_rate for record in plain] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("parts", [1, 3])
def test_each_update_of_the_graph_takes_its_own_rate(parts: int):
    pace = Pace(parts)
    optimizer = keras.optimizers.SGD(learning_rate=pace)
    pace.join(optimizer)
    pace.set(0.5, 4)
    taken = [float(pace(keras.ops.convert_to_tensor(step))) for step in range(6 * parts)]
    assert taken == pytest.approx([0.5 * min((step // parts + 1) / 4, 1) for step in range(6 * parts)])


def test_a_stage_ends_at_its_target_and_the_next_counts_on_from_there(
    plain: list[EpochRecord], until: tuple[Trainer, int]
):
    trainer, ends = until
    found = list(trainer.run(FIRST))
    assert 1 <= ends < 5
    expected = [replace(record, probes={}) for record in without_time(found[:ends])]
    assert expected == without_time(plain[:ends])
    assert [(record.epoch, record.stage) for record in found[ends:]] == [
        (ends + step, "tail_stage") for step in (1, 2, 3)
    ]
    assert [record.updates for record in found] == [6 * record.epoch for record in found]
    assert [record.learning_rate for record in found[ends:]] == pytest.approx([0.02 * 6 / 9, 0.02, 0.02])
    assert [record.epoch for record in found if record.probes] == [ends, ends + 3]


@pytest.mark.parametrize("stop", range(1, 5))
def test_a_trial_goes_on_within_a_stage_of_unknown_length_and_within_a_warm_up(
    until: tuple[Trainer, int], tmp_path: Path, stop: int
):
    trainer, _ = until
    assert without_time(interrupted(trainer, tmp_path / "c.npz", stop)) == without_time(
        list(trainer.run(FIRST))
    )


def test_seconds_end_a_stage_by_the_clock_that_goes_on_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ticks = itertools.count()
    monkeypatch.setattr(trial_module, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    stages = [
        budgeted("head_stage", "head", seconds=2.5, learning_rate=0.05),
        budgeted("late_stage", "head", seconds=1.0, learning_rate=0.05),
    ]
    trainer = Trainer(small_study(stages=stages, probes="none"), tiny_data())
    through = list(trainer.run(FIRST))
    # An epoch takes a tick, so that the third is the one in which two and a half are used up.
    assert [(record.stage, record.seconds) for record in through] == [
        ("head_stage", 1.0),
        ("head_stage", 2.0),
        ("head_stage", 3.0),
        ("late_stage", 4.0),
    ]
    for stop in (1, 2, 3):
        assert interrupted(trainer, tmp_path / f"{stop}.npz", stop) == through


@pytest.fixture(scope="module")
def tried() -> Trainer:
    grid = {"grid": [0.01, 0.05], "rule": "sqrt", "base_batch_size": 32}
    stages = [budgeted("head_stage", "head", epochs=2, learning_rate=grid)]
    data = {"source": "nowhere", "selection_share": 0.4}
    return Trainer(small_study(stages=stages, probes="none", data=data), tiny_data())


def test_a_trial_of_a_grid_trains_as_one_of_its_learning_rate(tried: Trainer):
    stages = [budgeted("head_stage", "head", epochs=2, learning_rate=0.05 / 2)]
    alone = list(Trainer(small_study(stages=stages, probes="none"), tiny_data()).run(FIRST))
    list(tried.run(replace(FIRST, learning_rate=0.01)))
    found = list(tried.run(replace(FIRST, learning_rate=0.05)))
    for record, expected in zip(found, alone, strict=True):
        assert record.learning_rate == expected.learning_rate == 0.025
        assert (record.train_loss, record.train_accuracy) == (expected.train_loss, expected.train_accuracy)


def test_selection_rests_on_validation_images_that_validate_nothing_else(tried: Trainer):
    data = tiny_data()
    record = list(tried.run(replace(FIRST, learning_rate=0.05)))[-1]
    chosen_by, validated = tried._examples.selection, tried._examples.validation
    assert sorted([*chosen_by, *validated]) == sorted(data.split.validation)
    assert len(chosen_by) == round(0.4 * len(data.split.validation))
    for rows, accuracy, loss in (
        (chosen_by, record.probes["selection_accuracy"], record.probes["selection_loss"]),
        (validated, record.val_accuracy, record.val_loss),
    ):
        images, labels = tried._examples.clean(rows).take(np.arange(len(rows)))
        net = tried.network
        maps = net.backbone(images, training=False)
        predicted = np.array(net.head(keras.layers.GlobalAveragePooling2D()(maps)))
        assert accuracy == pytest.approx(((predicted > 0.5) == labels).mean())
        likelihood = np.where(labels == 1, predicted, 1 - predicted)
        assert loss == pytest.approx(-np.log(likelihood).mean(), rel=1e-4)


def test_too_few_validation_images_to_choose_by_are_refused():
    stages = [budgeted("head_stage", "head", epochs=2, learning_rate={"grid": [0.01, 0.05]})]
    study = small_study(stages=stages, data={"source": "nowhere", "selection_share": 0.01})
    with pytest.raises(DataError, match=r"selection_share = 0\.01 some class has too few .*per class 0: "):
        Trainer(study, tiny_data())
