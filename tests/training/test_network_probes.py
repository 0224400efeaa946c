"""Probes of whole networks: with and without BatchNorm and dropout, many classes, grey and tables."""

from __future__ import annotations

from dataclasses import asdict

import keras
import numpy as np
import pandas as pd
import pytest
from own_models import noisy, normed, own_study

from batchscope.analysis.decomposition import decompose, without_batchnorm
from batchscope.analysis.panel import Panel, build_panel
from batchscope.data import TrainingData
from batchscope.history import check_history
from batchscope.records import EpochRecord, Trial
from batchscope.training.trial import Trainer
from tiny import stage, tiny_data, tiny_table

pytestmark = pytest.mark.keras
SIZE, PROBED = 8, 24
VIEWS = {"rotation": 20, "zoom": [0.7, 1.3]}


def trained(
    name: str, data: TrainingData, build: object = None, **keys: object
) -> tuple[Trainer, EpochRecord, keras.Model | None]:
    """A trainer, its last record, and plain Keras' model with the same weights, but dropout set to 0."""
    stages = [stage("one", "all", epochs=2, optimizer="sgd", **keys) | {"learning_rate": 0.05}]
    trainer = Trainer(own_study(name, stages, probes="every", probe_images=PROBED), data)
    *_, last = trainer.run(Trial(SIZE, 1))
    if build is None:
        return trainer, last, None
    model = build(trainer._examples.feed.shape, len(data.classes))  # type: ignore[operator]
    network = trainer.network
    for layer in model.layers:
        if hasattr(layer, "rate"):
            layer.rate = 0.0
        if not layer.weights:
            continue
        same = network.head if layer.name == "out" else network.backbone.get_layer(layer.name)
        for variable, own in zip(layer.weights, same.weights, strict=True):
            variable.assign(own)
    return trainer, last, model


def measured(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Accuracy and cross-entropy."""
    told = labels[:, 0].astype(int)
    right = probabilities.argmax(axis=1) == told
    return float(right.mean()), float(-np.log(probabilities[np.arange(len(told)), told]).mean())


def assert_probe(record: EpochRecord, name: str, expected: tuple[float, float]) -> None:
    found = [record.probes[f"probe_{name}_{metric}"] for metric in ("accuracy", "loss")]
    assert found == pytest.approx(expected, abs=1e-5), name


@pytest.mark.parametrize(
    ("network", "build", "data"),
    [
        pytest.param("own_models:noisy", noisy, tiny_data(3, (12, 14), 1), id="grey images, dropout"),
        pytest.param("own_models:normed", normed, tiny_table(4), id="a table"),
    ],
)
def test_probes_are_those_of_plain_keras_by_the_batch_and_by_one_huge_batch(
    network: str, build: object, data: TrainingData
):
    trainer, last, model = trained(network, data, build)
    assert model is not None
    examples, feed = trainer._examples, trainer._examples.feed
    inputs, labels = feed.batch(examples.training[examples.probed], None)
    validation, val_labels = feed.batch(examples.validation, None)
    assert_probe(last, "train_moving", measured(model(inputs, training=False).numpy(), labels))
    keep = model.get_weights()
    parts = [model(inputs[at : at + SIZE], training=True).numpy() for at in range(0, PROBED, SIZE)]
    model.set_weights(keep)
    # By the batch, as in training, but nothing drops.
    assert_probe(last, "train_clean", measured(np.concatenate(parts), labels))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0  # the averages become those of the one batch
    model(inputs, training=True)
    assert_probe(last, "train_recalibrated", measured(model(inputs, training=False).numpy(), labels))
    assert_probe(last, "val_recalibrated", measured(model(validation, training=False).numpy(), val_labels))
    losses = [last.probes[f"probe_train_{name}_loss"] for name in ("moving", "clean", "recalibrated")]
    assert np.diff(sorted(losses)).min() > 1e-4  # each is another measurement
    lags = [name for name in last.probes if name.startswith("probe_batchnorm_lag/")]
    assert len(lags) == sum("bn" in layer.name for layer in model.layers)


def panel_of(record: EpochRecord) -> Panel:
    figures = asdict(record)
    row = figures.pop("probes") | figures | {"batch_size": SIZE, "replicate": 1}
    return build_panel(check_history(pd.DataFrame([row])))


@pytest.mark.parametrize(
    ("network", "data", "augmentation"),
    [
        pytest.param("cnn", tiny_data(3, 12, 1), VIEWS, id="cnn"),
        pytest.param("mlp", tiny_table(3), None, id="mlp"),
        pytest.param("own_models:sigmoid", tiny_data(2), None, id="neither dropout nor BatchNorm"),
    ],
)
def test_without_batchnorm_its_term_is_zero_and_dropout_is_averagings(
    network: str, data: TrainingData, augmentation: dict[str, object] | None
):
    keys = {} if augmentation is None else {"augmentation": augmentation}
    _, last, _ = trained(network, data, **keys)
    probes = last.probes
    assert not [name for name in probes if "batchnorm" in name]
    assert probes["probe_train_moving_loss"] == probes["probe_train_clean_loss"]
    assert probes["probe_train_moving_loss"] == probes["probe_train_recalibrated_loss"]
    assert probes["probe_val_recalibrated_loss"] == pytest.approx(last.val_loss, abs=1e-6)
    views = abs(probes["probe_train_augmented_loss"] - probes["probe_train_clean_loss"])
    assert views > 1e-3 if augmentation else views == 0
    panel = panel_of(last)
    [row] = decompose(panel, 0.95).rows
    assert without_batchnorm(panel)
    assert row.batchnorm.mean == pytest.approx(0, abs=1e-6)
    terms = row.averaging.mean + row.augmentation.mean + row.batchnorm.mean + row.generalization.mean
    assert terms == pytest.approx(last.train_accuracy - last.val_accuracy, abs=1e-9)


def test_probing_a_network_changes_no_figure_of_its_training():
    network, data = "own_models:noisy", tiny_data(3)
    probed = Trainer(own_study(network, probes="every", probe_images=PROBED), data).run(Trial(SIZE, 1))
    plain = Trainer(own_study(network), data).run(Trial(SIZE, 1))
    for one, other in zip(probed, plain, strict=True):
        assert (one.train_loss, one.val_loss) == (other.train_loss, other.val_loss)


def test_validation_by_recalibrated_statistics_is_that_of_the_probe():
    data = tiny_data(3, (12, 14), 1)
    trainer, last, _ = trained("own_models:noisy", data, evaluation="recalibrated")
    assert last.val_loss == pytest.approx(last.probes["probe_val_recalibrated_loss"], abs=1e-6)
    [program] = trainer._programs.values()
    moving = program.evaluator.by_averages(trainer._examples.clean(data.split.validation))
    assert abs(last.val_loss - moving.loss) > 1e-3
