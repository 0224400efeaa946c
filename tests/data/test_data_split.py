"""Splits and subsets, against scikit-learn and counting."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from batchscope.data import split_dataset
from batchscope.data.split import stratified_subset
from batchscope.errors import DataError

LABELS = (np.random.default_rng(3).random(17_500) < 0.75).astype(np.int64)


def test_split_is_that_of_2019() -> None:
    split = split_dataset(LABELS, 0.2, 2019)
    training, validation = train_test_split(
        np.arange(17_500), test_size=0.2, random_state=2019, stratify=LABELS
    )
    assert (len(split.training), len(split.validation)) == (14_000, 3_500)
    np.testing.assert_array_equal(split.training, training)
    np.testing.assert_array_equal(split.validation, validation)
    assert split.training.dtype == split.validation.dtype == np.int64


def test_split_is_stratified_and_complete() -> None:
    split = split_dataset(LABELS, 0.3, 1)
    everything = np.concatenate([split.training, split.validation])
    np.testing.assert_array_equal(np.sort(everything), np.arange(17_500))
    assert LABELS[split.validation].sum() == pytest.approx(0.3 * LABELS.sum(), abs=1)


def test_split_follows_its_seed() -> None:
    first, again, other = (split_dataset(LABELS, 0.2, seed).validation for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert len(np.intersect1d(first, other)) < 1_000


@pytest.mark.parametrize(
    ("labels", "share"),
    [
        ([0] * 50 + [1], 0.2),
        ([0] * 500 + [1] * 2, 0.2),
        ([0] * 5 + [1] * 5, 0.01),
        ([0] * 5 + [1] * 5, 0.99),
        ([0, 1], 0.5),
        ([], 0.2),
    ],
)
def test_too_few_examples_of_a_class_are_refused(labels: list[int], share: float) -> None:
    with pytest.raises(DataError, match=r"each class must be in the training and in the validation part"):
        split_dataset(labels, share, 0)


@pytest.mark.parametrize("limit", [10, 1_000, 2_500, 17_499, 17_500])
def test_subset_keeps_shares_and_order(limit: int) -> None:
    chosen = stratified_subset(LABELS, limit, 2019)
    assert len(chosen) == limit
    assert (np.diff(chosen) > 0).all()
    assert LABELS[chosen].sum() == pytest.approx(limit * LABELS.mean(), abs=1)


def test_subset_follows_its_seed() -> None:
    first, again, other = (stratified_subset(LABELS, 100, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_limit_above_the_number_of_examples_is_refused() -> None:
    with pytest.raises(DataError, match=r"limit = 17,501 of 17,500 examples"):
        stratified_subset(LABELS, 17_501, 0)
