"""Where a network can be cut: how much of it is the same function in every trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from batchscope.spec import Stage
from batchscope.training.network import first_trained_layer

__all__ = ["WHOLE", "Cut", "find_cut"]

Tensor = Any  # a KerasTensor


@dataclass(frozen=True, eq=False)
class Cut:
    """What of a stage's backbone stays as it is in all trials.

    Attributes:
        tensor: The backbone's tensor up to which it does; None: nothing does.
        layer: Name of the layer that gives the tensor; empty for None.
        whole: Whether this is the whole backbone, so that only the head is trained.
        reason: In words, for the run to say.
    """

    tensor: Tensor | None
    layer: str
    whole: bool
    reason: str


WHOLE = Cut(None, "", whole=False, reason="the whole network runs")


def find_cut(stages: Sequence[Stage], index: int, backbone: keras.Model) -> Cut:
    """Finds the last single tensor ahead of all that a stage trains.

    The layers up to there are the same function in every trial where none of them is trained, in
    this stage or an earlier one, and none depends on the batch or on chance: BatchNorm uses averages
    that stand still, and random layers, such as dropout, are off, as the whole backbone runs in
    inference mode.

    Simplification: layers that an earlier stage changed, but that then stay as they are, are not
    cut off, for they would differ from trial to trial.

    Args:
        stages: The study's stages.
        index: Which of them.
        backbone: A functional model with one input and one output.
    """
    stage = stages[index]
    for earlier in stages[: index + 1]:
        if earlier.batchnorm == "batch":
            where = "" if earlier is stage else f" in {earlier.name}"
            return _none(f"BatchNorm normalises by the batch{where}")
    if stage.evaluation == "recalibrated":
        return _none("validation recalibrates the BatchNorm statistics of all layers")
    first = min(first_trained_layer(earlier, backbone) for earlier in stages[: index + 1])
    if first == len(backbone.layers):
        layer = backbone.layers[-1].name
        return Cut(backbone.output, layer, whole=True, reason="only the head is trained, on ready features")
    if first == 0:
        return _none("all its layers are trained")
    found = _last_single_tensor(backbone, first)
    if found is None:
        return _none(f"no layer ahead of {backbone.layers[first].name} carries all that passes there")
    layer = found._keras_history.operation.name  # noqa: SLF001  # Keras has no public way from tensor to layer
    return Cut(found, layer, whole=False, reason=f"layers up to {layer} are computed once for each view")


def _none(reason: str) -> Cut:
    return replace(WHOLE, reason=f"{WHOLE.reason}: {reason}")


def _last_single_tensor(backbone: keras.Model, first: int) -> Tensor | None:
    """The last tensor made ahead of layer `first` through which all later layers are reached.

    Layers are walked in the order of the backbone's list, which is one of computation. A tensor is
    alone where every other one made before it has no use after it.
    """
    own = {id(layer): position for position, layer in enumerate(backbone.layers)}
    last_use: dict[int, int] = {}
    for depth_nodes in backbone._nodes_by_depth.values():  # noqa: SLF001  # by which keras.Function runs
        for node in depth_nodes:
            for tensor in node.input_tensors:
                user = own[id(node.operation)]
                last_use[id(tensor)] = max(last_use.get(id(tensor), -1), user)
    found, open_until = None, -1
    for position, layer in enumerate(backbone.layers[:first]):
        # All tensors of earlier layers are used up to this layer at the latest: only its own goes on.
        if position > 0 and open_until <= position:
            found = layer.output
        open_until = max(open_until, last_use.get(id(layer.output), -1))
    return found
