"""Trials of whole networks against plain Keras: the same model, compile, fit, validation_data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import pytest
from own_models import costly, noisy, normed, own_study, penalised, penalised_outputs
from sklearn.preprocessing import StandardScaler

from batchscope.data import TrainingData
from batchscope.records import Trial
from batchscope.spec import Study
from batchscope.training.small_networks import cnn, mlp
from batchscope.training.streams import Purpose, generator
from batchscope.training.trial import Trainer
from timeless import without_time
from tiny import stage, tiny_data, tiny_table

pytestmark = pytest.mark.keras
SIZE = 8


@dataclass(frozen=True)
class Case:
    """A study of a network, its data, and the same model and inputs by other means."""

    study: Study
    data: TrainingData
    model: keras.Model
    inputs: np.ndarray


def on_images(network: str, build: Callable[..., keras.Model], channels: int) -> Case:
    data = tiny_data(3, (12, 14), channels)
    inputs = data.inputs.astype(np.float32) / 255
    return Case(own_study(network), data, build(inputs.shape[1:], 3), inputs)


def on_tables(network: str, build: Callable[..., keras.Model], classes: int) -> Case:
    data = tiny_table(classes)
    scaler = StandardScaler().fit(data.inputs[data.split.training].astype(np.float64))
    inputs = scaler.transform(data.inputs.astype(np.float64)).astype(np.float32)
    return Case(own_study(network), data, build(inputs.shape[1:], classes), inputs)


def from_file(folder: Path) -> Case:
    keras.utils.set_random_seed(4)
    data = tiny_data(3, (12, 14), 1)
    saved = noisy(data.inputs.shape[1:], 3)
    saved.get_layer("conv_bn").moving_mean.assign(np.full(6, 0.2))
    saved.compile("adam", "sparse_categorical_crossentropy")  # which is left out
    path = folder / "saved.keras"
    saved.save(path)
    study = own_study(str(path), model={"weights": "file"})
    loaded = keras.models.load_model(path, compile=False)
    return Case(study, data, loaded, data.inputs.astype(np.float32) / 255)


def in_two_stages(network: str, build: Callable[..., keras.Model], **keys: object) -> Case:
    """First the head alone, then all."""
    stages = [
        stage(name, trainable, epochs=2, optimizer="sgd", **keys) | {"learning_rate": 0.05}
        for name, trainable in (("one", "head"), ("two", "all"))
    ]
    case = on_images(network, build, 3)
    return replace(case, study=own_study(network, stages))


CASES: dict[str, Callable[[Path], Case]] = {
    "cnn on grey images, three classes": lambda _: on_images("cnn", cnn, 1),
    "mlp on a table, two classes": lambda _: on_tables("mlp", mlp, 2),
    "BatchNorm on a table, three classes": lambda _: on_tables("own_models:normed", normed, 3),
    "BatchNorm and dropout on colour images": lambda _: on_images("own_models:noisy", noisy, 3),
    "a file with its weights": from_file,
    "penalties on weights": lambda _: in_two_stages("own_models:penalised", penalised),
    "penalties on weights, on ready features": lambda _: in_two_stages(
        "own_models:penalised", penalised, batchnorm="inference"
    ),
    "penalties on outputs": lambda _: in_two_stages("own_models:penalised_outputs", penalised_outputs),
    "penalties on outputs of frozen layers": lambda _: in_two_stages(
        "own_models:penalised_outputs", penalised_outputs, batchnorm="inference"
    ),
    "a layer that adds a loss": lambda _: in_two_stages("own_models:costly", costly, batchnorm="inference"),
}


def plain_keras(case: Case, trainer: Trainer) -> list[dict[str, float]]:
    """The same trial as a notebook's author writes it; start and order are the trial's."""
    start = trainer._initial_weights(1)
    values = {id(variable): value for variable, value in zip(trainer.network.variables, start, strict=True)}
    *ahead, last = [layer for layer in case.model.layers if layer.variables]
    pairs = [(layer, trainer.network.backbone.get_layer(layer.name)) for layer in ahead]
    for layer, same in (*pairs, (last, trainer.network.head)):
        for variable, other in zip(layer.variables, same.variables, strict=True):
            if case.study.model.weights == "file" and "seed" not in variable.path:
                np.testing.assert_array_equal(variable.numpy(), values[id(other)])  # as the file has them
            variable.assign(values[id(other)])
    training, validation = case.data.split.training, case.data.split.validation
    labels = case.data.labels.astype(np.float32)
    binary = case.model.output_shape[-1] == 1
    history: list[dict[str, float]] = []
    for epoch, planned in enumerate((each for each in case.study.stages for _ in range(each.epochs)), 1):
        if planned.name not in {each["stage"] for each in history}:
            for layer in ahead:
                layer.trainable = planned.trainable == "all"
            case.model.compile(
                keras.optimizers.SGD(planned.learning_rate),
                loss="binary_crossentropy" if binary else "sparse_categorical_crossentropy",
                metrics=["accuracy"],
            )
        order = training[generator(Purpose.ORDER, case.study.seed, 1, epoch).permutation(len(training))]
        fitted = case.model.fit(
            case.inputs[order],
            labels[order],
            batch_size=SIZE,
            shuffle=False,
            verbose=0,
            validation_data=(case.inputs[validation], labels[validation]),
        )
        history.append(
            {name: figures[0] for name, figures in fitted.history.items()} | {"stage": planned.name}
        )
    return history


@pytest.mark.parametrize("name", CASES)
def test_a_trial_of_a_network_gives_the_figures_of_plain_fit(name: str, tmp_path: Path):
    case = CASES[name](tmp_path)
    trainer = Trainer(case.study, case.data)
    expected = plain_keras(case, trainer)
    found = list(trainer.run(Trial(SIZE, 1)))
    for record, plain in zip(found, expected, strict=True):
        assert record.train_loss == pytest.approx(plain["loss"], abs=1e-5)
        assert record.train_accuracy == pytest.approx(plain["accuracy"], abs=1e-6)
        assert record.val_loss == pytest.approx(plain["val_loss"], abs=1e-5)
        assert record.val_accuracy == pytest.approx(plain["val_accuracy"], abs=1e-6)
    losses = [loss for record in found for loss in (record.train_loss, record.val_loss)]
    assert np.diff(sorted(losses)).min() > 1e-4  # each differs by far more from the next


def test_a_network_with_dropout_resumed_by_another_trainer_gives_the_same_figures(tmp_path: Path):
    views = stage("one", "all", epochs=3, augmentation={"rotation": 20, "horizontal_flip": True})
    study = own_study("own_models:noisy", [views], probes="every", probe_images=16)
    data, trial, path = tiny_data(3, (12, 14), 1), Trial(SIZE, 1), tmp_path / "c.npz"
    trainer = Trainer(study, data)
    through = list(trainer.run(trial))
    before = [next(trainer.run(trial, path))]
    resumed = Trainer(study, data)
    next(resumed.run(Trial(16, 2)))  # leaves other weights and states of random layers behind
    after = list(resumed.run(trial, path, stored_epochs=1))
    assert without_time([*before, *after]) == without_time(through)
    # Dropout is on, and other units drop in each epoch: the same weights would give other losses.
    assert len({record.train_loss for record in through}) == 3
