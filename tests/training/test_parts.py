"""Validation within epochs."""

from __future__ import annotations

import time

import pytest
from backbones import small_study
from hypothesis import given
from hypothesis import strategies as st

from batchscope.records import BatchProgress, EpochRecord, Trial
from batchscope.spec import Study
from batchscope.training.loops import Figures
from batchscope.training.parts import part_ends, together
from batchscope.training.reporting import counting_on
from batchscope.training.trial import Trainer
from batchscope.training.validation import Validator
from tiny import TRAINING, stage, tiny_data

SIZE = 8
PER_EPOCH = -(-TRAINING // SIZE)


def trained(study: Study) -> list[EpochRecord]:
    return list(Trainer(study, tiny_data()).run(Trial(SIZE, 1)))


def in_batch_mode(**budget: object) -> list[dict[str, object]]:
    return [{**stage("whole", "all", epochs=2), "batchnorm": "batch", **budget}]


def test_parts_are_as_even_as_whole_updates_allow():
    assert part_ends(10, 3) == [4, 7, 10]
    assert part_ends(6, 1) == [6]
    assert part_ends(2, 5) == [1, 2]


@given(st.integers(1, 400), st.integers(1, 50))
def test_parts_cover_the_epoch_and_differ_by_one_update_at_most(updates: int, parts: int):
    ends = part_ends(updates, parts)
    lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    assert len(ends) == min(updates, parts)
    assert ends[-1] == updates
    assert max(lengths) - min(lengths) <= 1


def test_figures_of_parts_count_by_their_examples():
    found = together([(30, Figures(1.0, 0.5)), (10, Figures(2.0, 0.9))])
    assert (found.loss, found.accuracy) == pytest.approx((1.25, 0.6))


def test_progress_counts_on_through_the_parts():
    told: list[tuple[int, float]] = []
    step = counting_on(
        lambda examples, accuracy: told.append((examples, accuracy)), [(30, Figures(1.0, 0.5))]
    )
    step(10, 0.9)
    assert told == [(40, pytest.approx(0.6))]


@pytest.mark.keras
@pytest.mark.usefixtures("small_net")
def test_what_is_measured_within_an_epoch_is_what_a_trial_that_ends_there_measures():
    study = small_study(stages=in_batch_mode(), validations_per_epoch=3, probes="none")
    marks = part_ends(PER_EPOCH, 3)
    first, second = trained(study)
    for record, part, updates in ((first, 1, marks[0]), (second, 2, PER_EPOCH + marks[1])):
        budget = {"epochs": None, "updates": updates}
        *_, shorter = trained(small_study(stages=in_batch_mode(**budget), probes="none"))
        assert record.probes[f"within_{part}_updates"] == shorter.updates == updates
        assert record.probes[f"within_{part}_val_loss"] == pytest.approx(shorter.val_loss, rel=1e-6)
        assert record.probes[f"within_{part}_val_accuracy"] == pytest.approx(shorter.val_accuracy)
    assert [first.probes.get(f"within_{part}_updates") for part in (1, 2, 3)] == [*marks[:-1], None]


@pytest.mark.keras
@pytest.mark.usefixtures("small_net")
def test_measuring_within_epochs_leaves_training_and_its_clock_as_they_are(monkeypatch: pytest.MonkeyPatch):
    plain = trained(small_study(stages=in_batch_mode()))
    real, measure, ahead = time.perf_counter, Validator.measure, [0.0]

    def slowly(self: Validator, trial: Trial, *, choosing: bool) -> tuple[Figures, dict[str, float]]:
        ahead[0] += 1e6
        return measure(self, trial, choosing=choosing)

    monkeypatch.setattr(time, "perf_counter", lambda: real() + ahead[0])
    monkeypatch.setattr(Validator, "measure", slowly)
    told: list[BatchProgress] = []
    study = small_study(stages=in_batch_mode(), validations_per_epoch=4)
    measured = list(Trainer(study, tiny_data()).run(Trial(SIZE, 1), on_batch=told.append))
    for one, other in zip(plain, measured, strict=True):
        assert (one.val_loss, one.val_accuracy) == (other.val_loss, other.val_accuracy)
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-6)
        assert one.train_accuracy == pytest.approx(other.train_accuracy)
        for name, value in one.probes.items():
            assert name == "probe_seconds" or other.probes[name] == pytest.approx(value, rel=1e-6), name
    assert ahead[0] >= 8e6  # three times within each epoch, and at its end
    for epoch in (1, 2):
        seconds = [progress.seconds for progress in told if progress.epoch == epoch]
        assert seconds[0] > 0
        assert seconds == sorted(seconds)
        assert seconds[-1] < 1e6
