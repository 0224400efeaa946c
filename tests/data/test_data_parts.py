"""A training and a validation part that the source brings, many classes, and `data.validation`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from array_samples import grey, load, refusal
from batchscope.data import load_dataset, split_dataset, split_of
from batchscope.errors import DataError
from batchscope.spec import DataSpec
from image_samples import coloured, encoded, some_images, write_kaggle

CLASSES = ("cat", "dog", "owl")


def write_part(
    folder: Path, first: int, each: int, classes: tuple[str, ...] = CLASSES, size: int = 8
) -> None:
    """Class folders whose images are told apart by their seeds, counted from `first`."""
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for place in range(each):
            content = encoded(coloured(first + number * each + place, size, size))
            (folder / name / f"{place:02}.png").write_bytes(content)


def pixels(first: int, count: int) -> np.ndarray:
    return np.stack([coloured(first + place) for place in range(count)])


@pytest.mark.parametrize(("train", "val"), [("train", "val"), ("Training", "valid"), ("train", "validation")])
def test_part_folders(tmp_path: Path, train: str, val: str) -> None:
    write_part(tmp_path / train, 0, 4)
    write_part(tmp_path / val, 100, 2)
    dataset = load(tmp_path)
    np.testing.assert_array_equal(dataset.inputs, np.concatenate([pixels(0, 12), pixels(100, 6)]))
    assert dataset.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [0, 0, 1, 1, 2, 2]
    assert (dataset.classes, dataset.given, dataset.notes) == (CLASSES, 6, ())
    assert (dataset.ids[0], dataset.ids[-1]) == (f"{train}/cat/00.png", f"{val}/owl/01.png")


def test_a_test_folder_validates_only_where_there_is_no_other(tmp_path: Path) -> None:
    write_part(tmp_path / "train", 0, 4)
    write_part(tmp_path / "test", 50, 1)
    alone = load(tmp_path)
    np.testing.assert_array_equal(alone.inputs[12:], pixels(50, 3))
    assert "its test part is used for validation" in alone.notes[0]
    write_part(tmp_path / "val", 100, 2)
    both = load(tmp_path)
    np.testing.assert_array_equal(both.inputs[12:], pixels(100, 6))
    assert both.notes == (f"The test part of {tmp_path} is left alone.",)


def test_the_split_is_the_given_one_in_another_order(tmp_path: Path) -> None:
    write_part(tmp_path / "train", 0, 10)
    write_part(tmp_path / "val", 100, 5)
    dataset = load(tmp_path, validation_share=0.4)
    split, again, other = (split_of(dataset, 0.4, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(np.sort(split.training), np.arange(30))
    np.testing.assert_array_equal(np.sort(split.validation), np.arange(30, 45))
    np.testing.assert_array_equal(split.validation, again.validation)
    assert not np.array_equal(split.validation, other.validation)
    assert not np.array_equal(split.training, np.sort(split.training))
    assert dataset.notes == ("validation_share = 0.4 has no effect: the validation part is given.",)


def test_without_a_given_part_the_split_is_drawn(tmp_path: Path) -> None:
    write_part(tmp_path, 0, 10)
    dataset = load(tmp_path)
    for drawn, expected in zip(
        vars(split_of(dataset, 0.3, 5)).values(),
        vars(split_dataset(dataset.labels, 0.3, 5)).values(),
        strict=True,
    ):
        np.testing.assert_array_equal(drawn, expected)


def test_a_limit_is_one_of_the_training_part(tmp_path: Path) -> None:
    write_part(tmp_path / "train", 0, 10)
    write_part(tmp_path / "val", 100, 2)
    dataset = load(tmp_path, limit=12)
    assert (len(dataset), dataset.given) == (18, 6)
    assert dataset.class_counts(np.arange(12)) == (4, 4, 4)
    np.testing.assert_array_equal(dataset.inputs[12:], pixels(100, 6))
    with pytest.raises(DataError, match="limit = 31 of 30 examples"):
        load(tmp_path, limit=31)


def test_bad_images_of_both_parts_are_named_by_their_part(tmp_path: Path) -> None:
    write_part(tmp_path / "train", 0, 3)
    write_part(tmp_path / "val", 100, 2)
    for bad in ("train/cat/01.png", "val/owl/00.png", "val/loose.png", "above.png"):
        (tmp_path / bad).write_bytes(b"no image")
    told = refusal(tmp_path)
    names = ["train/above.png", "val/loose.png", "train/cat/01.png", "val/owl/00.png"]
    assert [line.split(": ")[0].strip() for line in told.splitlines()[1:]] == names
    dataset = load(tmp_path, skip_bad_images=True)
    assert (len(dataset), dataset.given, [bad.id for bad in dataset.skipped]) == (13, 5, names)


@pytest.mark.parametrize("damaged", ["train/owl", "val"])
def test_a_part_without_usable_images_is_refused(tmp_path: Path, damaged: str) -> None:
    write_part(tmp_path / "train", 0, 2)
    write_part(tmp_path / "val", 100, 1)
    for path in (tmp_path / damaged).rglob("*.png"):
        path.write_bytes(b"")
    rule = {"train/owl": "none is of class owl", "val": "the validation part must have an example"}[damaged]
    assert rule in refusal(tmp_path, skip_bad_images=True)


def test_classes_of_the_parts_are_matched_by_name(tmp_path: Path) -> None:
    write_part(tmp_path / "train", 0, 2)
    write_part(tmp_path / "val", 100, 1, classes=("dog", "owl"))
    dataset = load(tmp_path)
    assert dataset.labels[-2:].tolist() == [1, 2]
    assert dataset.notes == (f"The val part of {tmp_path} has no example of class cat.",)
    (tmp_path / "val" / "yak").mkdir()
    (tmp_path / "val" / "yak" / "1.png").write_bytes(encoded(coloured(1)))
    assert "each class of the val part must be in the train part, but yak is not" in refusal(tmp_path)


def test_parts_of_different_sizes_are_brought_to_one(tmp_path: Path) -> None:
    write_part(tmp_path / "train", 0, 2)
    write_part(tmp_path / "val", 100, 2, size=16)
    dataset = load(tmp_path)
    assert dataset.inputs.shape == (12, 32, 32, 3)
    assert set(dataset.sizes) == {(8, 8, 6), (16, 16, 6)}
    np.testing.assert_array_equal(dataset.inputs[0], coloured(0).repeat(4, axis=0).repeat(4, axis=1))
    np.testing.assert_array_equal(
        dataset.inputs[6], coloured(100, 16, 16).repeat(2, axis=0).repeat(2, axis=1)
    )


def test_images_stay_as_they_are_where_no_size_is_given(tmp_path: Path) -> None:
    write_part(tmp_path / "train", 0, 2, size=64)
    write_part(tmp_path / "val", 100, 2, size=64)
    dataset = load_dataset(DataSpec(source=str(tmp_path)), None, "nearest")
    np.testing.assert_array_equal(dataset.inputs[7], coloured(101, 64, 64))
    write_part(tmp_path / "mixed" / "train", 0, 2)
    write_part(tmp_path / "mixed" / "val", 100, 1, size=16)
    np.savez(
        tmp_path / "a.npz", x_train=grey(6), y_train=np.arange(6) % 3, x_val=grey(3, width=9), y_val=[0, 1, 2]
    )
    for source, told in (
        ("mixed", r"8 x 8 px \(6\), 16 x 16 px \(3\)"),
        ("a.npz", r"8 x 8 px \(6\), 9 x 8 px \(3\)"),
    ):
        with pytest.raises(
            DataError, match=f"{source}: images must have one size where .* have 2: {told}; set"
        ):
            load_dataset(DataSpec(source=str(tmp_path / source)), None, "nearest")


def test_another_source_for_validation(tmp_path: Path) -> None:
    write_part(tmp_path / "mine", 0, 3)
    write_part(tmp_path / "more", 100, 2)
    dataset = load(tmp_path / "mine", validation=str(tmp_path / "more"))
    np.testing.assert_array_equal(dataset.inputs, np.concatenate([pixels(0, 9), pixels(100, 6)]))
    assert (dataset.given, dataset.ids[-1]) == (6, "validation/owl/01.png")


def test_kaggle_tables_validate_each_other(tmp_path: Path) -> None:
    """Both archives are read, and ids may be the same."""
    write_kaggle(tmp_path / "a", some_images(12))
    write_kaggle(tmp_path / "b", some_images(8))
    dataset = load(tmp_path / "a", validation=str(tmp_path / "b"))
    np.testing.assert_array_equal(dataset.inputs, np.concatenate([pixels(0, 12), pixels(0, 8)]))
    assert dataset.given == 8


def test_two_sets_for_validation_are_refused(tmp_path: Path) -> None:
    for place in ("a", "b"):
        write_part(tmp_path / place / "train", 0, 2)
        write_part(tmp_path / place / "val", 100, 1)
    told = refusal(tmp_path / "a", validation=str(tmp_path / "b"))
    assert "brings its own validation part, so data.validation must be left out" in told
    write_part(tmp_path / "c", 0, 2)
    with pytest.raises(DataError, match=r"b: data.validation must hold one set .* the parts train and val"):
        load(tmp_path / "c", validation=str(tmp_path / "b"))


def test_files_and_arrays_do_not_mix(tmp_path: Path) -> None:
    write_part(tmp_path / "mine", 0, 2)
    np.savez(tmp_path / "a.npz", x=grey(6), y=np.arange(6) % 3)
    with pytest.raises(DataError, match=r"a\.npz: .* must both be image files, or both arrays or tables"):
        load(tmp_path / "mine", validation=str(tmp_path / "a.npz"))


@pytest.mark.parametrize("count", [3, 100, 1_000])
def test_any_number_of_classes(tmp_path: Path, count: int) -> None:
    picture = encoded(coloured(1))
    for number in range(count):
        (tmp_path / f"c{number:04}").mkdir()
        for place in range(2):
            (tmp_path / f"c{number:04}" / f"{place}.png").write_bytes(picture)
    dataset = load(tmp_path)
    np.testing.assert_array_equal(dataset.labels, np.arange(count).repeat(2))
    assert dataset.classes == tuple(f"c{number:04}" for number in range(count))
    split = split_of(dataset, 0.5, 0)
    assert dataset.class_counts(split.training) == dataset.class_counts(split.validation) == (1,) * count
    told = refusal_of_split(dataset.labels)
    assert len(told) < 400
    assert told.count(": 2") == min(count, 10)


def refusal_of_split(labels: np.ndarray) -> str:
    with pytest.raises(
        DataError, match="each class must be in the training and in the validation part"
    ) as caught:
        split_dataset(labels, 0.01, 0)
    return str(caught.value)
