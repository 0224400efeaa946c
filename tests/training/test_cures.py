"""What can be tried against the gap from the study file: each does what it says."""

from __future__ import annotations

import numpy as np
import pytest
from backbones import SmallNet, small_study

from batchscope.records import EpochRecord, Trial
from batchscope.training.recalibration import averages_kept, batchnorm_layers, population_moments, use_moments
from batchscope.training.streams import Purpose, generator
from batchscope.training.trial import Trainer
from tiny import stage, tiny_data

pytestmark = [pytest.mark.keras, pytest.mark.usefixtures("small_net")]


def trained(
    batch_size: int = 8, last_batch: str = "drop", **keys: object
) -> tuple[Trainer, list[np.ndarray], list[EpochRecord]]:
    """A trainer, the weights a trial started from, and its records."""
    raw = stage("one", "head", epochs=1, batchnorm="batch", **keys)
    if "updates" in keys:
        del raw["epochs"]
    study = small_study(stages=[raw], batch_sizes=[batch_size], last_batch=last_batch, probes="none")
    trainer = Trainer(study, tiny_data())
    start = [np.array(value) for value in trainer._initial_weights(1)]
    return trainer, start, list(trainer.run(Trial(batch_size, 1)))


def images_in_order(trainer: Trainer, count: int) -> tuple[np.ndarray, np.ndarray]:
    rows = trainer._data.split.training
    order = generator(Purpose.ORDER, trainer._study.seed, 1, 1).permutation(len(rows))
    return trainer._examples.feed.batch(rows[order[:count]], None)


def test_ghost_batches_normalise_by_their_parts_and_update_once_a_batch():
    trainer, start, (record,) = trained(batch_size=16, ghost_batch=4, optimizer="sgd")
    assert (record.updates, record.examples) == (2, 32)
    # By hand: features of each part of 4 under its own statistics, gradient of the mean loss of 16.
    backbone = SmallNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    for variable, value in zip(backbone.variables, start[:-2], strict=True):
        variable.assign(value)
    kernel, bias = start[-2].astype(np.float64), start[-1].astype(np.float64)
    images, labels = images_in_order(trainer, 32)
    for update in range(2):
        gradient = np.zeros_like(kernel)
        slope = np.zeros_like(bias)
        for part in range(4):
            at = slice(16 * update + 4 * part, 16 * update + 4 * part + 4)
            features = backbone(images[at], training=True).numpy().mean((1, 2)).astype(np.float64)
            error = 1 / (1 + np.exp(-(features @ kernel + bias))) - labels[at]
            gradient += features.T @ error / 16
            slope += error.sum(axis=0) / 16
        kernel -= 1e-3 * gradient
        bias -= 1e-3 * slope
    np.testing.assert_allclose(trainer.network.head.kernel.numpy(), kernel, atol=2e-6)
    np.testing.assert_allclose(trainer.network.head.bias.numpy(), bias, atol=2e-6)
    moved = [layer.moving_mean.numpy() for layer in batchnorm_layers(trainer.network.backbone)]
    expected = [layer.moving_mean.numpy() for layer in batchnorm_layers(backbone)]
    for value, wanted in zip(moved, expected, strict=True):
        np.testing.assert_allclose(value, wanted, atol=1e-4)


def test_another_momentum_moves_the_averages_at_its_own_pace():
    trainer, start, _ = trained(batch_size=44, last_batch="keep", batchnorm_momentum=0.5)
    images, _ = images_in_order(trainer, 44)
    backbone = trainer.network.backbone
    raw, first = backbone.get_layer("first")(images).numpy(), backbone.get_layer("first_bn")
    before = {variable.path: value for variable, value in zip(backbone.variables, start[:-2], strict=True)}
    for average, own in (
        (first.moving_mean, raw.mean((0, 1, 2))),
        (first.moving_variance, raw.var((0, 1, 2))),
    ):
        np.testing.assert_allclose(average.numpy(), 0.5 * before[average.path] + 0.5 * own, atol=1e-5)


def test_a_momentum_holds_for_its_stage_only():
    stages = [
        stage("one", "head", epochs=1, batchnorm="batch", batchnorm_momentum=0.5),
        stage("two", "head", epochs=1, batchnorm="batch"),
    ]
    trainer = Trainer(small_study(stages=stages, batch_sizes=[22], probe_images=22), tiny_data())
    records = list(trainer.run(Trial(22, 1)))
    weights = [record.probes["probe_batchnorm_stale_weight"] for record in records]
    assert weights == pytest.approx([0.5**2, 0.5**2 * 0.9**2])
    assert {layer.momentum for layer in batchnorm_layers(trainer.network.backbone)} == {0.9}


def test_recalibrated_evaluation_uses_population_statistics_and_keeps_the_averages():
    trainer, _, (moving,) = trained()
    cured, _, (recalibrated,) = trained(evaluation="recalibrated")
    assert recalibrated.train_loss == moving.train_loss
    assert recalibrated.val_loss != pytest.approx(moving.val_loss, abs=1e-3)
    network, data = cured.network, cured._data
    rows = data.split.validation[: len(data.split.validation) // 8 * 8]
    images, labels = cured._examples.feed.batch(rows, None)
    clean, _ = cured._examples.feed.batch(data.split.training[cured._examples.probed], None)
    with averages_kept(network.backbone):
        use_moments(network.backbone, population_moments(network.backbone, clean))
        features = network.backbone(images, training=False).numpy().mean((1, 2))
    odds = features @ network.head.kernel.numpy() + network.head.bias.numpy()
    loss = np.mean(np.log1p(np.exp(np.where(labels > 0.5, -odds, odds))))
    assert recalibrated.val_loss == pytest.approx(loss, abs=1e-5)
    for layer, other in zip(
        batchnorm_layers(network.backbone), batchnorm_layers(trainer.network.backbone), strict=True
    ):
        np.testing.assert_array_equal(layer.moving_mean.numpy(), other.moving_mean.numpy())


def test_a_budget_in_updates_is_the_same_at_every_batch_size():
    stages = [stage("one", "head", epochs=1) | {"updates": 7}]
    del stages[0]["epochs"]
    study = small_study(stages=stages, batch_sizes=[8, 22], probe_images=8)
    trainer = Trainer(study, tiny_data())
    small, large = (list(trainer.run(Trial(size, 1))) for size in (8, 22))
    assert [record.updates for record in small] == [6, 7]
    assert [record.examples for record in small] == [44, 52]
    assert [record.updates for record in large] == [2, 4, 6, 7]
    assert [bool(record.probes) for record in large] == [False, False, False, True]
