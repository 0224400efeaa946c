"""The operations that fine-tuning is made of."""

from __future__ import annotations

from collections import Counter

import keras
import numpy as np
import pytest

from operations import operations, operations_table
from random_weights import model_macs

pytestmark = pytest.mark.keras

BATCH = 2


def test_the_operations_are_those_of_the_layers():
    backbone = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(96, 96, 3))
    names = [layer.name for layer in backbone.layers]
    found = list(operations(backbone.layers[names.index("block_11_expand") :], BATCH))
    kinds = Counter(operation.kind.split(",")[0] for operation in found)
    # Blocks 11 to 16 with three convolutions and two activations each, and the last convolution with its own.
    assert kinds == {"1x1 convolutions": 13, "depthwise convolutions": 6, "activations": 13}
    # Multiplication and addition, forward and two gradients; without the head.
    head = int(backbone.output_shape[-1])
    macs = model_macs("block_11_expand")[1] - head
    assert sum(operation.flops for operation in found) == 3 * 2 * BATCH * macs
    for operation in found:
        forward, *gradients = (np.asarray(call()) for call in operation.calls)
        assert all(np.isfinite(each).all() for each in (forward, *gradients))


def test_the_table_adds_up():
    parts = {
        16: {"products": (0.002, 50.0), "activations": (0.0005, 0.0)},
        128: {"products": (0.001, 100.0), "activations": (0.00025, 0.0)},
    }
    lines = operations_table(parts, {16: 0.003, 128: 0.0015}).splitlines()
    assert lines[2:] == [
        "| products | 2.00 (50) | 1.00 (100) |",
        "| activations | 0.50 | 0.25 |",
        "| sum | 2.50 | 1.25 |",
        "| a whole update as batchscope runs it | 3.00 | 1.50 |",
    ]
