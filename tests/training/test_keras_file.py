"""Saved networks: built of Keras' own layers, filled with arrays; whatever else is in a file is refused."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from batchscope.errors import BatchscopeError, TrainingError, WeightsError
from batchscope.spec import ModelSpec
from batchscope.training.keras_file import load_network
from batchscope.training.own_network import build_own_network

pytestmark = pytest.mark.keras
SHAPE = (8, 8, 3)
LAYERS = keras.layers


def saved(folder: Path, *behind: keras.layers.Layer) -> Path:
    """A file of a small network, compiled, with further layers in its middle."""
    keras.utils.set_random_seed(2)
    inputs = x = keras.Input(SHAPE)
    for layer in (LAYERS.Conv2D(4, 3, name="conv"), LAYERS.BatchNormalization(name="bn"), *behind):
        x = layer(x)
    x = LAYERS.Dense(3, activation="softmax", name="out")(LAYERS.Flatten(name="flat")(x))
    model = keras.Model(inputs, x, name="saved")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    path = folder / "m.keras"
    model.save(path)
    return path


def repack(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def with_layer(layer: dict[str, Any]) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        told = json.loads(members["config.json"])
        told["config"]["layers"].append(layer)
        members["config.json"] = json.dumps(told).encode()

    return change


def test_a_file_gives_its_weights_or_new_ones(tmp_path: Path):
    path = saved(tmp_path)
    wanted = keras.models.load_model(path, compile=False).get_weights()
    kept, anew = (load_network(path, SHAPE, with_weights=each) for each in (True, False))
    for value, expected in zip(kept.get_weights(), wanted, strict=True):
        np.testing.assert_array_equal(value, expected)
    assert not np.array_equal(anew.get_weights()[0], wanted[0])
    assert not kept.compiled


def recurrent(inputs: keras.KerasTensor) -> keras.KerasTensor:
    return LAYERS.Bidirectional(LAYERS.LSTM(3))(LAYERS.Reshape((8, 24))(inputs))


def attending(inputs: keras.KerasTensor) -> keras.KerasTensor:
    rows = LAYERS.Reshape((8, 24))(inputs)
    return LAYERS.Flatten()(LAYERS.MultiHeadAttention(2, 3)(rows, rows) + keras.ops.sin(rows))


def sequential(inputs: keras.KerasTensor) -> keras.KerasTensor:
    inner = keras.Sequential([LAYERS.Conv2D(2, 3, kernel_regularizer="l2"), LAYERS.Flatten()])
    return inner(inputs)


@pytest.mark.parametrize("body", [recurrent, attending, sequential])
def test_layers_within_layers_and_operations_come_back(
    tmp_path: Path, body: Callable[[keras.KerasTensor], keras.KerasTensor]
):
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, LAYERS.Dense(3, activation="softmax")(body(inputs)))
    path = tmp_path / "m.keras"
    model.save(path)
    found = build_own_network(ModelSpec(network=str(path), weights="file"), SHAPE, 3)
    noise = np.random.default_rng(1).random((4, *SHAPE)).astype(np.float32)
    np.testing.assert_allclose(found(noise).numpy(), model(noise).numpy(), atol=1e-6)


@keras.saving.register_keras_serializable(package="mine")
class Own(keras.layers.Layer):
    """Known to Keras in this process, as to one that imported it."""

    def call(self, inputs: object) -> object:
        return inputs


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


def test_a_lambda_is_refused_by_its_name_and_not_run(tmp_path: Path, canary: Path):
    command = f"touch {canary}"
    runs = LAYERS.Lambda(lambda x: (__import__("os").system(command), x)[1], name="evil")
    path = saved(tmp_path, runs)
    canary.unlink()  # building the model ran it
    keras.models.load_model(path, compile=False, safe_mode=False)
    canary.unlink()  # so does loading it where Keras is let to
    for with_weights in (True, False):
        with pytest.raises(TrainingError, match=r"m\.keras: .* but holds Lambda \(evil\), __lambda__; build"):
            load_network(path, SHAPE, with_weights=with_weights)


def test_a_layer_of_the_authors_own_is_refused_even_where_it_is_known(tmp_path: Path):
    path = saved(tmp_path, Own(name="mine"))
    keras.models.load_model(path, compile=False)
    with pytest.raises(TrainingError, match=r"Keras' own layers .* Own \(mine\) of test_keras"):
        load_network(path, SHAPE, with_weights=False)


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        ({"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/x"}}, "TFSMLayer"),
        (
            {"module": "keras.layers", "class_name": "TextVectorization", "config": {"vocabulary": "/x"}},
            "TextVectorization",
        ),
        ({"module": "os", "class_name": "system", "config": {"command": "true"}}, "system of os"),
        ({"module": "keras", "class_name": "device", "config": {}}, "device of keras"),
        ({"module": "keras.saving", "class_name": "load_model", "config": {}}, "load_model of keras.saving"),
        ({"module": None, "class_name": "Mine", "config": {"name": "m"}}, r"Mine \(m\)"),
        ({"module": 3, "class_name": [], "config": {}}, r"\[\] of 3"),
        (
            {
                "module": "keras.layers",
                "class_name": "Dense",
                "config": {"activation": {"class_name": "__lambda__", "config": {"value": "4wAA"}}},
            },
            "__lambda__",
        ),
    ],
)
def test_what_carries_code_or_reads_other_files_is_refused_by_its_name(
    tmp_path: Path, layer: dict[str, Any], told: str
):
    path = saved(tmp_path)
    repack(path, with_layer(layer))
    with pytest.raises(TrainingError, match=rf"m\.keras: must consist of Keras' own layers .*{told}"):
        load_network(path, SHAPE, with_weights=False)


def config(text: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.update({"config.json": text})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (config(b"{"), "must be a model that Keras 3 saved"),
        (config(b"[" * 100_000), "must be a model that Keras 3 saved"),
        (config(b"\xff"), "must be a model that Keras 3 saved"),
        (config(b"[1, 2]"), "must hold a keras.Model, but holds list"),
        (config(b'{"module": "keras", "class_name": "Sequential", "config": {}}'), "cannot build this model"),
        (
            config(b'{"module": "keras.layers", "class_name": "ReLU", "config": {}}'),
            "must hold a keras.Model, but holds ReLU",
        ),
        (lambda members: members.pop("config.json"), "must be a model that Keras 3 saved"),
        (lambda members: members.pop("model.weights.h5"), "must be a model that Keras 3 saved"),
        (
            lambda members: members.update({"model.weights.h5": b"no HDF5"}),
            "must be a model that Keras 3 saved",
        ),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change: Callable[[dict[str, bytes]], None], told: str):
    path = saved(tmp_path)
    repack(path, change)
    with pytest.raises(BatchscopeError, match=rf"m\.keras: .*{told}"):
        load_network(path, SHAPE, with_weights=True)


@pytest.mark.parametrize(("content", "told"), [(None, "No such file"), (b"no zip", "File is not a zip file")])
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes | None, told: str):
    path = tmp_path / "m.keras"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TrainingError, match=rf"m\.keras: must be a model that Keras 3 saved .*{told}"):
        load_network(path, SHAPE, with_weights=True)


def linked(file: h5py.File, place: str, other: Path) -> None:
    del file[place]
    file[place] = h5py.ExternalLink(str(other), "/secret")


def huge(file: h5py.File, place: str, other: Path) -> None:
    del file[place]
    file.create_dataset(place, (2**20, 2**20, 2**10), "f4", chunks=(1, 1, 1))


def misshapen(file: h5py.File, place: str, other: Path) -> None:
    del file[place]
    file[place] = np.zeros((3, 3, 4, 3), np.float32)


def missing(file: h5py.File, place: str, other: Path) -> None:
    del file[place]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (linked, "must hold its arrays itself, but .* is a link to elsewhere"),
        (huge, "its layers have [0-9]+ weights in all, but layers/conv2d/vars/0 holds 1,125,899,906,842,624"),
        (misshapen, "its arrays must fit its layers"),
        (missing, "its arrays must fit its layers"),
    ],
)
def test_arrays_that_are_not_the_networks_are_refused(
    tmp_path: Path, change: Callable[[h5py.File, str, Path], None], told: str
):
    path, arrays, other = saved(tmp_path), tmp_path / "arrays.h5", tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["secret"] = np.zeros((3, 3, 3, 4), np.float32)
    with zipfile.ZipFile(path) as archive:
        arrays.write_bytes(archive.read("model.weights.h5"))
    with h5py.File(arrays, "r+") as file:
        change(file, "layers/conv2d/vars/0", other)
    repack(path, lambda members: members.update({"model.weights.h5": arrays.read_bytes()}))
    with pytest.raises(WeightsError, match=rf"m\.keras: .*{told}"):
        load_network(path, SHAPE, with_weights=True)
    load_network(path, SHAPE, with_weights=False)  # they are not read
