"""What all contenders are given: the same images and split, the same protocol."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchscope.data import generate_cacti, load_dataset, split_dataset, write_kaggle_layout
from batchscope.spec import Augmentation as Ranges
from batchscope.spec import DataSpec, FromLayer, Stage, Study
from batchscope.studies import load_study
from protocol import Augmentation, Protocol, StagePlan

__all__ = ["keras_study", "prepare_images", "protocol_of", "reduced"]

_SEED = 2019


def keras_study(name: str, changes: Iterable[tuple[str, Any]] = ()) -> Study:
    """A study that Keras trains, as the built-in ones are."""
    study = load_study(name, changes)
    if not isinstance(study, Study):
        raise TypeError(f"{name} must be a study that Keras trains")
    return study


def reduced(study: str, images: int, epochs: int) -> Study:
    """A built-in study made small: its probes look at as small a share of the training images.

    Args:
        study: Its name; one replicate of all its batch sizes is kept.
        images: Training and validation together.
        epochs: Of each stage.
    """
    full = keras_study(study)
    training = round(images * (1 - full.data.validation_share))
    whole = round(full.data.images * (1 - full.data.validation_share))
    probed = -(-full.probe_images * training // whole)
    if any(stage.batchnorm == "batch" for stage in full.stages):
        probed = max(probed, *full.batch_sizes)  # a study refuses less
    changes = [(f"stages.{stage.name}.epochs", epochs) for stage in full.stages]
    return keras_study(study, [("replicates", 1), ("probe_images", probed), *changes])


def protocol_of(study: Study) -> Protocol:
    """What the plain scripts are told of a study.

    Raises:
        ValueError: The study does what the plain scripts do not.
    """
    modes = {stage.batchnorm for stage in study.stages}
    scalings = {"symmetric": True, "unit": False}
    boundaries = {s.trainable.from_layer for s in study.stages if isinstance(s.trainable, FromLayer)}
    size, scaling = study.model.image_size, study.model.input_scaling
    supported = (
        study.model.backbone == "MobileNetV2"
        and study.model.interpolation == "nearest"
        and scaling in scalings
        and len(modes) == 1
        and len(boundaries) == 1
        and all(s.optimizer == "rmsprop" and s.epochs and s.trainable != "all" for s in study.stages)
        and all(isinstance(s.learning_rate, float) for s in study.stages)
    )
    if not supported or size is None or scaling is None:
        raise ValueError(f"the plain scripts carry out studies like aerial-cactus, but not {study.name}")
    return Protocol(
        name=study.name,
        size=size,
        to_minus_one=scalings[scaling],
        batch_statistics=modes == {"batch"},
        drop=study.last_batch == "drop",
        first_trained=str(*boundaries),
        batch_sizes=tuple(study.batch_sizes),
        replicates=study.replicates,
        stages=tuple(_stage_plan(stage) for stage in study.stages),
    )


def _stage_plan(stage: Stage) -> StagePlan:
    return StagePlan(
        name=stage.name,
        epochs=stage.epochs or 0,
        learning_rate=stage.learning_rate if isinstance(stage.learning_rate, float) else math.nan,
        fine_tuning=stage.trainable != "head",
        augmentation=None if stage.augmentation is None else _ranges(stage.augmentation),
    )


def _ranges(ranges: Ranges) -> Augmentation:
    raw = ranges.model_dump()
    return Augmentation(**raw | {"zoom": tuple(raw["zoom"])})


def prepare_images(folder: Path, images: int, study: Study) -> tuple[int, int]:
    """Writes generated images as files for batchscope (`folder/data`) and as arrays for the others.

    The arrays hold the split that batchscope makes, in its order.

    Returns:
        Number of training and of validation images.
    """
    data = folder / "data"
    write_kaggle_layout(generate_cacti(images, _SEED), data)
    dataset = load_dataset(DataSpec(source=str(data)), study.model.image_size, study.model.interpolation)
    split = split_dataset(dataset.labels, study.data.validation_share, study.data.split_seed)
    parts = {"training": split.training, "validation": split.validation}
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, rows in parts.items():
        arrays |= {f"{name}_images": dataset.inputs[rows], f"{name}_labels": dataset.labels[rows]}
    np.savez(folder / "images.npz", **arrays)  # type: ignore[arg-type]  # savez also takes allow_pickle
    return len(split.training), len(split.validation)
