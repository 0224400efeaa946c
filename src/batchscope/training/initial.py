"""What a trial starts from: pretrained weights, and the replicate's own random ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from batchscope.errors import TrainingError
from batchscope.spec import ModelSpec
from batchscope.training.backbones import build_backbone
from batchscope.training.network import Network, build_network

__all__ = ["initial_values"]

Arrays = Sequence[NDArray[np.generic]]


def initial_values(spec: ModelSpec, network: Network, start: Arrays, seed: int) -> list[NDArray[np.generic]]:
    """Values of the network's variables that belong to a seed, the same in every process.

    Where nothing is pretrained, the network is built anew after ``keras.utils.set_random_seed``: so its
    own initialisers are used, and whatever a function of the study's own draws by Python, NumPy or Keras
    follows the seed, too. An initialiser with a seed of its own gives the same weights every time.

    Args:
        spec: The study's model.
        network: Its layers.
        start: Values of the network's variables as it was built, pretrained ones among them.
        seed: Of the replicate.

    Raises:
        TrainingError: A function gives another network than before, or the same layers again.
    """
    if spec.network is not None:
        values = _built_anew(spec, network, seed) if spec.weights == "none" else start
    else:
        values = _of_backbone(spec, network, start, seed)
    return list(_with_random_states(network, values, seed))


def _of_backbone(spec: ModelSpec, network: Network, start: Arrays, seed: int) -> Arrays:
    backbone = start[: len(network.backbone.variables)]
    if spec.weights == "none":
        keras.utils.set_random_seed(seed)
        backbone = _arrays(build_backbone(spec).variables)
    kernel, bias = network.head.kernel, network.head.bias
    drawn = keras.initializers.GlorotUniform(seed=seed)(kernel.shape)
    return [*backbone, keras.ops.convert_to_numpy(drawn), np.zeros(bias.shape, dtype=np.float32)]


def _built_anew(spec: ModelSpec, network: Network, seed: int) -> Arrays:
    keras.utils.set_random_seed(seed)
    again = build_network(spec, tuple(network.backbone.input_shape[1:]), max(network.outputs, 2))
    if {id(variable) for variable in network.variables} & {id(variable) for variable in again.variables}:
        raise TrainingError(
            f"model.network {spec.network!r} must build a new network whenever it is called, but it gave "
            "layers of the one before, which have been trained; build all layers inside the function"
        )
    before, now = ([tuple(each.shape) for each in made.variables] for made in (network, again))
    if before != now:
        raise TrainingError(
            f"model.network {spec.network!r} must give the same network whenever it is called, but its "
            f"{len(before)} variables became {len(now)}, or other shapes"
        )
    return _arrays(again.variables)


def _with_random_states(network: Network, values: Arrays, seed: int) -> Iterator[NDArray[np.generic]]:
    """Values with the states of random layers, such as dropout, drawn from the seed."""
    weights = {id(variable) for variable in (*network.backbone.weights, *network.head.weights)}
    stream = np.random.default_rng(seed)
    for variable, value in zip(network.variables, values, strict=True):
        if id(variable) in weights:
            yield value
        else:
            yield stream.integers(2**31, size=value.shape).astype(value.dtype)


def _arrays(variables: Sequence[keras.Variable]) -> Arrays:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
