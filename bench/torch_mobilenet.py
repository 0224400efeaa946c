"""MobileNetV2 (Sandler et al. 2018, width 1.0) in plain PyTorch, with Keras' layer names and weights.

Keras pads a convolution of stride 2 at the bottom and the right alone, PyTorch on all sides. On even
sizes the one is the other's mirror image: seen by mirrored kernels, a picture turned by 180 degrees
gives Keras' output turned by 180 degrees. So no padding layers are needed, which would cost time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["FEATURES", "MobileNetV2"]

FEATURES = 1280
# Expansion, output channels, repeats, stride of the first: table 2 of the paper.
_PLAN = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _convolution(ins: int, outs: int, size: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(ins, outs, size, stride, padding=size // 2, groups=groups, bias=False)


def _normalisation(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=1e-3)  # Keras' momentum of 0.999 is what is kept


class _Block(nn.Module):  # type: ignore[misc]  # mypy sees no torch
    """An inverted residual."""

    def __init__(self, name: str, ins: int, outs: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = ins * expansion
        self.name, self.shortcut = name, stride == 1 and ins == outs
        layers: dict[str, nn.Module] = {}
        if expansion > 1:
            layers |= {"expand": _convolution(ins, wide), "expand_BN": _normalisation(wide)}
            layers["expand_relu"] = nn.ReLU6(inplace=True)
        layers |= {
            "depthwise": _convolution(wide, wide, 3, stride, groups=wide),
            "depthwise_BN": _normalisation(wide),
            "depthwise_relu": nn.ReLU6(inplace=True),
            "project": _convolution(wide, outs),
            "project_BN": _normalisation(outs),
        }
        self.layers = nn.ModuleDict(layers)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = inputs
        for layer in self.layers.values():
            outputs = layer(outputs)
        return inputs + outputs if self.shortcut else outputs


class MobileNetV2(nn.Module):  # type: ignore[misc]  # mypy sees no torch
    """Takes images (n, 3, size, size), turned by 180 degrees; gives features (n, 1280), averaged.

    Args:
        first_trained: Keras' name of the first layer that fine-tuning trains.
    """

    def __init__(self, first_trained: str) -> None:
        super().__init__()
        self.stem = nn.Sequential(_convolution(3, 32, 3, 2), _normalisation(32), nn.ReLU6(inplace=True))
        self.blocks = nn.ModuleList(_blocks())
        self.top = nn.Sequential(
            _convolution(320, FEATURES), _normalisation(FEATURES), nn.ReLU6(inplace=True)
        )
        names = [name for name, _ in self.weighted()]
        self._trained = names[names.index(first_trained) :]
        # Blocks before the one that holds the first trained layer are frozen as a whole.
        self._frozen_blocks = next(
            i for i, block in enumerate(self.blocks) if first_trained.startswith(f"{block.name}_")
        )
        self.freeze()

    def forward(self, images: Tensor) -> Tensor:
        """Features; gradients reach the trained layers alone."""
        with torch.no_grad():
            outputs = self.stem(images)
            for block in self.blocks[: self._frozen_blocks]:
                outputs = block(outputs)
        for block in self.blocks[self._frozen_blocks :]:
            outputs = block(outputs)
        pooled: Tensor = self.top(outputs).mean(dim=(2, 3))
        return pooled

    def weighted(self) -> Iterator[tuple[str, nn.Module]]:
        """Layers with weights and Keras' names of them, in Keras' order."""
        yield from zip(("Conv1", "bn_Conv1"), self.stem, strict=False)
        for block in self.blocks:
            for name, layer in block.layers.items():
                if not isinstance(layer, nn.ReLU6):
                    yield f"{block.name}_{name}", layer
        yield from zip(("Conv_1", "Conv_1_bn"), self.top, strict=False)

    def freeze(self) -> None:
        """Trains no layer."""
        self.requires_grad_(requires_grad=False)

    def unfreeze(self) -> None:
        """Trains the layers from the first trained one on."""
        for name, layer in self.weighted():
            layer.requires_grad_(name in self._trained)

    def load_keras(self, arrays: Sequence[NDArray[np.float32]]) -> None:
        """Takes the weights of Keras' model in the order of its layers."""
        rest = iter(arrays)
        with torch.no_grad():
            for _, layer in self.weighted():
                if isinstance(layer, nn.Conv2d):
                    layer.weight.copy_(torch.from_numpy(_kernel(next(rest), depthwise=layer.groups > 1)))
                elif isinstance(layer, nn.BatchNorm2d):
                    for target in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                        target.copy_(torch.from_numpy(next(rest)))


def _blocks() -> Iterator[_Block]:
    ins, number = 32, 0
    for expansion, outs, repeats, stride in _PLAN:
        for repeat in range(repeats):
            name = f"block_{number}" if number else "expanded_conv"
            yield _Block(name, ins, outs, expansion, stride if repeat == 0 else 1)
            ins, number = outs, number + 1


def _kernel(kernel: NDArray[np.float32], *, depthwise: bool) -> NDArray[np.float32]:
    """Keras' (height, width, in, out), or (height, width, channels, 1), mirrored, in PyTorch's order."""
    mirrored = kernel[::-1, ::-1]
    return np.ascontiguousarray(mirrored.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1)))
