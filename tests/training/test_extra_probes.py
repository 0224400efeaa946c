"""Probes of gradients and curvature through Keras: against slow loops, formulas and plain differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np
import pytest
from backbones import SMALL_TAIL, small_study
from own_models import noisy, normed, own_study

from batchscope.data import Split, TrainingData
from batchscope.errors import TrainingError
from batchscope.records import EpochRecord, Trial
from batchscope.running.sizing import SizingOptions, at_batch_size, bound_of
from batchscope.training import extra_probes
from batchscope.training.derivatives import Derivatives
from batchscope.training.extra_probes import ExtraProbes
from batchscope.training.small_networks import cnn
from batchscope.training.sources import Source
from batchscope.training.stage_program import values
from batchscope.training.trial import Trainer
from tiny import TRAINING, stage, tiny_data, tiny_table

pytestmark = [pytest.mark.keras, pytest.mark.usefixtures("small_net")]
BOTH = ["gradient_noise", "sharpness"]
SIZE = 8
EXAMPLES, CLASSES = 2_400, 3


def gathered(records: list[EpochRecord]) -> list[EpochRecord]:
    return [replace(record, probes={}, seconds=0.0) for record in records]


def regression_data() -> TrainingData:
    """Three classes that overlap, so that gradients differ from example to example."""
    rng = np.random.default_rng(6)
    labels = rng.integers(CLASSES, size=EXAMPLES + 40)
    inputs = rng.normal(size=(len(labels), 4)) + np.eye(CLASSES, 4)[labels]
    split = Split(training=np.arange(EXAMPLES), validation=np.arange(EXAMPLES, len(labels)))
    return TrainingData(inputs.astype(np.float32), labels, split, ("a", "b", "c"))


@pytest.fixture(scope="module")
def regressed() -> tuple[Trainer, EpochRecord]:
    """Softmax regression, whose gradients and Hessian have formulas."""
    # So slow that the mean gradient is still far from 0.
    stages = [stage("one", "all", epochs=1, optimizer="sgd") | {"learning_rate": 0.002}]
    keys = {"probes": "every", "probe_images": EXAMPLES, "extra_probes": BOTH}
    study = own_study("own_models:regression", stages, **keys)
    trainer = Trainer(study, regression_data())
    *_, last = trainer.run(Trial(16, 1))
    return trainer, last


def examples_of(trainer: Trainer) -> tuple[np.ndarray, np.ndarray]:
    """Probed inputs with a 1 behind them, for the bias, and labels one-hot."""
    inputs, labels = trainer._examples.clean(trainer._examples.training[trainer._examples.probed]).take(
        np.arange(len(trainer._examples.probed))
    )
    return np.column_stack([inputs, np.ones(len(inputs))]), np.eye(CLASSES)[labels[:, 0].astype(int)]


def probabilities(trainer: Trainer, inputs: np.ndarray) -> np.ndarray:
    kernel, bias = values(trainer.network.backbone.weights or trainer.network.head.weights)
    scores = np.exp(inputs[:, :-1] @ kernel.astype(np.float64) + bias)
    return scores / scores.sum(axis=1, keepdims=True)


def test_the_noise_scale_of_softmax_regression_is_that_of_single_examples(
    regressed: tuple[Trainer, EpochRecord],
):
    trainer, last = regressed
    inputs, told = examples_of(trainer)
    wrong = probabilities(trainer, inputs) - told
    single = np.array([np.outer(x, error).ravel() for x, error in zip(inputs, wrong, strict=True)])
    trace = single.var(axis=0, ddof=1).sum()
    norm2 = (single.mean(axis=0) ** 2).sum() - trace / EXAMPLES
    found = last.probes
    assert found["probe_gradient_trace"] == pytest.approx(trace, rel=0.05)
    assert found["probe_gradient_norm2"] == pytest.approx(norm2, rel=0.05)
    batches = single.reshape(-1, 8, single.shape[1]).mean(axis=1)  # 8: nothing is normalised together
    small, large = (batches**2).sum(axis=1).mean(), (single.mean(axis=0) ** 2).sum()
    assert found["probe_gradient_batches"] == len(batches) == 300
    assert found["probe_gradient_trace"] == pytest.approx((small - large) / (1 / 8 - 1 / EXAMPLES), rel=1e-4)
    exact = (EXAMPLES * large - 8 * small) / (EXAMPLES - 8)
    assert found["probe_gradient_norm2"] == pytest.approx(exact, rel=1e-3)


def test_the_largest_eigenvalue_of_softmax_regression_is_that_of_its_formula(
    regressed: tuple[Trainer, EpochRecord],
):
    trainer, last = regressed
    inputs, _ = examples_of(trainer)
    inputs = inputs[: extra_probes.SHARPNESS_EXAMPLES]
    told = probabilities(trainer, inputs)
    hessian = np.zeros((inputs.shape[1] * CLASSES,) * 2)
    for x, p in zip(inputs, told, strict=True):
        hessian += np.kron(np.outer(x, x), np.diag(p) - np.outer(p, p)) / len(inputs)
    largest = np.linalg.eigvalsh(hessian)[-1]
    assert last.probes["probe_hessian_top"] == pytest.approx(largest, rel=1e-4)


def test_the_sharpness_of_softmax_regression_is_its_rise_at_the_boxs_highest_corner(
    regressed: tuple[Trainer, EpochRecord],
):
    trainer, last = regressed
    inputs, told = (part[: extra_probes.SHARPNESS_EXAMPLES] for part in examples_of(trainer))
    kernel, bias = values(trainer.network.backbone.weights or trainer.network.head.weights)
    weights = np.vstack([kernel, bias]).astype(np.float64)

    def loss(at: np.ndarray) -> float:
        scores = inputs @ at
        return float(np.mean(np.log(np.exp(scores).sum(axis=1)) - (scores * told).sum(axis=1)))

    corners = np.array(np.meshgrid(*[[-1, 1]] * weights.size)).reshape(weights.size, -1).T
    width = 1e-3 * (np.abs(weights) + 1)
    highest = max(loss(weights + width * corner.reshape(weights.shape)) for corner in corners[::4])
    expected = 100 * (highest - loss(weights)) / (1 + loss(weights))
    assert last.probes["probe_sharpness"] >= expected * 0.999
    assert last.probes["probe_sharpness"] == pytest.approx(expected, rel=0.05)


def test_where_batchnorm_normalises_by_the_batch_gradients_are_those_of_the_trials_batches():
    keys = {"probes": "every", "probe_images": 24, "extra_probes": BOTH, "batch_sizes": [SIZE]}
    trainer = Trainer(own_study("own_models:normed", **keys), tiny_table(4))
    *_, last = trainer.run(Trial(SIZE, 1))
    model = in_float64(normed, trainer, 4)
    inputs, labels = trainer._examples.feed.batch(trainer._examples.training[trainer._examples.probed], None)
    batches = [
        (inputs[at : at + SIZE].astype(np.float64), labels[at : at + SIZE]) for at in range(0, 24, SIZE)
    ]
    size = model.count_params() - 20  # but the averages
    gradients = [plain_gradient(model, [batch], np.zeros(size)) for batch in batches]
    mean = np.mean(gradients, axis=0)
    small, large = np.mean([each @ each for each in gradients]), mean @ mean
    assert last.probes["probe_gradient_batches"] == 3
    trace = (small - large) / (1 / SIZE - 1 / 24)
    assert last.probes["probe_gradient_trace"] == pytest.approx(trace, rel=1e-3)
    # Differences of first derivatives, for Keras' second ones of BatchNorm are wrong.
    steps = 1e-6 * np.eye(size)
    hessian = [
        (plain_gradient(model, batches, step) - plain_gradient(model, batches, -step)) / 2e-6
        for step in steps
    ]
    largest = np.linalg.eigvalsh((np.array(hessian) + np.transpose(hessian)) / 2)[-1]
    assert last.probes["probe_hessian_top"] == pytest.approx(largest, rel=1e-3)


def prepared(trainer: Trainer) -> tuple[Derivatives, Source]:
    """Of the study's one stage, and the 24 images that it is asked for."""
    [planned] = trainer._schedule(SIZE)
    program = trainer._program(planned)
    program.enter(trainer.network, planned, None)
    return ExtraProbes(trainer._study, trainer.network)._of(program), trainer._feeding_of(planned).probed(1)


@pytest.mark.parametrize("batchnorm", ["batch", "inference"])
def test_products_through_rewritten_layers_are_differences_of_gradients(batchnorm: str):
    stages = [stage("tail", SMALL_TAIL, epochs=1, batchnorm=batchnorm)]
    derivatives, source = prepared(Trainer(small_study(stages=stages, probe_images=24), tiny_data()))
    order, step = np.arange(24), 1e-5  # so short that no ReLU changes sides, as long as float32 allows
    along = derivatives.gradients(source, order, SIZE).gradient
    along /= np.linalg.norm(along)
    product, middle = derivatives.product(source, order, SIZE, along), derivatives.weights()
    ends = []
    for sign in (1, -1):
        derivatives.move_to(middle + sign * step * along)
        ends.append(derivatives.gradients(source, order, SIZE).gradient)
    difference = (ends[0] - ends[1]) / (2 * step)
    assert np.linalg.norm(product - difference) < 0.05 * np.linalg.norm(product)


@pytest.mark.parametrize(("network", "build"), [("cnn", cnn), ("own_models:noisy", noisy)])
def test_products_through_whole_networks_are_differences_in_twice_the_precision(
    network: str, build: Callable[[tuple[int, ...], int], keras.Model]
):
    trainer = Trainer(own_study(network, probe_images=24), tiny_data(3, 12, 1))
    derivatives, source = prepared(trainer)
    order = np.arange(24)
    along = derivatives.gradients(source, order, SIZE).gradient
    along /= np.linalg.norm(along)
    product = derivatives.product(source, order, SIZE, along)
    model = in_float64(build, trainer, 3)
    inputs, labels = source.take(order)
    plain = [(inputs[at : at + SIZE].astype(np.float64), labels[at : at + SIZE]) for at in range(0, 24, SIZE)]
    ends = [plain_gradient(model, plain, along * step) for step in (1e-8, -1e-8)]
    difference = (ends[0] - ends[1]) / 2e-8
    assert np.linalg.norm(product - difference) < 0.01 * np.linalg.norm(product)


def in_float64(
    build: Callable[[tuple[int, ...], int], keras.Model], trainer: Trainer, classes: int
) -> keras.Model:
    """Plain Keras' model with the same weights, whose dropout rests."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        model = build(trainer._examples.feed.shape, classes)
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(before)
    by_name = {layer.name: layer for layer in [*trainer.network.backbone.layers, trainer.network.head]}
    for layer in model.layers:
        if hasattr(layer, "rate"):
            layer.rate = 0.0
        if layer.weights:
            layer.set_weights(by_name[layer.name].get_weights())
    return model


def plain_gradient(
    model: keras.Model, batches: list[tuple[np.ndarray, np.ndarray]], moved: np.ndarray
) -> np.ndarray:
    """Mean over batches of the gradient in training mode, where the weights are moved by a little."""
    import tensorflow as tf

    variables, start = model.trainable_variables, 0
    before = values(variables)
    for variable in variables:
        size = int(np.prod(variable.shape))
        variable.assign(variable.numpy() + moved[start : start + size].reshape(variable.shape))
        start += size
    gradients = []
    for inputs, labels in batches:
        with tf.GradientTape() as tape:
            predicted = model(inputs, training=True)
            told = keras.losses.sparse_categorical_crossentropy(labels, predicted)
            loss = tf.reduce_mean(told)
        parts = tape.gradient(loss, [variable.value for variable in variables])
        gradients.append(np.concatenate([part.numpy().ravel() for part in parts]))
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    return np.mean(gradients, axis=0)


def test_training_is_the_same_with_and_without_and_weights_come_back_to_the_bit():
    stages = [
        stage("head_stage", "head", epochs=2, batchnorm="batch"),
        stage("tail_stage", SMALL_TAIL, epochs=2, batchnorm="inference"),
    ]
    keys = {"stages": stages, "probes": "every", "probe_images": 24, "batch_sizes": [SIZE]}
    with_extra = Trainer(small_study(extra_probes=BOTH, **keys), tiny_data())
    records = list(with_extra.run(Trial(SIZE, 1)))
    plain = list(Trainer(small_study(**keys), tiny_data()).run(Trial(SIZE, 1)))
    assert gathered(records) == gathered(plain)
    for one, other in zip(records, plain, strict=True):
        extra = {
            name for name in one.probes if name.startswith(("probe_gradient", "probe_hess", "probe_sharp"))
        }
        assert len(extra) == 8
        assert set(one.probes) - extra == set(other.probes)
        assert all(np.isfinite(one.probes[name]) for name in extra - {"probe_hessian_top"})


@pytest.mark.parametrize("network", [noisy.__name__])
def test_weights_averages_and_random_states_are_left_as_they_were(network: str):
    study = own_study(
        f"own_models:{network}", probes="every", probe_images=24, extra_probes=BOTH, batch_sizes=[8]
    )
    trainer = Trainer(study, tiny_data(3, 12, 1))
    [planned] = trainer._schedule(SIZE)
    program = trainer._program(planned)
    program.enter(trainer.network, planned, None)
    kept = [*trainer.network.variables, *program.optimizer.variables]
    before = values(kept)
    trainer._extra_probes.measure(program, trainer._feeding_of(planned).probed(1), SIZE)
    for one, other in zip(values(kept), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_too_few_images_for_the_batches_are_refused_before_any_trial():
    keys = {"probes": "last", "extra_probes": ["gradient_noise"], "batch_sizes": [8, 16], "probe_images": 40}
    with pytest.raises(TrainingError, match=r"48 images for stages\.one at the largest batch size"):
        Trainer(own_study("own_models:normed", **keys), tiny_table(4))
    # Without BatchNorm each example has a gradient of its own, whatever its batch.
    Trainer(own_study("own_models:sigmoid", **keys), tiny_data(2))


def test_another_backend_is_refused_before_any_trial(monkeypatch: pytest.MonkeyPatch):
    study = own_study("own_models:sigmoid", probes="last", extra_probes=["sharpness"])
    trainer = Trainer(study, tiny_data(2))
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(TrainingError, match="need Keras' TensorFlow backend, but this is jax"):
        extra_probes.check_extra_probes(study, trainer.network, 24)


def test_layers_whose_second_derivatives_are_wrong_are_refused():
    study = own_study("own_models:layered", probes="last", extra_probes=["sharpness"])
    with pytest.raises(TrainingError, match=r"which TensorFlow has wrong.*first layer_norm"):
        Trainer(study, tiny_table(4))
    keys = {"probes": "last", "extra_probes": ["gradient_noise"], "probe_images": 24}
    Trainer(own_study("own_models:layered", **keys), tiny_table(4))


@pytest.mark.parametrize(
    ("network", "first"), [("halved", "halved, a Halved"), ("penalised_norm", "norm, a")]
)
@pytest.mark.parametrize("probe", BOTH)
def test_batchnorm_that_is_not_kerass_own_is_refused_where_it_would_be_computed_anew(
    network: str, first: str, probe: str
):
    keys = {"probes": "last", "extra_probes": [probe], "probe_images": 44}
    with pytest.raises(TrainingError, match=f"has 1 that are not so, first {first}"):
        Trainer(own_study(f"own_models:{network}", **keys), tiny_table(4))


def test_beside_moving_averages_such_a_batchnorm_computes_by_itself():
    stages = [stage("one", "all", epochs=1, batchnorm="inference")]
    keys = {"probes": "last", "extra_probes": ["gradient_noise"], "probe_images": 44}
    trainer = Trainer(own_study("own_models:halved", stages, **keys), tiny_table(4))
    [record] = trainer.run(Trial(8, 1))
    assert record.probes["probe_gradient_trace"] > 0


def test_the_largest_size_that_is_tried_has_the_images_that_the_noise_needs():
    """A network with BatchNorm, whose batches are the trial's, at the bound of the search for sizes."""
    keys = {"probes": "last", "extra_probes": ["gradient_noise"], "probe_images": 24, "batch_sizes": [2]}
    study = own_study("own_models:normed", [stage("one", "all", epochs=1)], **keys)
    largest = bound_of(study, SizingOptions(2), TRAINING, validation=16).size
    trainer = Trainer(at_batch_size(study, largest), tiny_table(4))
    [record] = trainer.run(Trial(largest, 1))
    assert (largest, record.probes["probe_gradient_batches"]) == (14, 3)


def test_sharpness_of_too_many_weights_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(extra_probes, "MOST_WEIGHTS", 100)
    study = own_study("own_models:normed", probes="last", extra_probes=["sharpness"])
    with pytest.raises(TrainingError, match=r"at most 100 trained weights.*stages\.one trains 124"):
        Trainer(study, tiny_table(4))
