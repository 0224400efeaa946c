"""Trials: what they count and repeat, and resumed ones against those that ran through."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from backbones import SMALL_TAIL, small_study

from batchscope.errors import TrainingError
from batchscope.records import BatchProgress, EpochRecord, Trial
from batchscope.schedule import StageStart
from batchscope.spec import UntilCi
from batchscope.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from batchscope.training.trial import Trainer
from timeless import without_time
from tiny import TRAINING, stage, tiny_data

pytestmark = [pytest.mark.keras, pytest.mark.usefixtures("small_net")]
AUGMENTED = {"rotation": 15, "zoom": [0.9, 1.25], "horizontal_flip": True}


@pytest.fixture(scope="module")
def trainer(small_net: str) -> Trainer:
    stages = [
        stage("head_stage", "head", epochs=2, batchnorm="batch"),
        stage("tail_stage", SMALL_TAIL, epochs=2, batchnorm="batch", augmentation=AUGMENTED),
    ]
    return Trainer(small_study(stages=stages), tiny_data())


@pytest.fixture(scope="module")
def finished(trainer: Trainer) -> list[EpochRecord]:
    return list(trainer.run(Trial(batch_size=8, replicate=1)))


def test_counts_run_on_through_the_stages(finished: list[EpochRecord]):
    assert [record.epoch for record in finished] == [1, 2, 3, 4]
    assert [record.stage for record in finished] == ["head_stage"] * 2 + ["tail_stage"] * 2
    assert [record.updates for record in finished] == [
        6,
        12,
        18,
        24,
    ]  # 44 images: 5 whole batches and one of 4
    assert [record.examples for record in finished] == [44, 88, 132, 176]
    seconds = [record.seconds for record in finished]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0


def test_a_replicate_repeats_itself_and_differs_from_another(trainer: Trainer, finished: list[EpochRecord]):
    again = list(trainer.run(Trial(batch_size=8, replicate=1)))
    assert without_time(again) == without_time(finished)
    other = next(trainer.run(Trial(batch_size=8, replicate=2)))
    assert other.train_loss != finished[0].train_loss


def test_a_replicate_starts_from_the_same_weights_at_every_batch_size(trainer: Trainer):
    first = [np.array(value) for value in trainer._initial_weights(1)]
    for value, again in zip(first, trainer._initial_weights(1), strict=True):
        np.testing.assert_array_equal(value, again)
    assert not np.array_equal(first[-2], trainer._initial_weights(2)[-2])


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_trial_gives_the_figures_of_one_that_ran_through(
    trainer: Trainer, finished: list[EpochRecord], tmp_path: Path, stop: int
):
    path, trial = tmp_path / "c.npz", Trial(batch_size=8, replicate=1)
    run = trainer.run(trial, path)
    before = [next(run) for _ in range(stop)]
    list(trainer.run(Trial(batch_size=16, replicate=2)))  # leaves other weights and optimizer states behind
    after = list(trainer.run(trial, path, stored_epochs=stop))
    assert without_time([*before, *after]) == without_time(finished)


def test_a_trial_goes_on_where_its_study_was_given_more(
    trainer: Trainer, finished: list[EpochRecord], tmp_path: Path
):
    path, trial = tmp_path / "c.npz", Trial(batch_size=8, replicate=1)
    run = trainer.run(trial, path)
    before = [next(run) for _ in range(2)]
    more = {"replicates": 9, "until_ci": UntilCi(half_width=0.1), "targets": None}
    extended = Trainer(trainer._study.model_copy(update=more), tiny_data())
    after = list(extended.run(trial, path, stored_epochs=2))
    assert without_time([*before, *after]) == without_time(finished)


def test_a_record_lost_after_its_checkpoint_is_given_again(
    trainer: Trainer, finished: list[EpochRecord], tmp_path: Path
):
    path, trial = tmp_path / "c.npz", Trial(batch_size=8, replicate=1)
    run = trainer.run(trial, path)
    _, lost = next(run), next(run)
    after = list(trainer.run(trial, path, stored_epochs=1))
    assert after[0] == lost
    assert without_time(after) == without_time(finished[1:])


@pytest.mark.parametrize("state", ["gone", "older", "newer", "another study's"])
def test_a_trial_whose_checkpoint_does_not_follow_what_is_stored_starts_anew(
    trainer: Trainer, finished: list[EpochRecord], tmp_path: Path, state: str
):
    path, trial = tmp_path / "c.npz", Trial(batch_size=8, replicate=1)
    stored = {"gone": 3, "older": 3, "newer": 0, "another study's": 1}[state]
    run = trainer.run(trial, path)
    for _ in range(2 if state == "newer" else 1):
        next(run)
    if state == "gone":
        path.unlink()
    if state == "another study's":
        saved = load_checkpoint(path)
        assert saved is not None
        save_checkpoint(replace(saved, study="another"), path)
    assert without_time([next(trainer.run(trial, path, stored_epochs=stored))]) == without_time(finished[:1])


def test_a_finished_trial_gives_nothing_more(trainer: Trainer, tmp_path: Path):
    path, trial = tmp_path / "c.npz", Trial(batch_size=8, replicate=1)
    assert len(list(trainer.run(trial, path))) == 4
    assert list(trainer.run(trial, path, stored_epochs=4)) == []


def test_a_diverged_trial_ends_with_the_record_that_shows_it(tmp_path: Path):
    wild = stage("one", "head", epochs=8, optimizer="sgd") | {"learning_rate": 1e38}
    trainer = Trainer(small_study(stages=[wild]), tiny_data())
    path = tmp_path / "c.npz"
    records = list(trainer.run(Trial(batch_size=8, replicate=1), path))
    assert not math.isfinite(records[-1].train_loss + records[-1].val_loss)
    assert all(math.isfinite(record.train_loss + record.val_loss) for record in records[:-1])
    assert records[-1].epoch < 8
    assert list(trainer.run(Trial(batch_size=8, replicate=1), path, stored_epochs=len(records))) == []


def test_progress_tells_images_presented(trainer: Trainer):
    told: list[BatchProgress] = []
    next(trainer.run(Trial(batch_size=16, replicate=1), on_batch=told.append))
    assert [progress.examples for progress in told] == [16, 32, TRAINING]
    assert {(progress.stage, progress.epoch, progress.total) for progress in told} == {
        ("head_stage", 1, TRAINING)
    }
    assert all(0 <= progress.accuracy <= 1 for progress in told)


def test_three_classes_are_learnt_with_a_softmax():
    study = small_study(stages=[stage("one", "head", epochs=6, batchnorm="batch") | {"learning_rate": 0.05}])
    records = list(Trainer(study, tiny_data(classes=3)).run(Trial(batch_size=8, replicate=1)))
    assert records[-1].train_accuracy > 0.5 > 1 / 3
    assert records[-1].train_loss < records[0].train_loss


def test_checkpoints_are_whole_or_refused(tmp_path: Path):
    path = tmp_path / "c.npz"
    assert load_checkpoint(path) is None
    record = EpochRecord("one", 2, 4, 8, 1.5, 0.1, math.nan, 0.5, math.inf, 0.25, {"probe": 1.0})
    weights, optimizer = [np.arange(3.0)], [np.array(7), np.ones((2, 2), np.float32)]
    starts = (StageStart(0, 0, 0.0), StageStart(1, 2, math.pi))
    state = Checkpoint("f00d", "b8-r1", record, weights, optimizer, starts)
    save_checkpoint(state, path)
    loaded = load_checkpoint(path)
    assert loaded is not None
    assert (loaded.study, loaded.trial, loaded.starts) == ("f00d", "b8-r1", starts)
    assert math.isnan(loaded.record.train_loss)
    assert replace(loaded.record, train_loss=0.0) == replace(record, train_loss=0.0)
    for values, expected in ((loaded.weights, state.weights), (loaded.optimizer, state.optimizer)):
        for value, wanted in zip(values, expected, strict=True):
            np.testing.assert_array_equal(value, wanted)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(TrainingError, match="delete it to train this trial from its start"):
        load_checkpoint(path)


def test_a_pickle_is_not_a_checkpoint(tmp_path: Path):
    path = tmp_path / "c.npz"
    with path.open("wb") as file:
        np.savez(file, meta=np.array([{"a": 1}], dtype=object))
    with pytest.raises(TrainingError, match="must be a checkpoint"):
        load_checkpoint(path)


def test_memory_that_tensorflow_cannot_have_is_told_with_its_remedy(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
):
    def needs_128_tebibytes(*_: object) -> None:
        keras.ops.zeros((2**15, 2**15, 2**15))

    monkeypatch.setattr(trainer, "_train_epoch", needs_128_tebibytes)
    with pytest.raises(TrainingError, match=r"at batch size 16 needs more memory .*--workers 1") as caught:
        next(trainer.run(Trial(batch_size=16, replicate=1)))
    assert type(caught.value.__cause__).__name__ == "ResourceExhaustedError"
