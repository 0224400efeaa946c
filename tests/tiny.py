"""Tiny studies that train in seconds."""

from __future__ import annotations

import numpy as np

from batchscope.data import Split, TrainingData
from batchscope.loading import parse_study
from batchscope.spec import Study

IMAGES, TRAINING = 60, 44
TAIL = {"from_layer": "conv_dw_12"}


def tiny_study(**changes: object) -> Study:
    """Two stages of MobileNet, the smallest backbone with BatchNorm, on 32 px images from random weights."""
    raw: dict[str, object] = {
        "name": "tiny",
        "batch_sizes": [8, 16],
        "replicates": 2,
        "seed": 7,
        "data": {"source": "nowhere"},
        "model": {
            "backbone": "MobileNet",
            "weights": "none",
            "image_size": 32,
            "input_scaling": "symmetric",
            "interpolation": "nearest",
        },
        "stages": [stage("head_stage", "head", epochs=2), stage("tail_stage", TAIL, epochs=2)],
    }
    return parse_study(raw | changes, "tiny")


def stage(name: str, trainable: object, *, epochs: int, **more: object) -> dict[str, object]:
    """A stage as a study file has it."""
    return {"name": name, "trainable": trainable, "epochs": epochs, "learning_rate": 1e-3, **more}


def tiny_data(classes: int = 2, size: int | tuple[int, int] = 16, channels: int = 3) -> TrainingData:
    """Noise whose brightness tells the class."""
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=IMAGES)
    shape = (size, size) if isinstance(size, int) else size
    noise = rng.integers(0, 128, (IMAGES, *shape, channels))
    images = (noise + 100 * labels[:, None, None, None] // (classes - 1)).astype(np.uint8)
    return _training_data(images, labels, classes, rng)


def tiny_table(classes: int = 2, features: int = 5) -> TrainingData:
    """Features of very different size and spread, of which one never varies; one tells the class."""
    rng = np.random.default_rng(1)
    labels = rng.integers(classes, size=IMAGES)
    table = rng.normal(size=(IMAGES, features)) * 10.0 ** np.arange(features) + 50
    table[:, 0] += 2 * labels
    table[:, 1] = 3.25
    return _training_data(table.astype(np.float32), labels, classes, rng)


def _training_data(
    inputs: np.ndarray, labels: np.ndarray, classes: int, rng: np.random.Generator
) -> TrainingData:
    rows = rng.permutation(IMAGES)
    return TrainingData(
        inputs=inputs,
        labels=labels.astype(np.int64),
        split=Split(training=rows[:TRAINING], validation=rows[TRAINING:]),
        classes=tuple(f"class {index}" for index in range(classes)),
    )
