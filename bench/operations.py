"""What bounds fine-tuning: the operations of the trained layers, each alone, beside the whole update.

`python bench/operations.py` measures on one core and writes the table of docs/performance.md. What an update
takes beyond its operations is batchscope's and TensorFlow's own; what they take is TensorFlow's kernels'.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from batchscope.data import TrainingData, generate_cacti, split_dataset
from batchscope.training.cut import find_cut
from batchscope.training.rehearsal import examples_per_second
from batchscope.training.trial import Trainer
from prepare import keras_study
from tables import put_between_marks

__all__ = ["Operation", "operations", "operations_table"]

_BATCHES = (16, 128)
_TIMES = 15
_SECONDS = 10.0
_IMAGES = 80
_PRODUCT, _DEPTHWISE, _ACTIVATION = (
    "1x1 convolutions, as matrix products",
    "depthwise convolutions",
    "activations",
)
Tensor = Any  # TensorFlow's types are not complete


@dataclass(frozen=True)
class Operation:
    """One operation and its gradients.

    Attributes:
        kind: What it belongs to in the table.
        calls: Forward pass and gradients, each to be timed alone.
        flops: Floating-point operations of all calls; 0 where they are not what takes the time.
    """

    kind: str
    calls: tuple[Callable[[], Tensor], ...]
    flops: int = 0


def operations(layers: list[Any], batch: int) -> Iterator[Operation]:
    """The operations of some layers of a backbone; BatchNorm is folded into its convolution.

    Simplified: additions of a layer's input to its output, pooling, loss and optimizer are left out; the
    gradients of the first convolution, which is frozen, are counted.
    """
    for layer in layers:
        height, width, channels = layer.output.shape[1:]
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            yield _depthwise(layer, batch)
        elif isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1):
            yield _product(batch * height * width, int(layer.input.shape[-1]), channels)
        elif isinstance(layer, keras.layers.ReLU):
            yield _activation((batch, height, width, channels))


def _product(rows: int, inputs: int, outputs: int) -> Operation:
    x, w, g = (tf.random.normal(shape) for shape in ((rows, inputs), (inputs, outputs), (rows, outputs)))
    return Operation(
        _PRODUCT,
        (
            lambda: tf.matmul(x, w),
            lambda: tf.matmul(g, w, transpose_b=True),
            lambda: tf.matmul(x, g, transpose_a=True),
        ),
        3 * 2 * rows * inputs * outputs,
    )


def _depthwise(layer: keras.layers.DepthwiseConv2D, batch: int) -> Operation:
    x = tf.random.normal((batch, *layer.input.shape[1:]))
    w, g = tf.random.normal(layer.kernel.shape), tf.random.normal((batch, *layer.output.shape[1:]))
    how: dict[str, Any] = {"strides": [1, *layer.strides, 1], "padding": layer.padding.upper()}
    return Operation(
        _DEPTHWISE,
        (
            lambda: tf.nn.depthwise_conv2d(x, w, **how),
            lambda: tf.nn.depthwise_conv2d_backprop_input(x.shape, w, g, **how),
            lambda: tf.nn.depthwise_conv2d_backprop_filter(x, w.shape, g, **how),
        ),
        3 * 2 * int(np.prod(g.shape)) * int(np.prod(layer.kernel_size)),
    )


def _activation(shape: tuple[int, ...]) -> Operation:
    x, bias, g = tf.random.normal(shape), tf.random.normal(shape[-1:]), tf.random.normal(shape)
    return Operation(
        _ACTIVATION,
        (lambda: tf.nn.relu6(x + bias), lambda: tf.raw_ops.Relu6Grad(gradients=g, features=x)),
    )


def _seconds(call: Callable[[], Tensor]) -> float:
    compiled = tf.function(call, autograph=False)
    compiled()
    times = []
    for _ in range(_TIMES):
        start = time.perf_counter()
        compiled()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(layers: list[Any], batch: int) -> dict[str, tuple[float, float]]:
    """Seconds an image and GFLOP/s by kind."""
    seconds: dict[str, float] = defaultdict(float)
    flops: dict[str, int] = defaultdict(int)
    for operation in operations(layers, batch):
        seconds[operation.kind] += sum(_seconds(call) for call in operation.calls)
        flops[operation.kind] += operation.flops
    return {kind: (taken / batch, flops[kind] / taken / 1e9) for kind, taken in seconds.items()}


def measure_update(batch: int) -> float:
    """Seconds an image of the fine-tuning updates of `aerial-cactus` as batchscope trains."""
    full = keras_study("aerial-cactus", [("model.weights", "none"), ("probe_images", _IMAGES // 2)])
    study = full.model_copy(update={"stages": full.stages[1:], "batch_sizes": [batch]})
    cacti = generate_cacti(2 * max(_BATCHES), 1)
    split = split_dataset(cacti.labels, study.data.validation_share, study.data.split_seed)
    data = TrainingData(cacti.inputs, cacti.labels, split, cacti.classes)
    return 1 / examples_per_second(Trainer(study, data), _SECONDS)


def operations_table(
    parts: Mapping[int, Mapping[str, tuple[float, float]]], updates: Mapping[int, float]
) -> str:
    """Markdown: milliseconds an image by kind and batch size, and what an update takes in all."""
    head = ["On one core, ms an image (GFLOP/s)", *(f"batch size {batch}" for batch in parts)]
    kinds = next(iter(parts.values()))
    sums = (1e3 * sum(seconds for seconds, _ in part.values()) for part in parts.values())
    rows = [
        head,
        ["---"] * len(head),
        *([kind, *(_cell(*part[kind]) for part in parts.values())] for kind in kinds),
        ["sum", *(f"{each:.2f}" for each in sums)],
        ["a whole update as batchscope runs it", *(f"{1e3 * updates[batch]:.2f}" for batch in parts)],
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(seconds: float, rate: float) -> str:
    return f"{1e3 * seconds:.2f}" + (f" ({rate:.0f})" if rate else "")


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parents[1] / "docs" / "performance.md"
    parser.add_argument("--document", type=Path, default=default)
    document = parser.parse_args().document
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    study = keras_study("aerial-cactus")
    size = study.model.image_size
    backbone = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(size, size, 3))
    names = [layer.name for layer in backbone.layers]
    layers = backbone.layers[names.index(find_cut(study.stages, 1, backbone).layer) + 1 :]
    parts = {batch: measure(layers, batch) for batch in _BATCHES}
    updates = {batch: measure_update(batch) for batch in _BATCHES}
    put_between_marks(document, "operations", operations_table(parts, updates))


if __name__ == "__main__":
    main()
