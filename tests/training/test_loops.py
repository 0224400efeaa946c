"""The compiled loop against Keras' own: figures, weights, optimizer states."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from batchscope.training import loops
from batchscope.training.loops import CompiledLoop, FitLoop, Loop, make_loop
from batchscope.training.sources import ReadySource

pytestmark = pytest.mark.keras
COUNT = 44


def source(classes: int = 2) -> ReadySource:
    rng = np.random.default_rng(1)
    labels = rng.integers(classes, size=COUNT)
    shift = labels[:, None, None, None] / classes
    return ReadySource((rng.normal(size=(COUNT, 6, 6, 3)) + shift).astype(np.float32), labels)


def model(classes: int = 2, optimizer: str = "rmsprop", parts: int = 1) -> keras.Model:
    """Small, with a frozen layer, always from the same weights."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((6, 6, 3))
    frozen = keras.layers.Conv2D(4, 3, activation="tanh", trainable=False)(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(5, 3, activation="tanh")(frozen))
    head = (
        keras.layers.Dense(1, activation="sigmoid")
        if classes == 2
        else keras.layers.Dense(classes, "softmax")
    )
    made = keras.Model(inputs, head(pooled))
    config = {"learning_rate": 0.01} | ({"gradient_accumulation_steps": parts} if parts > 1 else {})
    binary = classes == 2
    accuracy = keras.metrics.BinaryAccuracy if binary else keras.metrics.SparseCategoricalAccuracy
    made.compile(
        optimizer=keras.optimizers.get({"class_name": optimizer, "config": config}),
        loss="binary_crossentropy" if binary else "sparse_categorical_crossentropy",
        metrics=[accuracy(name="accuracy")],
    )
    made.optimizer.build(made.trainable_variables)
    return made


CASES = {
    "a divisor": {"batch_size": 11},
    "a short last batch": {"batch_size": 8, "optimizer": "sgd"},
    "more than there are": {"batch_size": 64, "optimizer": "adam"},
    "one by one, three classes": {"batch_size": 1, "classes": 3},
    "accumulated gradients": {"batch_size": 4, "parts": 3},
}


@pytest.mark.parametrize("case", CASES)
def test_a_compiled_epoch_is_one_of_fit(case: str, monkeypatch: pytest.MonkeyPatch):
    keys = dict(CASES[case])
    batch_size, classes = keys.pop("batch_size"), keys.get("classes", 2)
    monkeypatch.setattr(loops, "_BLOCK_BYTES", 3 * 8 * 6 * 6 * 3 * 4)  # so that an epoch takes several blocks
    models = [model(**keys), model(**keys)]
    compiled, plain = CompiledLoop(models[0]), FitLoop(models[1])
    examples = source(classes)
    for epoch in range(2):
        order = np.random.default_rng(epoch).permutation(COUNT)
        found = compiled.train(examples, order, batch_size)
        expected = plain.train(examples, order, batch_size)
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)
        assert found.accuracy == pytest.approx(expected.accuracy, abs=1e-6)
        part = order[:30]
        measured, wanted = (loop.evaluate(examples, part, batch_size) for loop in (compiled, plain))
        assert measured.loss == pytest.approx(wanted.loss, rel=1e-5)
        assert measured.accuracy == pytest.approx(wanted.accuracy, abs=1e-6)
    for one, other in zip(models[0].variables, models[1].variables, strict=True):
        if "metric" not in one.path and "accuracy" not in one.path:
            np.testing.assert_allclose(np.array(one), np.array(other), rtol=1e-4, atol=2e-6)
    states = [[np.array(each) for each in made.optimizer.variables] for made in models]
    for one, other in zip(*states, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)
    start = model(**keys).get_weights()
    assert not np.allclose(models[0].get_weights()[2], start[2], atol=1e-4)  # it has learnt
    np.testing.assert_array_equal(models[0].get_weights()[0], start[0])  # what is frozen stays


@pytest.mark.parametrize("kind", [CompiledLoop, FitLoop])
def test_figures_are_means_over_examples(kind: type[CompiledLoop] | type[FitLoop]):
    made, examples = model(), source()
    inputs, labels = examples.take(np.arange(20))
    predicted = made(inputs).numpy().astype(np.float64)
    found = kind(made).evaluate(examples, np.arange(20), 8)
    loss = -np.mean(np.log(np.where(labels > 0.5, predicted, 1 - predicted)))
    assert found.loss == pytest.approx(loss, rel=1e-5)
    assert found.accuracy == pytest.approx(np.mean((predicted > 0.5) == (labels > 0.5)), abs=1e-6)


@pytest.mark.parametrize("kind", [CompiledLoop, FitLoop])
def test_progress_goes_on_to_the_end(
    kind: type[CompiledLoop] | type[FitLoop], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loops, "_BLOCK_BYTES", 2 * 8 * 6 * 6 * 3 * 4)
    told: list[tuple[int, float]] = []
    order = np.arange(COUNT)
    figures = kind(model()).train(source(), order, 8, lambda *step: told.append(step))
    batches = [8, 24, 40, 44] if kind is CompiledLoop else [8, 16, 24, 32, 40, 44]
    assert [examples for examples, _ in told] == batches
    assert told[-1][1] == pytest.approx(figures.accuracy, abs=1e-6)


def test_a_loss_that_is_not_finite_is_told():
    made = model(optimizer="sgd")
    made.optimizer.learning_rate = 1e38
    loop: Loop = CompiledLoop(made)
    losses = [loop.train(source(), np.arange(COUNT), 8).loss for _ in range(4)]
    assert not np.isfinite(losses[-1])


def test_one_trace_serves_all_batch_sizes_and_short_last_batches():
    loop = make_loop(model())
    assert isinstance(loop, CompiledLoop)
    for batch_size in (8, 16, 11, 44, 1):
        loop.train(source(), np.arange(COUNT), batch_size)
        loop.evaluate(source(), np.arange(COUNT - 3), batch_size)
    traces = [each.experimental_get_tracing_count() for each in (loop._train, loop._evaluate)]
    assert traces == [1, 1]
