"""Which examples train and which validate: as the source gives them, or by a stratified split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchscope.data.dataset import Dataset
from batchscope.data.problems import first_ten
from batchscope.errors import DataError
from batchscope.spec import Study

__all__ = ["Split", "selection_of", "split_dataset", "split_of", "stratified_subset"]


@dataclass(frozen=True, eq=False)
class Split:
    """Which examples train and which validate.

    Attributes:
        training: Indices into the dataset, int64, in shuffled order.
        validation: Likewise, disjoint from `training`; together they are all the examples.
    """

    training: NDArray[np.int64]
    validation: NDArray[np.int64]


def split_of(dataset: Dataset, validation_share: float, split_seed: int) -> Split:
    """Splits a dataset, or takes the split that its source gives.

    A given part is shuffled too, for a source may have one class after the other, and the last
    short batch of the validation part may be left out.

    Args:
        dataset: The examples.
        validation_share: As for `split_dataset`; without effect where the split is given.
        split_seed: Seed of the split, or of the order of given parts.

    Raises:
        DataError: As from `split_dataset`.
    """
    if not dataset.given:
        return split_dataset(dataset.labels, validation_share, split_seed)
    random = np.random.default_rng(split_seed)
    first = len(dataset) - dataset.given
    return Split(random.permutation(first), first + random.permutation(dataset.given))


def split_dataset(
    labels: Sequence[int] | NDArray[np.int64], validation_share: float, split_seed: int
) -> Split:
    """Splits examples so that both parts have the same share of each class.

    It is scikit-learn's ``train_test_split``, which the 2019 study used, and keeps the order that
    it gives: the order in which examples stand before an epoch's own shuffling.

    Args:
        labels: Class of each example, whole numbers of shape (n,).
        validation_share: Share held back for validation, above 0 and below 1.
        split_seed: Seed of the shuffling, 0 to 2**32 - 1.

    Raises:
        DataError: A class has too few examples to be in both parts.
    """
    from sklearn.model_selection import train_test_split

    labels = np.asarray(labels, dtype=np.int64)
    indices = np.arange(len(labels))
    try:
        training, validation = train_test_split(
            indices, test_size=validation_share, random_state=split_seed, stratify=labels
        )
    except ValueError as error:
        raise DataError(_too_small(labels, validation_share)) from error
    split = Split(training.astype(np.int64), validation.astype(np.int64))
    everything = set(np.unique(labels))
    if any(set(np.unique(labels[part])) != everything for part in (split.training, split.validation)):
        raise DataError(_too_small(labels, validation_share))
    return split


def selection_of(study: Study, labels: NDArray[np.int64], validation: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the validation examples by which a learning rate is chosen, and which validate nothing else.

    Args:
        study: Says how much of the validation part, and gives the seed of the stratified choice.
        labels: Class of each example of the dataset.
        validation: Rows of the validation part.

    Returns:
        Rows in ascending order, none without a grid of learning rates, nor where it is chosen by updates to
        the target at which trials end; the rest of `validation` is what validates.

    Raises:
        DataError: A class has too few images to be in both.
    """
    if study.grid is None or study.goal is not None:
        return np.array([], dtype=np.int64)
    from sklearn.model_selection import train_test_split

    share, seed = study.data.selection_share, study.data.split_seed
    try:
        chosen, rest = train_test_split(
            validation, train_size=share, random_state=seed, stratify=labels[validation]
        )
    except ValueError as error:
        raise DataError(_too_few_to_select(labels[validation], share)) from error
    everything = set(labels[validation])
    if any(set(labels[part]) != everything for part in (chosen, rest)):
        raise DataError(_too_few_to_select(labels[validation], share))
    return np.sort(chosen)


def stratified_subset(labels: NDArray[np.int64], limit: int, split_seed: int) -> NDArray[np.int64]:
    """Chooses examples so that each class keeps its share, as near as whole numbers allow.

    Args:
        labels: Class of each example, int64 of shape (n,).
        limit: How many to choose.
        split_seed: Seed of the choice, 0 to 2**32 - 1.

    Returns:
        Indices in ascending order, int64 of shape (limit,).

    Raises:
        DataError: There are fewer examples than that.
    """
    if limit > len(labels):
        raise DataError(
            f"the limit must not exceed the number of examples, but got limit = {limit:,} of {len(labels):,} "
            "examples; lower it or leave it out"
        )
    from sklearn.utils import resample

    indices = np.arange(len(labels), dtype=np.int64)
    chosen = resample(indices, replace=False, n_samples=limit, random_state=split_seed, stratify=labels)
    return np.sort(chosen)


def _too_small(labels: NDArray[np.int64], validation_share: float) -> str:
    return (
        "each class must be in the training and in the validation part, but with validation_share = "
        f"{validation_share} some class has too few examples (examples per class {_counts(labels)}); "
        "add examples, raise the limit or change the share"
    )


def _too_few_to_select(labels: NDArray[np.int64], share: float) -> str:
    return (
        "with a grid of learning rates each class must be among the validation examples that choose and "
        f"among those that validate, but with selection_share = {share} some class has too few (validation "
        f"examples per class {_counts(labels)}); add examples, or change selection_share or validation_share"
    )


def _counts(labels: NDArray[np.int64]) -> str:
    """Examples of each class, those of the smallest first."""
    found = zip(*np.unique(labels, return_counts=True), strict=True)
    fewest = sorted(found, key=lambda pair: int(pair[1]))
    return first_ten([f"{label}: {count:,}" for label, count in fewest]) or "none"
