"""BatchNorm statistics as they are, not as moving averages remember them.

A layer's population statistics are the mean and variance of its inputs over clean training
images, the layers before it normalising by their own population statistics. They are found layer
by layer: the activations of all images are brought up to a BatchNorm layer, its moments are
taken over all of them, and only then do they pass it. The result is that of one huge batch
holding all images, while no operation ever sees more than a chunk of them.

Moments are aggregated over chunks by E[x^2] = mean^2 + variance, as fvcore's ``precise_bn`` does;
that estimator, however, lets each batch be normalised by itself on its way through the network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from batchscope.errors import TrainingError
from batchscope.spec import Stage
from batchscope.training.graphs import nodes_of

__all__ = [
    "Moments",
    "averages_kept",
    "batchnorm_layers",
    "hidden_batchnorms",
    "images_that_fit",
    "lag",
    "normalises_by_the_batch",
    "population_moments",
    "use_moments",
]

_CHUNK = 100
_MEMORY_BYTES = 2**30

Floats = NDArray[np.float64]
Tensor = Any  # of whatever backend Keras runs on


@dataclass(frozen=True, eq=False)
class Moments:
    """Statistics of one BatchNorm layer's inputs.

    Attributes:
        layer: Name of the layer.
        mean: Per channel, float64, shape (channels,).
        variance: Per channel, biased (divided by n), float64, shape (channels,).
    """

    layer: str
    mean: Floats
    variance: Floats


def batchnorm_layers(backbone: keras.Model) -> list[keras.layers.BatchNormalization]:
    """The backbone's BatchNorm layers, in the order of its list of layers."""
    return [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]


def normalises_by_the_batch(stage: Stage, backbone: keras.Model) -> bool:
    """Whether what the network makes of an example depends, in training, on the others of its batch."""
    return stage.batchnorm == "batch" and bool(batchnorm_layers(backbone))


def hidden_batchnorms(backbone: keras.Model) -> int:
    """How many BatchNorm layers lie inside other layers, which compute in their own way."""
    everywhere = backbone._flatten_layers(include_self=False)  # noqa: SLF001  # Keras has no public walk
    nested = sum(isinstance(layer, keras.layers.BatchNormalization) for layer in everywhere)
    return nested - len(batchnorm_layers(backbone))


def images_that_fit(backbone: keras.Model) -> int:
    """How many images can be brought through the backbone together within 1 GiB of activations.

    The largest layer's output decides; what residual connections hold besides is smaller.
    """
    largest = max(
        4 * int(np.prod(tensor.shape[1:])) for node in nodes_of(backbone) for tensor in node.outputs
    )
    return max(_MEMORY_BYTES // largest, 1)


def population_moments(backbone: keras.Model, images: NDArray[np.float32]) -> list[Moments]:
    """Population statistics of every BatchNorm layer over images, as one huge batch has them.

    Args:
        backbone: A functional model; its averages are the same afterwards as before.
        images: As the network is fed them, shape (n, height, width, 3).

    Returns:
        One for each BatchNorm layer, in the order of computation; none without such layers.

    Raises:
        TrainingError: A BatchNorm layer hides inside another layer.
    """
    chunks = [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
    found: list[Moments] = []
    hidden = hidden_batchnorms(backbone)
    if hidden:
        raise TrainingError(
            f"{hidden} BatchNorm layers of {backbone.name} lie inside other layers, where they cannot be "
            'recalibrated; set probes = "none" and evaluation = "moving"'
        )
    with averages_kept(backbone):
        for operation, inputs in _walk(backbone, chunks):
            if isinstance(operation, keras.layers.BatchNormalization):
                moments = _moments(operation, inputs)
                use_moments(backbone, [moments])
                found.append(moments)
    return found


@contextmanager
def averages_kept(backbone: keras.Model) -> Iterator[None]:
    """Puts back, at the end, what running in training mode moves, as it was at the start.

    That is the moving averages and the states of random layers, such as dropout.
    """
    moved = [*_averages(backbone), *_random_states(backbone)]
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in moved]
    try:
        yield
    finally:
        for variable, value in zip(moved, before, strict=True):
            variable.assign(value)


def _averages(backbone: keras.Model) -> list[keras.Variable]:
    layers = batchnorm_layers(backbone)
    return [average for layer in layers for average in (layer.moving_mean, layer.moving_variance)]


def _random_states(backbone: keras.Model) -> list[keras.Variable]:
    weights = {id(variable) for variable in backbone.weights}
    return [variable for variable in backbone.variables if id(variable) not in weights]


def use_moments(backbone: keras.Model, moments: Iterable[Moments]) -> None:
    """Puts statistics in the place of moving averages."""
    for found in moments:
        layer = backbone.get_layer(found.layer)
        layer.moving_mean.assign(found.mean.astype(np.float32))
        layer.moving_variance.assign(found.variance.astype(np.float32))


def lag(backbone: keras.Model, moments: Sequence[Moments]) -> dict[str, float]:
    """How far the moving averages are from population statistics, by layer.

    Args:
        backbone: Holds the moving averages.
        moments: The population statistics.

    Returns:
        For each layer |moving mean - population mean| / sqrt(population variance + epsilon), the
        mean over channels; epsilon is the layer's own, by which it divides too.
    """
    distances = {}
    for found in moments:
        layer = backbone.get_layer(found.layer)
        moving = np.array(keras.ops.convert_to_numpy(layer.moving_mean), dtype=np.float64)
        apart = np.abs(moving - found.mean) / np.sqrt(found.variance + layer.epsilon)
        distances[found.layer] = float(apart.mean())
    return distances


def _moments(layer: keras.layers.BatchNormalization, inputs: Sequence[Tensor]) -> Moments:
    """Moments over all chunks: the backend's within a chunk, float64 between them."""
    counts, means, variances = [], [], []
    for chunk in inputs:
        axes = tuple(axis for axis in range(len(chunk.shape)) if axis != layer.axis % len(chunk.shape))
        mean, variance = keras.ops.moments(chunk, axes=axes)
        counts.append(np.prod(chunk.shape) / chunk.shape[layer.axis])
        means.append(keras.ops.convert_to_numpy(mean).astype(np.float64))
        variances.append(keras.ops.convert_to_numpy(variance).astype(np.float64))
    weights = np.array(counts) / sum(counts)
    mean = np.average(means, axis=0, weights=weights)
    spread = np.average((np.array(means) - mean) ** 2, axis=0, weights=weights)
    return Moments(layer.name, mean, np.average(variances, axis=0, weights=weights) + spread)


def _walk(
    model: keras.Model, chunks: Sequence[NDArray[np.float32]]
) -> Iterator[tuple[keras.Operation, Sequence[Tensor]]]:
    """Runs a functional model layer by layer over all chunks.

    Each operation is given with its inputs, chunk by chunk, before it is run, so that its state
    can be changed first; the inputs are there until the next step. A chunk's activation is let go as
    soon as nothing needs it any more, so that no two layers' activations of all chunks are held.
    """
    nodes = nodes_of(model)
    uses = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    (entry,) = model.inputs
    values: list[dict[int, Tensor]] = [{id(entry): keras.ops.convert_to_tensor(chunk)} for chunk in chunks]
    for node in nodes:
        if node.is_input:
            continue
        inputs = [held[id(node.input_tensors[0])] for held in values]
        yield node.operation, inputs
        inputs.clear()  # whoever took them holds the list still
        uses.subtract(id(tensor) for tensor in node.input_tensors)
        used_up = {id(tensor) for tensor in node.input_tensors if uses[id(tensor)] == 0}
        for held in values:
            args, kwargs = node.arguments.fill_in(held)
            for key in used_up:
                del held[key]
            outputs = keras.tree.flatten(node.operation(*args, **kwargs))
            del args, kwargs
            held.update({id(tensor): value for tensor, value in zip(node.outputs, outputs, strict=True)})
