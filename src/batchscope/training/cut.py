"""Where a network can be cut: how much of it is the same function in every trial."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from batchscope.spec import Stage
from batchscope.training.graphs import nodes_of, penalises_outputs
from batchscope.training.network import first_trained_layer
from batchscope.training.recalibration import batchnorm_layers

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
    inference mode. Where the loss counts the outputs of some layer, all of them run: Keras counts those of
    frozen layers, too.

    Simplification: layers that an earlier stage changed, but that then stay as they are, are not
    cut off, for they would differ from trial to trial.

    Args:
        stages: The study's stages.
        index: Which of them.
        backbone: A functional model with one input and one output.
    """
    moving = _why_not_fixed(stages[: index + 1], backbone)
    if moving is not None:
        return _none(moving)
    first = min(first_trained_layer(earlier, backbone) for earlier in stages[: index + 1])
    if first == len(backbone.layers):
        layer = backbone.layers[-1].name
        return Cut(backbone.output, layer, whole=True, reason="only the head is trained, on ready features")
    if first == 0:
        return _none("all its layers are trained")
    shared = _used_again(backbone)
    found = None if shared else _last_single_tensor(backbone, first)
    if found is None:
        return _none(
            f"{shared} is used more than once"
            if shared
            else f"no layer ahead of {backbone.layers[first].name} carries all that passes there"
        )
    layer = found._keras_history.operation.name  # noqa: SLF001  # Keras has no public way from tensor to layer
    return Cut(found, layer, whole=False, reason=f"layers up to {layer} are computed once for each view")


def _why_not_fixed(stages: Sequence[Stage], backbone: keras.Model) -> str | None:
    """Why the backbone is no fixed function in the last of these stages; None if frozen layers are."""
    normalises = bool(batchnorm_layers(backbone))
    for stage in stages:
        if stage.batchnorm == "batch":
            where = "" if stage is stages[-1] else f" in {stage.name}"
            return f"{'BatchNorm normalises by the batch' if normalises else 'it is in training mode'}{where}"
    if normalises and stages[-1].evaluation == "recalibrated":
        return "validation recalibrates the BatchNorm statistics of all layers"
    if penalises_outputs(backbone):
        return "the loss counts outputs of its layers"  # of frozen ones too
    return None


def _none(reason: str) -> Cut:
    return replace(WHOLE, reason=f"{WHOLE.reason}: {reason}")


def _used_again(backbone: keras.Model) -> str | None:
    """Name of a layer that the graph uses more than once, which has no one place in its order."""
    uses = Counter(node.operation.name for node in nodes_of(backbone))
    return next((name for name, count in uses.items() if count > 1), None)


def _last_single_tensor(backbone: keras.Model, first: int) -> Tensor | None:
    """The last tensor made ahead of layer `first` through which all later layers are reached.

    Operations, most of which are layers, are walked in the order of the backbone's list, which is
    one of computation. A tensor is alone where every other one made before it has no use after it.
    """
    operations = backbone.operations
    own = {id(operation): position for position, operation in enumerate(operations)}
    made: dict[int, list[Tensor]] = {}
    last_use: dict[int, int] = {}
    for node in nodes_of(backbone):
        made[id(node.operation)] = node.outputs
        for tensor in node.input_tensors:
            last_use[id(tensor)] = max(last_use.get(id(tensor), -1), own[id(node.operation)])
    found, open_until = None, -1
    for position, operation in enumerate(operations[: own[id(backbone.layers[first])]]):
        outputs = made[id(operation)]
        # All tensors made before are used up to this operation at the latest: only its own goes on.
        if position > 0 and open_until <= position and len(outputs) == 1:
            found = outputs[0]
        open_until = max(open_until, *(last_use.get(id(tensor), -1) for tensor in outputs))
    return found
