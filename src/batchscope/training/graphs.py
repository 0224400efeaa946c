"""A Keras model as one graph of layers, however deep they were nested, and what is in it.

Keras has no public way to walk a graph, or to put one in the place of a layer that holds it; the
attributes used here are those by which `keras.Function` itself runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

__all__ = ["draws_random_numbers", "flattened", "graph_of", "nodes_of", "penalises_outputs"]

Tensor = Any  # a KerasTensor
Node = Any  # one use of a layer or operation in a graph


def nodes_of(model: keras.Model) -> list[Node]:
    """Every use of a layer or operation in a functional model, in an order of computation."""
    by_depth = model._nodes_by_depth  # noqa: SLF001
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def graph_of(layer: keras.Operation) -> keras.Model | None:
    """The functional model that a layer is or holds; None where it computes in its own way."""
    if isinstance(layer, keras.Sequential):
        own = type(layer).call is not keras.Sequential.call
        return None if own else layer._functional  # noqa: SLF001
    if not (isinstance(layer, keras.Function) and isinstance(layer, keras.Model)):
        return None
    functional: Any = next(kind for kind in type(layer).__mro__ if kind.__name__ == "Functional")
    return layer if type(layer).call is functional.call else None


def flattened(model: keras.Model, shape: Sequence[int]) -> keras.Model:
    """The same layers and variables as one graph without models inside, for inputs of one shape.

    A model that computes in its own way, as a subclass does, stays whole, as one layer. A mode that
    layers were called with (``training=...``) is dropped: Keras' ``fit`` overrides it.

    Args:
        model: With one input and one output.
        shape: Of one example.

    Raises:
        ValueError: Layers of different models have the same name.
    """
    inputs = keras.Input(tuple(shape))
    [outputs] = keras.tree.flatten(_inlined(model)(inputs))
    return keras.Model(inputs, outputs, name=model.name)


def _inlined(operation: keras.Operation) -> Callable[..., Any]:
    """A call of an operation, or of each of those of which its graph consists."""
    graph = graph_of(operation)

    def call(*args: Any, **kwargs: Any) -> Any:  # as the graph holds them
        kwargs.pop("training", None)
        if graph is None:
            return operation(*args, **kwargs)
        return graph._run_through_graph(keras.tree.flatten(args[0]), operation_fn=_inlined)  # noqa: SLF001

    return call


def draws_random_numbers(layer: keras.Operation) -> bool:
    """Whether a layer holds the state of a random generator and rests in inference mode, as dropout does."""
    if (
        not isinstance(layer, keras.layers.Layer)
        or "training" not in inspect.signature(layer.call).parameters
    ):
        return False
    weights = {id(variable) for variable in layer.weights}
    return any(id(variable) not in weights for variable in layer.variables)


def penalises_outputs(model: keras.Model) -> bool:
    """Whether a layer adds to the loss what depends on its outputs: the loss then needs that layer to run.

    Keras' own layers do so by an `activity_regularizer`. Where there are others, which may call `add_loss`,
    the model is run on zeros, in inference mode.

    Args:
        model: With one input.
    """
    layers = model._flatten_layers(include_self=False)  # noqa: SLF001
    kinds = [(type(layer).__module__, layer.activity_regularizer) for layer in layers]
    if any(penalty is not None for _, penalty in kinds):
        return True
    if all(module.partition(".")[0] == "keras" for module, _ in kinds):
        return False
    model(np.zeros((1, *model.input_shape[1:]), np.float32), training=False)
    of_weights = [variable for variable in model.trainable_weights if variable.regularizer is not None]
    return len(model.losses) > len(of_weights)
