"""Tries every backbone of ``keras.applications`` at its default size, with random weights.

For each: is its default image size the one of its ImageNet weights, is its default scaling the one that
Keras gives for it, where is it cut three quarters through, how far are the cut and the rewritten network
from plain Keras (and plain Keras from itself, when its inputs differ in their last digit), and does one
update behind the cut move what it trains, and that alone? A process of its own tries each, so that memory
is given back. It takes 15 seconds to minutes for each on one core; the tests try a few of them.

Usage: python scripts/backbones.py [NAME ...]
"""

from __future__ import annotations

import inspect
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from keras.src.applications import imagenet_utils

from batchscope.data import Split, TrainingData
from batchscope.spec import ModelSpec, Stage
from batchscope.training.cut import find_cut
from batchscope.training.network import Network, build_network, set_trainable
from batchscope.training.prefix import Prefix
from batchscope.training.recalibration import (
    batchnorm_layers,
    population_moments,
    use_moments,
)
from batchscope.training.rewriting import rewrite
from batchscope.training.scaling import make_scaling
from batchscope.training.sources import ReadySource
from batchscope.training.stage_program import assign, compile_stage, values

USUAL_OTHERWISE = {"MobileNetV2": 96}
"""Sizes that were chosen otherwise than Keras' default."""
IMAGES = 2


def distance(found: object, expected: object) -> float:
    """Of arrays, as a share of the expected one's length."""
    one, other = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def tried(name: str) -> str:
    """One backbone, as a line."""
    start = time.perf_counter()
    keras.utils.set_random_seed(1)
    spec = ModelSpec(backbone=name, weights="none")
    size = int(spec.image_size or 0)
    with default_sizes() as told:
        network = build_network(spec, (size, size, 3), 3)
    # MobileNetV3 has none; its weights are for 224.
    wanted, backbone = USUAL_OTHERWISE.get(name, (told or [224])[0]), network.backbone
    if size != wanted:
        raise RuntimeError(f"{size} px by default, but Keras has {wanted}")
    pixels = np.random.default_rng(2).integers(0, 256, (IMAGES, size, size, 3), dtype=np.uint8)
    split = Split(training=np.arange(IMAGES), validation=np.arange(0))
    data = TrainingData(pixels, np.arange(IMAGES), split, ("a", "b", "c"))
    images = make_scaling(spec, data).apply(pixels.astype(np.float32))
    norms = batchnorm_layers(backbone)
    if norms:  # averages that let images through, as trained ones do
        use_moments(backbone, population_moments(backbone, images))
    expected = backbone.predict_on_batch(images)
    # What rounding does by itself: inputs that differ in their last digit.
    rounding = distance(backbone.predict_on_batch(images * np.float32(1 + 2**-23)), expected)
    rewritten = distance(rewrite(backbone, "inference").predict_on_batch(images), expected)
    parts, layer, moved = trained_behind_a_cut(network, images, expected)
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return (
        f"{name:18} {size:3} px {backbone.count_params() / 1e6:5.1f} M {len(norms):3} BatchNorm  "
        f"{scaling_of(name, spec, data)}  cut at {layer:28} parts {parts:.0e} rewritten {rewritten:.0e} "
        f"rounding {rounding:.0e}  {moved}  {seconds:3.0f} s {memory:.1f} GB"
    )


def trained_behind_a_cut(
    network: Network, images: np.ndarray, expected: np.ndarray
) -> tuple[float, str, str]:
    """How far the parts are from the whole, where it is cut, and what an update of the last quarter moves."""
    backbone = network.backbone
    first = 3 * len(backbone.layers) // 4
    raw = {"name": "one", "epochs": 1, "learning_rate": 0.01, "optimizer": "sgd"}
    stage = Stage.model_validate(raw | {"trainable": {"from_layer": first}})
    cut = find_cut([stage], 0, backbone)
    features, parts = images, 0.0
    if cut.tensor is not None:
        features = Prefix(network, cut)(images)
        behind = rewrite(keras.Model(cut.tensor, backbone.output), "inference")
        parts = distance(behind.predict_on_batch(features), expected)
    before = values(network.variables)
    program = compile_stage(stage, 1, network, cut)
    assign(network.variables, before)  # to trace it trains on nothing
    set_trainable(network, stage)
    figures = program.loop.train(ReadySource(features, np.arange(IMAGES)), np.arange(IMAGES), IMAGES)
    changed = {
        id(variable)
        for variable, value in zip(network.variables, before, strict=True)
        if not np.array_equal(variable.numpy(), value)
    }
    trained = {id(each) for each in (*backbone.trainable_variables, *network.head.trainable_variables)}
    if not np.isfinite(figures.loss) or changed - trained:
        raise RuntimeError(f"loss {figures.loss}, {len(changed - trained)} frozen variables moved")
    return (
        parts,
        cut.layer or cut.reason,
        f"an update moves {len(changed)} of {len(trained)} trained, 0 frozen",
    )


def public_module(name: str) -> ModuleType:
    """The module of ``keras.applications`` that has the backbone and its ``preprocess_input``."""
    module: ModuleType = getattr(
        keras.applications, getattr(keras.applications, name).__module__.rpartition(".")[2]
    )
    return module


def scaling_of(name: str, spec: ModelSpec, data: TrainingData) -> str:
    """What the default scaling makes of bytes, held against Keras' own for the backbone."""
    ramp = np.stack([np.arange(256.0)] * 3, axis=-1).reshape(1, 16, 16, 3).astype(np.float32)
    found = make_scaling(spec, data).apply(ramp.copy())
    np.testing.assert_array_equal(found, public_module(name).preprocess_input(ramp.copy()))
    kinds = {
        "bytes": ramp,
        "[-1, 1]": ramp / 127.5 - 1,
        "BGR less mean": ramp - np.array([103.939, 116.779, 123.68]),
        "less mean, by deviation": (ramp / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    }
    return next(kind for kind, wanted in kinds.items() if np.allclose(found, wanted, atol=1e-3))


@contextmanager
def default_sizes() -> Iterator[list[int]]:
    """The size that a backbone says it has by default, while it is built."""
    own, told = imagenet_utils.obtain_input_shape, []

    def listening(*args: object, default_size: int, **more: object) -> object:
        told.append(default_size)
        return own(*args, default_size=default_size, **more)

    imagenet_utils.obtain_input_shape = listening
    try:
        yield told
    finally:
        imagenet_utils.obtain_input_shape = own


def main() -> None:
    """Says a line for each backbone; those that fail say why, and the exit code is 1 then."""
    if len(sys.argv) == 2:
        sys.stdout.write(f"{tried(sys.argv[1])}\n")
        return
    functions = [name for name, value in vars(keras.applications).items() if inspect.isfunction(value)]
    failed = False
    for name in sys.argv[1:] or functions:
        ended = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=False)
        last = (ended.stdout or ended.stderr).strip().splitlines()[-1:]
        failed = failed or ended.returncode != 0
        sys.stdout.write(
            (last[0] if ended.returncode == 0 else f"{name:18} FAILED {ended.returncode}: {last}") + "\n"
        )
        sys.stdout.flush()
    sys.exit(failed)


if __name__ == "__main__":
    main()
