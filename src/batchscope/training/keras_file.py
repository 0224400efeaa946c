"""Networks saved as ``.keras`` files: built from layers of Keras alone, and filled with arrays alone.

A ``.keras`` file says which layers to build, by the names of classes and functions. Only those of
Keras' own that compute are admitted; what carries code, reads other files or is registered by a
program is refused by its name before anything is built.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras

from batchscope.errors import TrainingError, WeightsError
from batchscope.training.fetch import MOST_BYTES, unpack
from batchscope.training.weights import refuse_links

__all__ = ["load_network"]

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MOST_CONFIG_BYTES = 2**26
_MODULES = frozenset(
    {
        "builtins",  # of which Keras takes its own functions alone
        "keras.activations",
        "keras.constraints",
        "keras.dtype_policies",
        "keras.initializers",
        "keras.layers",
        "keras.random",
        "keras.regularizers",
        "keras.src.models.functional",
        "keras.src.models.sequential",
    }
)
_OPERATIONS = "keras.src.ops."
_OF_KERAS = frozenset({"DTypePolicy", "Functional", "Sequential"})
_VALUES = frozenset({"__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__"})
# They hold code of Python, run another framework's, or read files whose names are in them.
_REFUSED = frozenset(
    {
        "FlaxLayer",
        "IntegerLookup",
        "JaxLayer",
        "Lambda",
        "StringLookup",
        "TFSMLayer",
        "TextVectorization",
        "TorchModuleWrapper",
        "__lambda__",
        "__typespec__",
    }
)


def load_network(path: Path, shape: tuple[int, ...], *, with_weights: bool) -> keras.Model:
    """Builds the network that a file describes.

    Args:
        path: The file.
        shape: Of one example, for a ``Sequential`` that was saved before it was built.
        with_weights: Fill it with the file's arrays; otherwise it is left with new random ones.

    Raises:
        TrainingError: The file cannot be read, or describes more than layers of Keras.
        WeightsError: Its arrays do not fit its layers, or lie elsewhere.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = io.BytesIO()
            unpack(archive, _CONFIG, config, _MOST_CONFIG_BYTES)
            model = _built(path, json.loads(config.getvalue()), shape)
            if with_weights:
                _fill(model, archive, path)
    except (OSError, KeyError, ValueError, RecursionError, zipfile.BadZipFile) as error:
        raise TrainingError(f"{path}: must be a model that Keras 3 saved as .keras: {error}") from error
    return model


def _built(path: Path, config: Any, shape: tuple[int, ...]) -> keras.Model:
    refused = sorted(set(_refused(config)))
    if refused:
        raise TrainingError(
            f"{path}: must consist of Keras' own layers without code in them, but holds "
            f"{', '.join(refused)}; build it by a function instead and name that (MODULE:FUNCTION)"
        )
    try:
        model = keras.saving.deserialize_keras_object(_without_training(config), safe_mode=True)
    except Exception as error:  # layers raise all kinds of errors at what they cannot be built from
        raise TrainingError(f"{path}: Keras {keras.__version__} cannot build this model: {error}") from error
    if not isinstance(model, keras.Model):
        raise TrainingError(f"{path}: must hold a keras.Model, but holds {type(model).__name__}")
    if isinstance(model, keras.Sequential) and not model.built:
        model.build((None, *shape))
    return model


def _refused(value: Any) -> Iterator[str]:
    """Names of all classes and functions in a description that are not admitted."""
    if isinstance(value, list):
        for item in value:
            yield from _refused(item)
    if not isinstance(value, dict):
        return
    if "class_name" in value and not _admitted(value):
        name, module = value["class_name"], value.get("module")
        inner = value.get("config")
        own = inner.get("name") if isinstance(inner, dict) else None
        called = f" ({own})" if isinstance(own, str) else ""
        yield f"{name}{called}" + ("" if module in (None, "keras.layers") else f" of {module}")
    for key, item in value.items():
        if key != "compile_config":  # it is left out
            yield from _refused(item)


def _admitted(entry: dict[str, Any]) -> bool:
    name, module = entry["class_name"], entry.get("module")
    if not isinstance(name, str) or name in _REFUSED:
        return False
    if name in _VALUES or (module == "keras" and name in _OF_KERAS):
        return True
    return isinstance(module, str) and (module in _MODULES or module.startswith(_OPERATIONS))


def _without_training(value: Any) -> Any:
    """The description without losses, metrics and optimizers."""
    if isinstance(value, list):
        return [_without_training(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_training(item) for key, item in value.items() if key != "compile_config"}
    return value


def _fill(model: keras.Model, archive: zipfile.ZipFile, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / _WEIGHTS
        with arrays.open("wb") as sink:
            unpack(archive, _WEIGHTS, sink, MOST_BYTES)
        with h5py.File(arrays, "r") as file:
            refuse_links(file, path)
            _refuse_excess(file, model, path)
        try:
            model.load_weights(arrays)
        except Exception as error:  # Keras' readers raise all kinds of errors at what does not fit
            raise WeightsError(f"{path}: its arrays must fit its layers, but: {error}") from error


def _refuse_excess(file: h5py.File, model: keras.Model, path: Path) -> None:
    """Refuses arrays larger than the whole model: they fit no layer, and reading them might fill memory."""
    most = model.count_params()

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> str | None:
        larger = isinstance(item, h5py.Dataset) and item.size > most
        return f"{name} holds {item.size:,}" if larger else None

    found = file.visititems(visit)
    if found:
        raise WeightsError(f"{path}: its layers have {most:,} weights in all, but {found}")
