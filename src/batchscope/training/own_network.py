"""Whole networks that a study brings: built in, built by a function, or saved in a file."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import keras
import numpy as np

from batchscope.errors import TrainingError
from batchscope.spec import ModelSpec
from batchscope.training.fetch import check_sha256
from batchscope.training.graphs import flattened
from batchscope.training.keras_file import load_network
from batchscope.training.small_networks import SMALL_NETWORKS

__all__ = ["build_own_network", "network_sha256"]

_PROBED = 8
_SUM = 1e-3


def build_own_network(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> keras.Model:
    """Builds a study's network as one flat graph.

    Args:
        spec: The study's model; it names a network.
        shape: Of one example.
        classes: Number of classes, at least 2.

    Returns:
        A functional model for examples of that shape, which gives probabilities of shape (n, classes)
        or, for two classes, (n, 1).

    Raises:
        TrainingError: There is no such network, it fails while it is built, or it is none for such
            examples and classes.
        WeightsError: The weights of a file do not fit its network.
    """
    name = str(spec.network)
    if name in SMALL_NETWORKS:
        model = SMALL_NETWORKS[name](shape, classes)
    elif name.endswith(".keras"):
        model = load_network(Path(name), shape, with_weights=spec.weights == "file")
    else:
        model = _called(name, _function(name), shape, classes)
    told = f"model.network {name!r}"
    _check_inputs(model, told, shape)
    try:
        flat = flattened(model, shape)
    except Exception as error:  # layers of one's own raise all kinds of errors
        kind = type(error).__name__
        raise TrainingError(
            f"{told} cannot be built for examples of shape {shape}: {kind}: {error}"
        ) from error
    _check_outputs(flat, told, classes)
    return flat


def network_sha256(spec: ModelSpec) -> str | None:
    """SHA-256 of the file that a study's network comes from; None for built-in ones and backbones.

    Simplified: of a function it is the file of the module that the study names; what that imports does
    not count.

    Raises:
        TrainingError: The module cannot be imported.
        WeightsError: The file cannot be read.
    """
    if spec.network is None or spec.network in SMALL_NETWORKS:
        return None
    if spec.network.endswith(".keras"):
        return check_sha256(Path(spec.network), None)
    source = _module(spec.network).__file__
    return None if source is None else check_sha256(Path(source), None)


def _module(name: str) -> ModuleType:
    module = name.partition(":")[0]
    try:
        return importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name in _parents(module):
            raise TrainingError(
                f"model.network {name!r}: the module must lie in the working directory, {Path.cwd()}, or be "
                f"installed, but there is no {error.name}"
            ) from error
        raise TrainingError(
            f"model.network {name!r}: importing the module failed; its own error is\n{_own_traceback(error)}"
        ) from error


def _parents(module: str) -> list[str]:
    """A dotted name and those of all packages that it lies in."""
    parts = module.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _function(name: str) -> Callable[..., object]:
    module, wanted = _module(name), name.partition(":")[2]
    found = getattr(module, wanted, None)
    if callable(found):
        function: Callable[..., object] = found
        return function
    what = "is not callable" if hasattr(module, wanted) else "is not there"
    known = [
        key
        for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not key.startswith("_")
    ]
    raise TrainingError(
        f"model.network {name!r} must name a function of {module.__file__}, but {wanted} {what}; "
        f"its functions are: {', '.join(known) or 'none'}"
    )


def _called(name: str, function: Callable[..., object], shape: tuple[int, ...], classes: int) -> keras.Model:
    try:
        model = function(shape, classes)
    except Exception as error:
        raise TrainingError(
            f"model.network {name!r} failed when it was called with input_shape={shape} and "
            f"classes={classes}; its own error is\n{_own_traceback(error)}"
        ) from error
    if not isinstance(model, keras.Model):
        raise TrainingError(f"model.network {name!r} must return a keras.Model, but returned {model!r:.80}")
    return model


def _own_traceback(error: Exception) -> str:
    """The traceback without what called the user's code."""
    entries = error.__traceback__
    while entries is not None and entries.tb_frame.f_code.co_filename == __file__:
        entries = entries.tb_next
    return "".join(traceback.format_exception(error.with_traceback(entries))).rstrip()


def _check_inputs(model: keras.Model, told: str, shape: tuple[int, ...]) -> None:
    """Refuses what Keras would only find out, or not even that, when the layers run."""
    if isinstance(model, keras.Sequential) and not model.built:
        try:
            model.build((None, *shape))
        except ValueError as error:
            raise TrainingError(f"{told} cannot be built for examples of shape {shape}: {error}") from error
    inputs = keras.tree.flatten(getattr(model, "inputs", None) or [])
    if not inputs:
        return  # a subclass of keras.Model, which is built when it is called
    if len(inputs) != 1 or len(model.outputs) != 1:
        raise TrainingError(
            f"{told} must have one input and one output, but has {len(inputs)} and {len(model.outputs)}"
        )
    wanted = tuple(inputs[0].shape[1:])
    fits = len(wanted) == len(shape) and all(
        own in (None, given) for own, given in zip(wanted, shape, strict=True)
    )
    if not fits:
        raise TrainingError(
            f"{told} takes examples of shape {wanted}, but those of the study have {shape}; "
            "set model.image_size, or build the network for the shape that its function is called with"
        )


def _check_outputs(model: keras.Model, told: str, classes: int) -> None:
    """Refuses what gives no probabilities of the classes, as far as that can be seen."""
    wanted = f"a softmax over {classes} classes" + (" or one sigmoid unit" if classes == 2 else "")
    shape = tuple(model.outputs[0].shape)
    allowed = [(None, classes)] + ([(None, 1)] if classes == 2 else [])
    if shape not in allowed:
        raise TrainingError(f"{told} must end in {wanted}, but its output has shape {shape}")
    model.trainable = True  # which layers are trained is said by the stage
    if not model.trainable_variables:
        raise TrainingError(f"{told} must have weights that can be trained, but has none")
    last = model.outputs[0]._keras_history.operation  # noqa: SLF001  # no public way from a tensor to its layer
    activation = getattr(last, "activation", None)
    if activation is keras.activations.linear or (shape[1] == 1 and activation is keras.activations.softmax):
        gives = "logits" if activation is keras.activations.linear else "1 whatever it is shown"
        raise TrainingError(
            f"{told} must end in {wanted}, but its last layer, {last.name}, gives {gives}; give it "
            f'activation="{"sigmoid" if shape[1] == 1 else "softmax"}"'
        )
    _check_probabilities(model, told, wanted)


def _check_probabilities(model: keras.Model, told: str, wanted: str) -> None:
    noise = np.random.default_rng(0).random((_PROBED, *model.input_shape[1:])).astype(np.float32)
    given = keras.ops.convert_to_numpy(model(noise, training=False)).astype(np.float64)
    sums = given.sum(axis=1)
    within = bool(np.isfinite(given).all()) and given.min() >= 0 and given.max() <= 1
    if not within or (given.shape[1] > 1 and np.abs(sums - 1).max() > _SUM):
        raise TrainingError(
            f"{told} must end in {wanted}, but for noise it gives values from {given.min():.3g} to "
            f"{given.max():.3g} that add up to {sums.min():.3g} to {sums.max():.3g}"
        )
