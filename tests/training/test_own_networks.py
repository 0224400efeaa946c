"""Networks that a study brings: what is built of them, and what is refused, each by its name."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from own_models import Growing, Kept, nested_flat, own_study

from batchscope.data import TrainingData
from batchscope.errors import TrainingError
from batchscope.records import Trial
from batchscope.spec import ModelSpec
from batchscope.training.initial import initial_values
from batchscope.training.network import Network, build_network
from batchscope.training.own_network import build_own_network, network_sha256
from batchscope.training.recalibration import batchnorm_layers
from batchscope.training.trial import Trainer
from tiny import stage, tiny_data, tiny_table

pytestmark = pytest.mark.keras
SHAPE = (9, 9, 3)


def built(network: str, classes: int = 3, shape: tuple[int, ...] = SHAPE) -> keras.Model:
    return build_own_network(ModelSpec(network=network), shape, classes)


def noise(count: int = 6, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(3).random((count, *shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("network", "classes", "told"),
    [
        ("own_models:logits", 3, 'its last layer, last, gives logits; give it activation="softmax"'),
        ("own_models:logits", 2, "must end in a softmax over 2 classes or one sigmoid unit, but its last"),
        ("own_models:one_softmax", 2, 'gives 1 whatever it is shown; give it activation="sigmoid"'),
        ("own_models:scores", 3, "for noise it gives values from .* that add up to"),
        ("own_models:hidden_logits", 3, "for noise it gives values from -"),
        ("own_models:too_many", 3, r"a softmax over 3 classes, but its output has shape \(None, 4\)"),
        ("own_models:sigmoid", 3, r"a softmax over 3 classes, but its output has shape \(None, 1\)"),
        ("own_models:two_outputs", 3, "must have one input and one output, but has 1 and 2"),
        (
            "own_models:for_other_inputs",
            3,
            r"takes examples of shape \(5, 5, 3\), but those of the study have \(9, 9, 3\); set model",
        ),
        ("own_models:untrainable", 3, "must have weights that can be trained, but has none"),
        ("own_models:twins", 3, '"twin" is used 2 times'),
        ("own_models:nothing", 3, "must return a keras.Model, but returned None"),
        (
            "own_models:without_arguments",
            3,
            r"failed when it was called with input_shape=\(9, 9, 3\) and classes=3; .*takes 0 positional",
        ),
        ("own_models:not_a_function", 3, "but not_a_function is not callable; its functions are: noisy, "),
        ("own_models:absent", 3, r"must name a function of .*own_models\.py, but absent is not there"),
        ("no_such_module:build", 3, "must lie in the working directory, .*, but there is no no_such_module"),
        ("own_models.inner:build", 3, r"or be installed, but there is no own_models\.inner"),
    ],
)
def test_what_is_no_network_for_these_classes_is_refused(network: str, classes: int, told: str):
    with pytest.raises(TrainingError, match=f"(?s)^model.network '{network}'.*{told}"):
        built(network, classes)


def test_a_function_that_raises_shows_its_own_traceback_and_no_other():
    with pytest.raises(TrainingError) as caught:
        built("own_models:raising")
    frames = re.findall(r'File ".*/(\w+\.py)", line \d+, in (\w+)', str(caught.value))
    assert frames == [("own_models.py", "raising"), ("own_models.py", "_deeper")]
    assert str(caught.value).endswith("LookupError: no network for 3 classes")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import not_installed_at_all", "No module named 'not_installed_at_all'"),
        ("1 / 0", r'broken_module\.py", line 1, in <module>.*ZeroDivisionError'),
        ("def f(:", "SyntaxError"),
    ],
)
def test_a_module_that_cannot_be_imported_shows_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
):
    (tmp_path / "broken_module.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TrainingError, match=f"(?s)importing the module failed; .*{told}"):
        built("broken_module:f")


def test_models_within_models_become_one_graph_with_the_same_figures():
    model, plain = built("own_models:nested"), nested_flat(SHAPE, 3)
    names = ["conv", "bn", "drop", "pool", "out"]
    assert [layer.name for layer in model.layers][1:] == names
    assert [layer.name for layer in batchnorm_layers(model)] == ["bn"]
    for name in names:
        found, wanted = model.get_layer(name).variables, plain.get_layer(name).variables
        for one, other in zip(found, wanted, strict=True):
            other.assign(one)
    for training in (False, True):  # with dropout and by the batch, although the graph says training=False
        found, wanted = (each(noise(), training=training).numpy() for each in (model, plain))
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    still, moved = (model(noise(), training=training).numpy() for training in (False, True))
    assert np.abs(still - moved).max() > 0.01


@pytest.mark.parametrize(
    ("network", "shape", "head"),
    [
        ("own_models:noisy", SHAPE, "out"),
        ("own_models:unbuilt", SHAPE, "head"),  # a dense layer and a softmax behind it
        ("own_models:nested", SHAPE, "out"),
        ("own_models:regression", (7,), None),
        ("own_models:hiding", SHAPE, None),
        ("cnn", SHAPE, "head"),
        ("mlp", (7,), "head"),
    ],
)
def test_a_network_is_split_ahead_of_its_last_dense_layer(
    network: str, shape: tuple[int, ...], head: str | None
):
    made = build_network(ModelSpec(network=network), shape, 3)
    assert (made.head.name if made.head.weights else None) == head
    assert (made.outputs, made.pooled) == (3, False)
    whole = made.assemble(made.backbone, training=False)
    assert [variable.path for variable in made.variables if "seed" not in variable.path] == [
        variable.path for variable in whole.variables if "seed" not in variable.path
    ]
    given = whole(noise(shape=shape)).numpy()
    np.testing.assert_allclose(given.sum(axis=1), 1, atol=1e-5)
    if head is not None:
        ahead = made.backbone(noise(shape=shape), training=False)
        np.testing.assert_allclose(made.head_alone()(ahead).numpy(), given, atol=1e-6)


def test_the_small_cnn_is_that_of_tensorflows_tutorial():
    model = built("cnn", classes=10, shape=(28, 28, 1))
    shapes = {
        f"{layer.name}/{variable.name}": tuple(variable.shape)
        for layer in model.layers
        for variable in layer.weights
    }
    assert shapes == {
        "conv_1/kernel": (5, 5, 1, 32),
        "conv_1/bias": (32,),
        "conv_2/kernel": (5, 5, 32, 64),
        "conv_2/bias": (64,),
        "dense_1/kernel": (7 * 7 * 64, 1024),
        "dense_1/bias": (1024,),
        "head/kernel": (1024, 10),
        "head/bias": (10,),
    }
    assert model.get_layer("dropout_1").rate == 0.4
    assert built("mlp", shape=(7,)).count_params() == 7 * 1024 + 2 * 1024**2 + 3 * 1024 + 1024 * 3 + 3


def test_two_classes_have_one_unit_or_two():
    assert [built(name, 2).output_shape for name in ("own_models:sigmoid", "own_models:noisy", "cnn")] == [
        (None, 1),
        (None, 2),
        (None, 1),
    ]
    study = own_study("own_models:noisy", [stage("one", "all", epochs=3) | {"learning_rate": 0.01}])
    first, *_, last = Trainer(study, tiny_data()).run(Trial(8, 1))
    assert last.train_loss < first.train_loss - 0.05


def weights_of(trainer: Trainer, replicate: int) -> dict[str, np.ndarray]:
    values = trainer._initial_weights(replicate)
    return {v.path: np.array(value) for v, value in zip(trainer.network.variables, values, strict=True)}


def test_each_replicate_draws_all_its_weights_from_its_own_seed():
    spec = ModelSpec(network="own_models:noisy")
    networks = [build_network(spec, SHAPE, 3) for _ in range(2)]

    def drawn(network: Network, seed: int) -> list[np.ndarray]:
        start = [np.zeros(variable.shape) for variable in network.variables]
        found = zip(network.variables, initial_values(spec, network, start, seed), strict=True)
        return [value for each, value in found if each.path.endswith(("kernel", "seed_generator_state"))]

    first, second = drawn(networks[0], 1), drawn(networks[0], 2)
    keras.utils.set_random_seed(99)  # whatever was drawn before, and in another process
    keras.random.normal((3,))
    for value, other in zip(first, drawn(networks[1], 1), strict=True):
        np.testing.assert_array_equal(value, other)
    assert len(first) == 5
    assert all(not np.array_equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("network", "told"),
    [
        ("own_models:kept", "must build a new network whenever it is called, but it gave layers of the one"),
        (
            "own_models:growing",
            "must give the same network whenever it is called, but its 4 variables",
        ),
    ],
)
def test_a_function_that_does_not_give_the_same_network_anew_is_refused(network: str, told: str):
    Kept.model, Growing.width = None, 3
    trainer = Trainer(own_study(network), tiny_data(3))
    with pytest.raises(TrainingError, match=told):
        next(trainer.run(Trial(8, 1)))


def test_a_subclass_trains_where_nothing_need_be_known_of_its_layers():
    trainer = Trainer(own_study("own_models:hiding"), tiny_data(3))
    first, last = trainer.run(Trial(8, 1))
    assert last.train_loss < first.train_loss
    with pytest.raises(TrainingError, match=r"1 BatchNorm layers of hiding lie inside .* set probes"):
        Trainer(own_study("own_models:hiding", probes="last"), tiny_data(3))


MOMENTUM = stage("one", "all", epochs=1, batchnorm_momentum=0.5)
VIEWS = stage("one", "all", epochs=1, augmentation={"rotation": 5})


@pytest.mark.parametrize(
    ("network", "stages", "model", "told"),
    [
        (
            "own_models:regression",
            [stage("one", "head", epochs=1)],
            {},
            'stages.one.trainable = "head" needs',
        ),
        ("mlp", [stage("one", {"from_layer": "no"}, epochs=1)], {}, "must be a layer of mlp, by name"),
        ("mlp", [MOMENTUM], {}, "stages.one.batchnorm_momentum needs BatchNorm layers, but mlp has"),
        ("mlp", [VIEWS], {}, "stages.one.augmentation needs images, but the data are a table of 5"),
        ("mlp", None, {"image_size": 32}, "model.image_size needs images, but the data are a table of 5"),
        (
            "mlp",
            None,
            {"input_scaling": "unit"},
            'model.input_scaling = "unit" maps bytes of images, but the',
        ),
        ("cnn", None, {}, 'model.network = "cnn" needs images, but the data are a table of 5 features'),
        (None, None, {"backbone": "ResNet50"}, 'model.backbone = "ResNet50" needs images, but the data are'),
    ],
)
def test_a_recipe_that_the_network_or_a_table_cannot_carry_out_is_refused(
    network: str | None, stages: list[dict[str, object]] | None, model: dict[str, object], told: str
):
    with pytest.raises(TrainingError, match=re.escape(told)):
        Trainer(own_study(network, stages, model=model), tiny_table())


@pytest.mark.parametrize(("network", "expected"), [("cnn", None), (None, None)])
def test_what_is_built_in_has_no_file(network: str | None, expected: None):
    assert network_sha256(ModelSpec(network=network)) is expected


def test_the_file_of_a_network_is_told_by_its_digest(tmp_path: Path):
    own = Path(__file__).with_name("own_models.py").read_bytes()
    assert network_sha256(ModelSpec(network="own_models:noisy")) == hashlib.sha256(own).hexdigest()
    path = tmp_path / "m.keras"
    built("own_models:noisy").save(path)
    assert network_sha256(ModelSpec(network=str(path))) == hashlib.sha256(path.read_bytes()).hexdigest()


def split_off(data: TrainingData) -> Network:
    stages = [
        stage("top", "head", epochs=2, batchnorm="inference", optimizer="sgd") | {"learning_rate": 0.1},
        stage("tail", {"from_layer": "dense"}, epochs=1, batchnorm="inference"),
    ]
    trainer = Trainer(own_study("own_models:noisy", stages), data)
    assert trainer.paths == {
        "top": "only the head is trained, on ready features",
        "tail": "layers up to flat are computed once for each view",
    }
    start = weights_of(trainer, 1)
    first, last, _ = trainer.run(Trial(8, 1))
    assert last.train_loss < first.train_loss
    end = {variable.path: np.array(variable) for variable in trainer.network.variables}
    moved = {path for path in start if not np.array_equal(start[path], end[path])}
    assert {path.rpartition("/")[0].rpartition("/")[2] for path in moved} >= {"dense", "out"}
    assert not {path for path in moved if path.startswith("conv")}
    return trainer.network


def test_stages_that_train_a_part_leave_the_rest_alone():
    split_off(tiny_data(3))
