"""What a dataset is, in figures, for people who look at it before they train on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from batchscope.data.dataset import Dataset
from batchscope.data.loading import load_dataset
from batchscope.data.split import Split, split_of
from batchscope.spec import DataSpec, ModelSpec

__all__ = ["Description", "FeatureSummary", "describe", "load_and_split"]


@dataclass(frozen=True)
class FeatureSummary:
    """One column of a table, over all examples.

    Attributes:
        name: Of the column; its number, from 0 on, where it has none.
        least: Smallest value.
        mean: Arithmetic mean, summed in float64.
        most: Largest value.
    """

    name: str
    least: float
    mean: float
    most: float

    @property
    def is_constant(self) -> bool:
        """Whether all values are the same, so that nothing can be learnt from them."""
        return self.least == self.most


@dataclass(frozen=True)
class Description:
    """A dataset in figures.

    Attributes:
        source: Where the examples came from.
        classes: Names of the classes.
        training: Training examples of each class.
        validation: Validation examples of each class.
        is_given: Whether the source gives the validation part; else it is drawn.
        shape: Of one example as it is kept in memory, ``(height, width, colours)`` or ``(features,)``.
        dtype: Of the inputs.
        least: Smallest value of the inputs.
        most: Largest.
        sizes: As in `Dataset.sizes`.
        features: Columns of a table; empty for images.
        ids: Those of the first examples, at most 3.
        skipped: (id, reason) of images that cannot be used.
        notes: As in `Dataset.notes`.
        fingerprint: As from `Dataset.fingerprint`.
    """

    source: str
    classes: tuple[str, ...]
    training: tuple[int, ...]
    validation: tuple[int, ...]
    is_given: bool
    shape: tuple[int, ...]
    dtype: str
    least: float
    most: float
    sizes: tuple[tuple[int, int, int], ...]
    features: tuple[FeatureSummary, ...]
    ids: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    fingerprint: str


def load_and_split(spec: DataSpec) -> tuple[Dataset, Split]:
    """Loads data as a study with the default model would, but for bad images, which are left out.

    Args:
        spec: The data.

    Raises:
        DataError: As from `load_dataset` and `split_of`.
    """
    model = ModelSpec()
    lenient = spec.model_copy(update={"skip_bad_images": True})
    dataset = load_dataset(lenient, model.image_size, model.interpolation)
    return dataset, split_of(dataset, spec.validation_share, spec.split_seed)


def describe(dataset: Dataset, split: Split) -> Description:
    """Counts a dataset's examples and measures its inputs."""
    return Description(
        source=dataset.source,
        classes=dataset.classes,
        training=dataset.class_counts(split.training),
        validation=dataset.class_counts(split.validation),
        is_given=dataset.given > 0,
        shape=dataset.inputs.shape[1:],
        dtype=str(dataset.inputs.dtype),
        least=float(dataset.inputs.min()),
        most=float(dataset.inputs.max()),
        sizes=dataset.sizes,
        features=_feature_summaries(dataset),
        ids=dataset.ids[:3],
        skipped=tuple((bad.id, bad.reason) for bad in dataset.skipped),
        notes=dataset.notes,
        fingerprint=dataset.fingerprint(),
    )


def _feature_summaries(dataset: Dataset) -> tuple[FeatureSummary, ...]:
    if dataset.inputs.ndim != 2:
        return ()
    names = dataset.features or tuple(str(place) for place in range(dataset.inputs.shape[1]))
    least, most = dataset.inputs.min(axis=0), dataset.inputs.max(axis=0)
    means = dataset.inputs.mean(axis=0, dtype=np.float64)
    return tuple(
        FeatureSummary(name, float(low), float(mean), float(high))
        for name, low, mean, high in zip(names, least, means, most, strict=True)
    )
