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


def tiny_data(classes: int = 2, size: int = 16) -> TrainingData:
    """Noise whose brightness tells the class."""
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=IMAGES)
    noise = rng.integers(0, 128, (IMAGES, size, size, 3))
    images = (noise + 100 * labels[:, None, None, None] // (classes - 1)).astype(np.uint8)
    rows = rng.permutation(IMAGES)
    return TrainingData(
        inputs=images,
        labels=labels.astype(np.int64),
        split=Split(training=rows[:TRAINING], validation=rows[TRAINING:]),
        classes=tuple(f"class {index}" for index in range(classes)),
    )
