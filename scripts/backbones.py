"""Tries every backbone of ``keras.applications`` at its smallest size, with random weights.

For each: is its default image size the one of its ImageNet weights, does its scaling run, where is it cut
halfway, and how far are the cut, the rewritten and the recalibrated network from plain Keras? Takes some
twenty minutes on 2 cores and 8 GB of memory; the tests try a few of them.

Usage: python scripts/backbones.py [NAME ...]
"""

from __future__ import annotations

import gc
import inspect
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from batchscope.data import Split, TrainingData
from batchscope.spec import ModelSpec, Stage
from batchscope.training.cut import find_cut
from batchscope.training.network import build_network
from batchscope.training.prefix import Prefix
from batchscope.training.recalibration import (
    averages_kept,
    batchnorm_layers,
    population_moments,
    use_moments,
)
from batchscope.training.rewriting import rewrite
from batchscope.training.scaling import make_scaling

SMALLEST = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}
USUAL_OTHERWISE = {"MobileNetV2": 96}
"""Sizes that were chosen otherwise than Keras' default, among those that have weights of their own."""


def distance(found: object, expected: object) -> float:
    """Of arrays, as a share of the expected one's length."""
    one, other = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def tried(name: str) -> str:
    """One backbone, as a line."""
    start, size = time.perf_counter(), SMALLEST.get(name, 32)
    keras.utils.set_random_seed(1)
    spec = ModelSpec(backbone=name, weights="none", image_size=size)
    network = build_network(spec, (size, size, 3), 3)
    backbone = network.backbone
    pixels = np.random.default_rng(2).integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    split = Split(training=np.arange(4), validation=np.arange(0))
    data = TrainingData(pixels, np.zeros(4, np.int64), split, ("a", "b", "c"))
    images = make_scaling(spec, data).apply(pixels.astype(np.float32))
    norms = batchnorm_layers(backbone)
    if norms:  # averages that let images through, as trained ones do
        use_moments(backbone, population_moments(backbone, images))
    expected = backbone(images, training=False)
    rewritten = distance(rewrite(backbone, "inference")(images, training=False), expected)
    with averages_kept(backbone):
        by_batch = backbone(images, training=True)
    with averages_kept(backbone):
        batch = distance(rewrite(backbone, "batch")(images, training=True), by_batch)
    stage = Stage.model_validate(
        {
            "name": "one",
            "epochs": 1,
            "learning_rate": 0.1,
            "trainable": {"from_layer": len(backbone.layers) // 2},
        }
    )
    cut = find_cut([stage], 0, backbone)
    parts = np.nan
    if cut.tensor is not None:
        behind = rewrite(keras.Model(cut.tensor, backbone.output), "inference")
        parts = distance(behind(Prefix(network, cut)(images), training=False), expected)
    seconds = time.perf_counter() - start
    return (
        f"{name:20} {size:3} px {backbone.count_params() / 1e6:6.1f} M {len(norms):4} BatchNorm  cut at "
        f"{cut.layer or cut.reason:34} parts {parts:.0e} rewritten {rewritten:.0e} by the batch {batch:.0e}  "
        f"{seconds:4.0f} s"
    )


def usual_size(name: str) -> str:
    """The default image size against that of the whole network, with its top."""
    whole = getattr(keras.applications, name)(weights=None)
    # MobileNetV3 takes any size; its weights are for 224.
    own, wanted = ModelSpec(backbone=name).image_size, whole.input_shape[1] or 224
    known = USUAL_OTHERWISE.get(name, wanted)
    return f"{own} px by default" if own == known else f"DEFAULT {own} px, BUT KERAS HAS {wanted}"


def main() -> None:
    """Says a line for each backbone; those that fail say why, and the exit code is 1 then."""
    functions = [name for name, value in vars(keras.applications).items() if inspect.isfunction(value)]
    failed = False
    for name in sys.argv[1:] or functions:
        try:
            line = f"{tried(name)}  {usual_size(name)}"
        except Exception as error:  # noqa: BLE001  # the others are tried all the same
            line, failed = f"{name:20} FAILED: {type(error).__name__}: {error}", True
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        keras.backend.clear_session()
        gc.collect()
    sys.exit(failed)


if __name__ == "__main__":
    main()
