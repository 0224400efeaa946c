"""The network: which layers are trained, in which BatchNorm mode, fed with what."""

from __future__ import annotations

import re
from inspect import isfunction

import keras
import numpy as np
import pytest

from batchscope.errors import TrainingError
from batchscope.model_spec import _USUAL_SIZES
from batchscope.spec import ModelSpec, Stage
from batchscope.studies import load_study
from batchscope.training.cut import find_cut
from batchscope.training.network import Network, build_network, first_trained_layer, set_trainable
from batchscope.training.prefix import Prefix
from batchscope.training.recalibration import population_moments, use_moments
from batchscope.training.scaling import make_scaling
from batchscope.training.sources import ReadySource
from batchscope.training.stage_program import assign, compile_stage, values
from tiny import stage, tiny_data

pytestmark = pytest.mark.keras


@pytest.fixture(scope="module")
def network() -> Network:
    keras.utils.set_random_seed(0)
    return build_network(ModelSpec(weights="none", image_size=32), (32, 32, 3), classes=2)


def made(trainable: object, batchnorm: str) -> Stage:
    return Stage.model_validate(stage("one", trainable, epochs=1, batchnorm=batchnorm))


def assembled(network: Network, stage: Stage) -> keras.Model:
    set_trainable(network, stage)
    return network.assemble(network.backbone, training=stage.batchnorm == "batch")


def trained_weights(network: Network, stage: Stage) -> int:
    return sum(int(np.prod(variable.shape)) for variable in assembled(network, stage).trainable_variables)


def test_the_2019_stages_train_as_many_weights_as_tensorflow_2_0_did(network: Network):
    # 1,863,873 is what TensorFlow 2.0 reported for this network tuned from layer 100 of its 155.
    head, tail = load_study("aerial-cactus-2019").stages
    assert trained_weights(network, head) == 1281
    assert trained_weights(network, tail) == 1_863_873
    assert trained_weights(network, head) == 1281  # whatever an earlier stage froze or freed
    assert trained_weights(network, tail) == 1_863_873


def test_the_corrected_stages_train_the_same_weights(network: Network):
    head, tail = load_study("aerial-cactus").stages
    assert trained_weights(network, head) == 1281
    assert trained_weights(network, tail) == 1_863_873


def test_all_layers_can_be_trained(network: Network):
    everything = made("all", "inference")
    assert first_trained_layer(everything, network.backbone) == 0
    assert trained_weights(network, everything) == 2_257_984 + 1281 - 34_112


@pytest.mark.parametrize(
    ("wanted", "index"), [(0, 0), (99, 99), ("block_11_expand_BN", 99), ("Conv1", 1), (153, 153)]
)
def test_a_layer_is_found_by_index_or_name(network: Network, wanted: int | str, index: int):
    assert first_trained_layer(made({"from_layer": wanted}, "inference"), network.backbone) == index


@pytest.mark.parametrize("wanted", [154, "block_99"])
def test_a_layer_that_is_not_there_is_refused(network: Network, wanted: int | str):
    with pytest.raises(TrainingError, match=r"stages\.one\.trainable\.from_layer .* below 154"):
        first_trained_layer(made({"from_layer": wanted}, "inference"), network.backbone)


def step(network: Network, trained: Stage) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """One update on noise: values before and after, by variable."""
    keras.utils.set_random_seed(1)
    model = assembled(network, trained)
    model.compile(optimizer=keras.optimizers.SGD(0.5), loss="binary_crossentropy", run_eagerly=True)
    variables = {variable.path: variable for variable in network.backbone.variables + network.head.variables}
    before = {path: np.array(variable) for path, variable in variables.items()}
    rng = np.random.default_rng(0)
    model.train_on_batch(rng.uniform(-1, 1, (8, 32, 32, 3)).astype(np.float32), rng.integers(0, 2, (8, 1)))
    return {path: (before[path], np.array(variable)) for path, variable in variables.items()}


def moved(values: dict[str, tuple[np.ndarray, np.ndarray]], *endings: str) -> dict[str, bool]:
    return {
        path: not np.array_equal(before, after)
        for path, (before, after) in values.items()
        if path.endswith(endings)
    }


AVERAGES = ("moving_mean", "moving_variance")


def test_batch_mode_moves_all_averages_while_frozen_gamma_and_beta_stay(network: Network):
    values = step(network, made({"from_layer": 99}, "batch"))
    assert all(moved(values, *AVERAGES).values())
    assert len(moved(values, *AVERAGES)) == 2 * 52
    scales = moved(values, "gamma", "beta")
    assert not any(changed for path, changed in scales.items() if "block_10" in path or "block_3" in path)
    assert all(changed for path, changed in scales.items() if "Conv_1_bn" in path or "block_16" in path)


@pytest.mark.parametrize("batchnorm", ["batch", "inference"])
@pytest.mark.parametrize("around", [True, False])
def test_a_mode_normalises_by_what_it_says_whatever_the_mode_around_it(
    network: Network, batchnorm: str, around: bool
):
    model = assembled(network, made({"from_layer": "Conv1"}, batchnorm))
    features = keras.Model(model.input, model.layers[-2].output)
    images = np.random.default_rng(0).uniform(-1, 1, (8, 32, 32, 3)).astype(np.float32)
    # Features depend on the other images of a batch if, and only if, the batch normalises itself.
    together, apart = features(images, training=around)[:4], features(images[:4], training=around)
    assert np.allclose(together, apart, rtol=1e-4, atol=1e-5) == (batchnorm == "inference")


def test_inference_mode_leaves_averages_alone_and_trains_gamma_and_beta_of_the_tail(network: Network):
    values = step(network, made({"from_layer": 99}, "inference"))
    assert not any(moved(values, *AVERAGES).values())
    scales = moved(values, "gamma", "beta")
    assert scales["Conv_1_bn/beta"]
    assert not any(changed for path, changed in scales.items() if "block_10" in path)


def test_frozen_weights_stay(network: Network):
    for mode in ("inference", "batch"):
        values = step(network, made("head", mode))
        assert not any(moved(values, "gamma", "beta").values())
        kernels = moved(values, "kernel")
        assert [path for path, changed in kernels.items() if changed] == ["head/kernel"]


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ("unit", [0, 128 / 255, 1]),
        ("symmetric", [-1, 128 / 127.5 - 1, 1]),
        ("backbone", [-1, 128 / 127.5 - 1, 1]),
    ],
)
def test_inputs_are_scaled_as_the_study_says(scaling: str, expected: list[float]):
    images = np.array([0, 128, 255], dtype=np.float32).reshape(1, 1, 1, 3)
    scaled = make_scaling(ModelSpec(input_scaling=scaling), tiny_data()).apply(images.copy())
    np.testing.assert_allclose(scaled.ravel(), expected, atol=1e-6)


def test_a_backbones_own_scaling_is_used():
    scaling = make_scaling(ModelSpec(backbone="ResNet50"), tiny_data())
    scaled = scaling.apply(np.zeros((1, 1, 1, 3), np.float32))
    np.testing.assert_allclose(scaled.ravel(), [-103.939, -116.779, -123.68], atol=1e-3)


BYTES = np.array([[0.0, 100.0, 255.0]], np.float32)
RANGES = {
    "bytes": BYTES,
    "from -1 to 1": BYTES / 127.5 - 1,
    "blue first, less mean": BYTES[:, ::-1] - [103.939, 116.779, 123.68],
    "less mean, by deviation": (BYTES / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
}
FED = {
    r"(ResNet\d+|VGG\d+)": "blue first, less mean",
    r"DenseNet\d+": "less mean, by deviation",
    r"(Inception.*|MobileNet|MobileNetV2|NASNet.*|ResNet\d+V2|Xception)": "from -1 to 1",
    # These scale inside.
    r"(EfficientNet.*|ConvNeXt.*|MobileNetV3.*)": "bytes",
}
"""As the documents of `keras.applications` have it, for each family."""


@pytest.mark.parametrize(
    "name", [name for name, value in vars(keras.applications).items() if isfunction(value)]
)
def test_every_backbone_is_fed_what_its_weights_were_trained_on(name: str):
    [kind] = [kind for family, kind in FED.items() if re.fullmatch(family, name)]
    found = make_scaling(ModelSpec(backbone=name), tiny_data()).apply(BYTES.reshape(1, 1, 1, 3).copy())
    np.testing.assert_allclose(found.reshape(1, 3), RANGES[kind], atol=1e-3)


@pytest.mark.parametrize("name", ["ConvNeXtTiny", "MobileNetV3Small", "VGG16"])
def test_an_update_behind_the_cut_moves_what_the_stage_trains_and_that_alone(name: str):
    """All backbones were tried so by scripts/backbones.py, at their default sizes."""
    keras.utils.set_random_seed(3)
    built = build_network(ModelSpec(backbone=name, weights="none", image_size=64), (64, 64, 3), 2)
    images = np.random.default_rng(4).uniform(0, 255, (4, 64, 64, 3)).astype(np.float32)
    # As after some training, so that no gradient is lost in rounding.
    use_moments(built.backbone, population_moments(built.backbone, images))
    for layer in built.backbone.layers:
        if type(layer).__name__ == "LayerScale":
            layer.gamma.assign(np.ones(layer.gamma.shape))
    first = 3 * len(built.backbone.layers) // 4
    trains = stage("tail", {"from_layer": first}, epochs=1, optimizer="sgd") | {"learning_rate": 0.01}
    tail = Stage.model_validate(trains)
    cut = find_cut([tail], 0, built.backbone)
    features = Prefix(built, cut)(images)
    before = values(built.variables)
    program = compile_stage(tail, 1, built, cut)
    assign(built.variables, before)  # to trace it trains on nothing
    program.loop.train(ReadySource(features, np.array([0, 1, 1, 0])), np.arange(4), 4)
    moved = {
        variable.path
        for variable, value in zip(built.variables, before, strict=True)
        if not np.array_equal(value, variable.numpy())
    }
    trained = [*built.backbone.layers[first:], built.head]
    assert moved == {variable.path for layer in trained for variable in layer.trainable_variables}


def test_an_unknown_backbone_names_the_known_ones():
    with pytest.raises(TrainingError, match=r"keras\.applications: .*MobileNetV2.* \(got MobileNetV9\)"):
        build_network(ModelSpec(backbone="MobileNetV9", weights="none"), (96, 96, 3), classes=2)


def test_a_size_that_a_backbone_cannot_take_is_refused():
    with pytest.raises(TrainingError, match=r"InceptionV3 cannot be built for \(32, 32, 3\) images"):
        build_network(
            ModelSpec(backbone="InceptionV3", weights="none", image_size=32), (32, 32, 3), classes=2
        )


def test_more_than_two_classes_get_a_softmax(network: Network):
    many = build_network(ModelSpec(weights="none", image_size=32), (32, 32, 3), classes=3)
    assert (many.outputs, many.head.units) == (3, 3)
    assert many.head.activation is keras.activations.softmax
    assert (network.outputs, network.head.units) == (1, 1)


def test_every_size_that_is_usual_is_of_a_backbone_that_there_is():
    assert [name for name in _USUAL_SIZES if not hasattr(keras.applications, name)] == []
