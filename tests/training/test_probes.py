"""Probes: what they measure, that they leave no trace, and planted faults that they find."""

from __future__ import annotations

from dataclasses import asdict, replace

import keras
import numpy as np
import pandas as pd
import pytest
from backbones import SMALL_TAIL, small_study
from sklearn.model_selection import train_test_split

from batchscope.analysis.batchnorm_mode import in_inference_mode
from batchscope.analysis.panel import build_panel
from batchscope.data import Split, TrainingData
from batchscope.history import check_history
from batchscope.records import EpochRecord, Trial
from batchscope.spec import ModelSpec, Stage
from batchscope.training.cut import WHOLE
from batchscope.training.inputs import Feed, make_feed
from batchscope.training.network import Network
from batchscope.training.probes import ProbePlan, probe_rows, run_probes
from batchscope.training.recalibration import batchnorm_layers, population_moments, use_moments
from batchscope.training.sources import ImageSource
from batchscope.training.stage_program import StageProgram, compile_stage, values
from batchscope.training.trial import Trainer
from tiny import TRAINING, stage, tiny_data

pytestmark = [pytest.mark.keras, pytest.mark.usefixtures("small_net")]
SIZE, ROWS, VALIDATION = 32, 48, 30
SUBSET = np.arange(ROWS)[::-1][:32]


def network(*, batchnorm: bool = True, dropout: bool = False) -> Network:
    """Small, but with what matters: a convolution, perhaps BatchNorm and dropout, a head."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(8, 5, strides=4, name="conv")(inputs)
    if batchnorm:
        x = keras.layers.BatchNormalization(name="norm", momentum=0.9)(x)
    if dropout:
        x = keras.layers.Dropout(0.3, seed=1)(x)
    backbone = keras.Model(inputs, keras.layers.ReLU()(x), name="small")
    head = keras.layers.Dense(1, activation="sigmoid")
    head.build((None, 8))
    return Network(backbone, head, pooled=True, outputs=1, momenta={"norm": 0.9} if batchnorm else {})


@pytest.fixture(scope="module")
def feed() -> Feed:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, ROWS + VALIDATION)
    base = rng.integers(0, 100, (ROWS + VALIDATION, SIZE, SIZE, 3))
    images = (base + 60 * labels[:, None, None, None]).astype(np.uint8)
    split = Split(training=np.arange(ROWS), validation=np.arange(ROWS, ROWS + VALIDATION))
    spec = ModelSpec(weights="none", image_size=SIZE, input_scaling="symmetric")
    return make_feed(spec, TrainingData(images, labels, split, ("0", "1")))


def program(net: Network, batchnorm: str) -> StageProgram:
    made = Stage.model_validate(stage("one", "all", epochs=1, batchnorm=batchnorm))
    return compile_stage(made, 1, net, WHOLE)


def plan(feed: Feed, views: np.ndarray | None = None, rows: int = ROWS) -> ProbePlan:
    training = np.arange(rows)
    clean = ImageSource(feed, training)
    return ProbePlan(
        clean=clean,
        augmented=None if views is None else ImageSource(feed, training, views),
        positions=training,
        validation=ImageSource(feed, np.arange(ROWS, ROWS + VALIDATION)),
        validated=VALIDATION,
        batch_size=16,
        images=clean,
        stale_weight=0.5,
    )


def unrecalibrated(feed: Feed, views: np.ndarray | None = None) -> ProbePlan:
    """As a stage in inference mode is probed."""
    return replace(plan(feed, views), images=None)


def calibrated(
    feed: Feed, batchnorm: str = "batch", *, dropout: bool = False
) -> tuple[Network, StageProgram]:
    """A network that has learnt a little, with averages as they should be."""
    net = network(dropout=dropout)
    made = program(net, batchnorm)
    source, rng = ImageSource(feed, np.arange(ROWS)), np.random.default_rng(3)
    for _ in range(12):
        made.loop.train(source, rng.permutation(ROWS), 16)
    use_moments(net.backbone, population_moments(net.backbone, feed.batch(np.arange(ROWS), None)[0]))
    return net, made


def test_averages_set_wrong_by_hand_show_in_the_batchnorm_term_and_nowhere_else(feed: Feed):
    net, made = calibrated(feed)
    asked = plan(feed)
    right = run_probes(made.evaluator, net.backbone, asked)
    right_validation = made.evaluator.by_averages(asked.validation)
    norm = net.backbone.get_layer("norm")
    norm.moving_mean.assign(norm.moving_mean + 3.0)
    wrong = run_probes(made.evaluator, net.backbone, asked)
    wrong_validation = made.evaluator.by_averages(asked.validation)

    assert right_validation.accuracy - wrong_validation.accuracy > 0.2  # the fault does harm
    for metric in ("accuracy", "loss"):
        for name in ("train_augmented", "train_clean", "train_recalibrated", "val_recalibrated"):
            assert wrong[f"probe_{name}_{metric}"] == pytest.approx(right[f"probe_{name}_{metric}"], abs=1e-6)
        assert right["probe_val_recalibrated_accuracy"] == pytest.approx(right_validation.accuracy, abs=1e-6)
    assert right["probe_batchnorm_lag_max"] == pytest.approx(0, abs=1e-5)
    deviation = np.sqrt(np.asarray(norm.moving_variance.numpy()) + norm.epsilon)
    assert wrong["probe_batchnorm_lag/norm"] == pytest.approx(np.mean(3.0 / deviation), rel=1e-4)
    assert wrong["probe_train_moving_accuracy"] < right["probe_train_moving_accuracy"] - 0.2


def test_training_statistics_are_those_of_each_batch(feed: Feed):
    net, made = calibrated(feed)
    norm = net.backbone.get_layer("norm")
    measured = run_probes(made.evaluator, net.backbone, plan(feed))
    images, labels = feed.batch(np.arange(ROWS), None)
    right = 0
    for start in range(0, ROWS, 16):
        raw = net.backbone.get_layer("conv")(images[start : start + 16]).numpy()
        normal = (raw - raw.mean((0, 1, 2))) / np.sqrt(raw.var((0, 1, 2)) + norm.epsilon)
        pooled = np.maximum(normal * norm.gamma.numpy() + norm.beta.numpy(), 0).mean((1, 2))
        predicted = pooled @ net.head.kernel.numpy() + net.head.bias.numpy() > 0
        right += int((predicted == (labels[start : start + 16] > 0.5)).sum())
    assert measured["probe_train_clean_accuracy"] == pytest.approx(right / ROWS, abs=1e-6)


@pytest.mark.parametrize("dropout", [False, True])
def test_probes_leave_no_trace(feed: Feed, dropout: bool):
    net, made = calibrated(feed, dropout=dropout)
    variables = [*net.backbone.variables, *net.head.variables, *made.optimizer.variables]
    before = values(variables)
    views = np.tile(np.array([[1, 0, 3, 0, 1, 2, 0, 0]], np.float32), (ROWS, 1))
    run_probes(made.evaluator, net.backbone, plan(feed, views))
    for value, again in zip(before, values(variables), strict=True):
        np.testing.assert_array_equal(value, again)


def test_views_change_the_augmented_figures_only(feed: Feed):
    net, made = calibrated(feed)
    plain = run_probes(made.evaluator, net.backbone, plan(feed))
    assert plain["probe_train_augmented_loss"] == plain["probe_train_clean_loss"]
    far = np.tile(np.array([[0.1, 0, 3, 0, 0.1, 2, 0, 0]], np.float32), (ROWS, 1))
    shown = run_probes(made.evaluator, net.backbone, plan(feed, far))
    assert shown["probe_train_augmented_loss"] != pytest.approx(plain["probe_train_augmented_loss"], abs=1e-3)
    for name in ("train_clean", "train_recalibrated", "train_moving", "val_recalibrated"):
        assert shown[f"probe_{name}_loss"] == pytest.approx(plain[f"probe_{name}_loss"], abs=1e-6)


def test_in_inference_mode_training_uses_the_stored_averages(feed: Feed):
    net, made = calibrated(feed, "inference")
    norm = net.backbone.get_layer("norm")
    calibrated_loss = run_probes(made.evaluator, net.backbone, unrecalibrated(feed))["probe_train_clean_loss"]
    norm.moving_mean.assign(norm.moving_mean + 1.0)
    assert made.evaluator.own_mode is made.evaluator.stored
    measured = run_probes(made.evaluator, net.backbone, unrecalibrated(feed))
    images, labels = feed.batch(np.arange(ROWS), None)
    features = net.backbone(images, training=False).numpy().mean((1, 2))
    odds = features @ net.head.kernel.numpy() + net.head.bias.numpy()
    loss = np.mean(np.log1p(np.exp(np.where(labels > 0.5, -odds, odds))))
    assert abs(loss - calibrated_loss) > 0.01  # the fault does harm
    for name in ("train_augmented", "train_clean", "train_moving"):
        assert measured[f"probe_{name}_loss"] == pytest.approx(loss, abs=1e-5)
        assert measured[f"probe_{name}_accuracy"] == pytest.approx(np.mean((odds > 0) == (labels > 0.5)))


def test_in_inference_mode_no_statistics_are_recalibrated(feed: Feed):
    net, made = calibrated(feed, "inference")
    views = np.tile(np.array([[0.1, 0, 3, 0, 0.1, 2, 0, 0]], np.float32), (ROWS, 1))
    asked = replace(unrecalibrated(feed, views), clean=ImageSource(feed, SUBSET), positions=SUBSET)
    measured = run_probes(made.evaluator, net.backbone, asked)
    sources = ("train_moving", "train_clean", "train_augmented")
    wanted = {f"probe_{name}_{metric}" for name in sources for metric in ("accuracy", "loss")}
    assert set(measured) - {"probe_seconds"} == wanted | {"probe_batchnorm_stale_weight"}
    for metric in ("accuracy", "loss"):
        assert measured[f"probe_train_clean_{metric}"] == measured[f"probe_train_moving_{metric}"]
    shown, labels = feed.batch(SUBSET, views[SUBSET])
    predicted = net.head(net.backbone(shown, training=False).numpy().mean((1, 2))).numpy()
    loss = -np.mean(np.log(np.where(labels > 0.5, predicted, 1 - predicted)))
    assert measured["probe_train_augmented_loss"] == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("batchnorm", ["batch", "inference"])
def test_without_batchnorm_all_statistics_are_alike(feed: Feed, batchnorm: str):
    net = network(batchnorm=False)
    made = program(net, batchnorm)
    measured = run_probes(made.evaluator, net.backbone, plan(feed))
    validation = asdict(made.evaluator.by_averages(plan(feed).validation))
    for metric in ("accuracy", "loss"):
        clean = measured[f"probe_train_clean_{metric}"]
        assert measured[f"probe_train_recalibrated_{metric}"] == pytest.approx(clean, abs=1e-6)
        assert measured[f"probe_val_recalibrated_{metric}"] == pytest.approx(validation[metric], abs=1e-6)
    assert not [name for name in measured if "batchnorm" in name]


def test_a_last_short_batch_is_not_probed(feed: Feed):
    net, made = calibrated(feed)
    whole = run_probes(made.evaluator, net.backbone, plan(feed, rows=32))
    ragged = run_probes(made.evaluator, net.backbone, plan(feed, rows=33))
    assert ragged["probe_train_clean_loss"] == whole["probe_train_clean_loss"]


def test_the_subset_is_stratified_fixed_and_no_larger_than_there_are_images():
    labels = np.array([0] * 300 + [1] * 700)
    training = np.random.default_rng(0).permutation(1000)[:800]
    chosen = probe_rows(training, labels, 200, seed=1)
    np.testing.assert_array_equal(chosen, probe_rows(training, labels, 200, seed=1))
    assert len(set(chosen.tolist())) == 200
    share = labels[training].mean()
    assert labels[training[chosen]].mean() == pytest.approx(share, abs=0.005)
    assert sorted(probe_rows(training, labels, 5000, seed=1)) == list(range(800))


@pytest.mark.parametrize(
    ("counts", "count", "expected"),
    [
        ((300, 699, 1), 200, (60, 140, 0)),  # one image of a class
        ((20, 20, 20), 58, (19, 19, 20)),  # two images left for three classes
        ((20, 20, 20), 2, (0, 1, 1)),  # two images wanted of three classes
    ],
)
def test_where_no_split_has_each_class_on_both_sides_shares_are_kept_as_near_as_can_be(
    counts: tuple[int, ...], count: int, expected: tuple[int, ...]
):
    labels = np.repeat(np.arange(3), counts)
    training = np.random.default_rng(0).permutation(len(labels))
    with pytest.raises(ValueError, match="class"):
        train_test_split(training, train_size=count, stratify=labels[training])
    chosen = probe_rows(training, labels, count, seed=1)
    np.testing.assert_array_equal(chosen, probe_rows(training, labels, count, seed=1))
    assert len(set(chosen.tolist())) == count
    found = np.bincount(labels[training[chosen]], minlength=3)
    assert np.abs(found - np.array(counts) * count / len(labels)).max() < 1
    assert sorted(found) == sorted(expected)
    assert (np.diff(chosen) < 0).any() or count == 2


def test_the_subset_of_runs_that_go_on_is_the_one_they_began_with():
    labels = np.random.default_rng(3).integers(3, size=90)
    training = np.random.default_rng(4).permutation(90)[:70]
    before, _ = train_test_split(np.arange(70), train_size=67, random_state=5, stratify=labels[training])
    np.testing.assert_array_equal(probe_rows(training, labels, 67, seed=5), before)


@pytest.fixture(scope="module")
def probed(small_net: str) -> tuple[Trainer, list[EpochRecord]]:
    stages = [
        stage("head_stage", "head", epochs=2, batchnorm="batch"),
        stage("tail_stage", SMALL_TAIL, epochs=1, batchnorm="inference"),
    ]
    trainer = Trainer(small_study(stages=stages, probe_images=20), tiny_data())
    return trainer, list(trainer.run(Trial(batch_size=8, replicate=1)))


def test_the_last_epoch_of_each_stage_is_probed(probed: tuple[Trainer, list[EpochRecord]]):
    _, records = probed
    assert [bool(record.probes) for record in records] == [False, True, True]
    layers = len(batchnorm_layers(probed[0].network.backbone))
    assert len(records[1].probes) == 10 + 3 + layers + 1
    assert len(records[2].probes) == 6 + 1 + 1  # in inference mode: three measurements, weight, seconds


def test_the_stale_weight_counts_the_batches_that_moved_the_averages(
    probed: tuple[Trainer, list[EpochRecord]],
):
    _, records = probed
    batches = -(-TRAINING // 8)
    # The momentum is 0.9; the second stage moves no averages.
    assert records[1].probes["probe_batchnorm_stale_weight"] == pytest.approx(0.9 ** (2 * batches))
    assert records[2].probes["probe_batchnorm_stale_weight"] == pytest.approx(0.9 ** (2 * batches))


def modes(records: list[EpochRecord]) -> list[bool]:
    rows = []
    for record in records:
        figures = asdict(record)
        rows.append(figures.pop("probes") | figures | {"batch_size": 8, "replicate": 1})
    found: list[bool] = in_inference_mode(build_panel(check_history(pd.DataFrame(rows))))[0, 0].tolist()
    return found


def test_the_analysis_knows_the_mode_from_the_records(probed: tuple[Trainer, list[EpochRecord]]):
    assert modes(probed[1]) == [False, False, True]


def test_averages_that_stand_still_are_not_enough_for_inference_mode():
    stages = [
        stage("head_stage", "head", epochs=1, batchnorm="batch", batchnorm_momentum=1 - 1e-15),
        stage("tail_stage", SMALL_TAIL, epochs=1, batchnorm="inference", evaluation="recalibrated"),
    ]
    trainer = Trainer(small_study(stages=stages, probe_images=20), tiny_data())
    records = list(trainer.run(Trial(batch_size=8, replicate=1)))
    weights = [record.probes["probe_batchnorm_stale_weight"] for record in records]
    assert weights == pytest.approx([1.0, 1.0], abs=1e-12)
    assert modes(records) == [False, False]


def test_probing_changes_no_figure_of_training(probed: tuple[Trainer, list[EpochRecord]]):
    stages = [
        stage("head_stage", "head", epochs=2, batchnorm="batch"),
        stage("tail_stage", SMALL_TAIL, epochs=1, batchnorm="inference"),
    ]
    trainer = Trainer(small_study(stages=stages, probes="none"), tiny_data())
    records = list(trainer.run(Trial(batch_size=8, replicate=1)))
    assert all(record.probes == {} for record in records)
    expected = [replace(record, probes={}, seconds=0.0) for record in probed[1]]
    assert [replace(record, seconds=0.0) for record in records] == expected
