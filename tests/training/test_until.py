"""A stage that ends within an epoch, where validation is measured to have reached its target."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from backbones import SMALL_TAIL, small_study

from batchscope.history import SELECTION
from batchscope.records import EpochRecord, Trial
from batchscope.spec import Study
from batchscope.training import trial as trial_module
from batchscope.training.loops import Figures
from batchscope.training.parts import part_ends
from batchscope.training.trial import Trainer
from batchscope.training.validation import Validator
from timeless import without_time
from tiny import TRAINING, stage, tiny_data

pytestmark = [pytest.mark.keras, pytest.mark.usefixtures("small_net")]

SIZE, PARTS, EPOCHS = 8, 3, 4
FIRST = Trial(batch_size=SIZE, replicate=1)
# Updates and examples of an epoch.
LENGTHS = {"keep": (-(-TRAINING // SIZE), TRAINING), "drop": (TRAINING // SIZE, TRAINING // SIZE * SIZE)}


@dataclass(frozen=True)
class Mark:
    """A measurement: in which epoch, after which of its parts and how many updates, and the loss."""

    epoch: int
    part: int
    updates: int
    loss: float


def study(*stages: dict[str, object], **changes: object) -> Study:
    defaults = {"validations_per_epoch": PARTS, "probes": "none"}
    return small_study(stages=list(stages), **(defaults | changes))


def head(**budget: object) -> dict[str, object]:
    raw = stage("head_stage", "head", epochs=0) | {"optimizer": "sgd", "learning_rate": 0.05}
    del raw["epochs"]
    return raw | budget


def until(value: float, epochs: int = EPOCHS) -> dict[str, object]:
    return {"until": {"metric": "val_loss", "value": value, "epochs": epochs}}


def trained(study: Study) -> list[EpochRecord]:
    return list(Trainer(study, tiny_data()).run(FIRST))


def marks(records: list[EpochRecord]) -> list[Mark]:
    found = []
    for record in records:
        inside = [part for part in range(1, PARTS) if f"within_{part}_updates" in record.probes]
        found += [
            Mark(
                record.epoch,
                part,
                int(record.probes[f"within_{part}_updates"]),
                record.probes[f"within_{part}_val_loss"],
            )
            for part in inside
        ]
        found.append(Mark(record.epoch, PARTS, record.updates, record.val_loss))
    return found


def first_low(records: list[EpochRecord], epoch: int) -> Mark:
    """The first measurement within an epoch whose loss is below all before it."""
    lowest = float("inf")
    for mark in marks(records):
        if mark.loss < lowest and mark.epoch >= epoch and mark.part < PARTS:
            return mark
        lowest = min(lowest, mark.loss)
    raise AssertionError("no loss within an epoch is the lowest so far")


@pytest.fixture(scope="module", params=["keep", "drop"])
def last_batch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def plain(last_batch: str) -> list[EpochRecord]:
    return trained(study(head(epochs=EPOCHS), last_batch=last_batch))


def test_an_epoch_ends_at_the_measurement_that_reaches_the_target(
    plain: list[EpochRecord], last_batch: str
) -> None:
    mark = first_low(plain, epoch=2)
    found = trained(study(head(**until(mark.loss)), last_batch=last_batch))
    *before, last = without_time(found)
    assert before == without_time(plain[: mark.epoch - 1])
    updates, examples = LENGTHS[last_batch]
    done = part_ends(updates, PARTS)[mark.part - 1]
    assert (last.epoch, last.updates) == (mark.epoch, mark.updates)
    assert last.updates == updates * (mark.epoch - 1) + done
    assert last.examples == examples * (mark.epoch - 1) + done * SIZE
    assert last.val_loss == mark.loss
    assert last.val_accuracy == plain[mark.epoch - 1].probes[f"within_{mark.part}_val_accuracy"]
    # What was measured ahead of it stands in its row, and nothing of the rest of the epoch.
    ran_on = plain[mark.epoch - 1].probes
    ahead = {name: value for name, value in ran_on.items() if int(name.split("_")[1]) < mark.part}
    assert last.probes == ahead


def test_it_reports_the_training_of_what_it_has_shown(plain: list[EpochRecord], last_batch: str) -> None:
    """As a trial does that is given so many updates, whose last epoch is one part less whole."""
    mark = first_low(plain, epoch=2)
    last = trained(study(head(**until(mark.loss)), last_batch=last_batch))[-1]
    budgeted = trained(study(head(updates=mark.updates), last_batch=last_batch, validations_per_epoch=1))[-1]
    assert (budgeted.epoch, budgeted.updates, budgeted.examples) == (last.epoch, last.updates, last.examples)
    assert last.train_loss == pytest.approx(budgeted.train_loss, rel=1e-6)
    assert last.train_accuracy == pytest.approx(budgeted.train_accuracy)
    assert last.val_loss == pytest.approx(budgeted.val_loss, rel=1e-6)
    assert last.train_loss != pytest.approx(plain[mark.epoch - 1].train_loss, rel=1e-6)


def test_its_clock_stops_there(
    plain: list[EpochRecord], last_batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part takes a tick, so an epoch that runs on takes three."""
    mark = first_low(plain, epoch=2)
    ticks = itertools.count()
    monkeypatch.setattr(trial_module, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    found = trained(study(head(**until(mark.loss)), last_batch=last_batch))
    whole = [float(PARTS * epoch) for epoch in range(1, mark.epoch)]
    assert [record.seconds for record in found] == [*whole, PARTS * (mark.epoch - 1.0) + mark.part]


def test_the_first_part_of_all_may_be_enough(
    plain: list[EpochRecord], last_batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, measured = Validator.measure, []

    def counted(self: Validator, trial: Trial, *, choosing: bool) -> tuple[Figures, dict[str, float]]:
        measured.append(trial)
        return measure(self, trial, choosing=choosing)

    monkeypatch.setattr(Validator, "measure", counted)
    first = marks(plain)[0]
    [record] = trained(study(head(**until(first.loss)), last_batch=last_batch))
    assert measured == [FIRST]
    assert (record.updates, record.examples, record.probes) == (first.updates, first.updates * SIZE, {})


def test_a_target_that_is_never_reached_cuts_no_epoch_short(
    plain: list[EpochRecord], last_batch: str
) -> None:
    found = trained(study(head(**until(1e-6)), last_batch=last_batch))
    assert without_time(found) == without_time(plain)


@pytest.mark.parametrize("last_batch", ["keep"], indirect=True)
def test_the_next_stage_counts_on_from_there_and_goes_on_after_a_stop(
    plain: list[EpochRecord], last_batch: str, tmp_path: Path
) -> None:
    mark = first_low(plain, epoch=2)
    warmed_up = {"base": 0.02, "warmup_updates": 9}
    tail = stage("tail_stage", SMALL_TAIL, epochs=2) | {"learning_rate": warmed_up}
    trainer = Trainer(study(head(**until(mark.loss)), tail), tiny_data())
    whole = list(trainer.run(FIRST))
    per_epoch = LENGTHS[last_batch][0]
    assert [(record.stage, record.epoch, record.updates) for record in whole[mark.epoch - 1 :]] == [
        ("head_stage", mark.epoch, mark.updates),
        ("tail_stage", mark.epoch + 1, mark.updates + per_epoch),
        ("tail_stage", mark.epoch + 2, mark.updates + 2 * per_epoch),
    ]
    assert [record.learning_rate for record in whole[-2:]] == pytest.approx([0.02 * per_epoch / 9, 0.02])
    for stop in range(1, len(whole)):
        path = tmp_path / f"{stop}.npz"
        before = list(itertools.islice(trainer.run(FIRST, path), stop))
        next(trainer.run(Trial(batch_size=16, replicate=2)))  # leaves other weights behind
        after = list(trainer.run(FIRST, path, stored_epochs=stop))
        assert without_time([*before, *after]) == without_time(whole)


@pytest.mark.parametrize("last_batch", ["keep"], indirect=True)
def test_a_learning_rate_is_told_as_far_as_it_was_warmed_up(plain: list[EpochRecord]) -> None:
    warmed_up = {"base": 0.05, "warmup_updates": 9}
    low = first_low(trained(study(head(epochs=1, learning_rate=warmed_up))), epoch=1)
    [record] = trained(study(head(**until(low.loss), learning_rate=warmed_up)))
    assert record.updates == low.updates < 9
    assert record.learning_rate == pytest.approx(0.05 * low.updates / 9)


GRID = {"grid": [0.01, 0.05]}


def test_no_images_are_set_apart_where_updates_to_the_target_choose() -> None:
    data = tiny_data()
    trainer = Trainer(study(head(**until(1e-6, epochs=1), learning_rate=GRID)), data)
    assert len(trainer._examples.selection) == 0
    assert trainer._examples.validation.tolist() == data.split.validation.tolist()
    [record] = trainer.run(replace(FIRST, learning_rate=0.05))
    assert not [name for name in record.probes if name.startswith(SELECTION)]
    [alone] = trained(study(head(**until(1e-6, epochs=1))))
    assert without_time([record]) == without_time([alone])


def test_a_stage_that_ends_within_an_epoch_ahead_of_the_last_still_measures_what_selects() -> None:
    later = stage("late_stage", "head", epochs=1)
    trainer = Trainer(study(head(**until(100.0), learning_rate=GRID), later), tiny_data())
    assert len(trainer._examples.selection) > 0
    first, second = trainer.run(replace(FIRST, learning_rate=0.05))
    assert (first.updates, second.epoch) == (part_ends(LENGTHS["keep"][0], PARTS)[0], 2)
    assert {f"{SELECTION}loss", f"{SELECTION}accuracy"} == set(first.probes)
