"""From a study's data to a dataset, for each layout, and what is refused on the way."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from batchscope.data import BadImage, Dataset, load_dataset, split_dataset
from batchscope.errors import DataError
from batchscope.spec import DataSpec
from image_samples import coloured, encoded, some_images, write_kaggle, write_table, write_zip

LABELS = [int(place % 4 != 0) for place in range(20)]


def load(source: Path | str, **settings: object) -> Dataset:
    return load_dataset(DataSpec(source=str(source), **settings), 32, "nearest")


def write_folders(root: Path, **classes: int) -> Path:
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for file, content in some_images(count).items():
            (root / name / file).write_bytes(content)
    return root


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    return write_kaggle(tmp_path / "kaggle", some_images(20))


@pytest.mark.parametrize("form", ["zip", "folder", "nested folder", "nested zip", "flat zip", "named table"])
def test_kaggle_layout(kaggle: Path, form: str) -> None:
    source, archive = kaggle, kaggle / "train.zip"
    if form in ("folder", "nested folder"):
        zipfile.ZipFile(archive).extractall(kaggle if form == "folder" else kaggle / "train")
        archive.unlink()
    elif form in ("nested zip", "flat zip"):
        prefix = "" if form == "flat zip" else "train/train/"
        write_zip(archive, {f"{prefix}{name}": content for name, content in some_images(20).items()})
    elif form == "named table":
        source = (kaggle / "train.csv").rename(kaggle / "labels.csv")
    dataset = load(source)
    assert dataset.ids == tuple(f"{place:04d}.png" for place in range(20))
    assert dataset.labels.tolist() == LABELS
    assert dataset.classes == ("0", "1")
    assert dataset.source == str(source)
    assert dataset.skipped == ()
    np.testing.assert_array_equal(dataset.inputs, np.stack([coloured(place) for place in range(20)]))


def test_the_order_is_that_of_the_table(tmp_path: Path) -> None:
    images = some_images(6)
    rows = [(name, str(place % 2)) for place, name in enumerate(reversed(images))]
    dataset = load(write_kaggle(tmp_path, images, rows))
    assert dataset.ids == tuple(reversed(images))
    np.testing.assert_array_equal(dataset.inputs[0], coloured(5))


def test_unzipped_competition_with_its_test_folder(kaggle: Path) -> None:
    (kaggle / "test").mkdir()
    (kaggle / "sample_submission.csv").write_text("id,has_cactus\n")
    assert len(load(kaggle)) == 20


def test_class_folders(tmp_path: Path) -> None:
    root = write_folders(tmp_path, stone=3, cactus=4, bush=2)
    (root / "README.txt").write_text("About")
    (root / ".git").mkdir()
    (root / "bush" / ".DS_Store").write_bytes(b"x")
    dataset = load(root)
    assert dataset.classes == ("bush", "cactus", "stone")
    assert dataset.labels.tolist() == [0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert dataset.ids[1:3] == ("bush/0001.png", "cactus/0000.png")
    np.testing.assert_array_equal(dataset.inputs[5], coloured(3))


def test_a_wrong_extension_does_not_matter(tmp_path: Path) -> None:
    root = write_folders(tmp_path, a=3, b=3)
    (root / "a" / "photo.jpg").write_bytes(encoded(coloured(50)))
    np.testing.assert_array_equal(load(root).inputs[3], coloured(50))


def test_fingerprint_is_of_the_content(kaggle: Path, tmp_path: Path) -> None:
    first = load(kaggle)
    moved = load(shutil.move(kaggle, tmp_path / "moved"))
    assert first.fingerprint() == moved.fingerprint()
    assert re.fullmatch(r"[0-9a-f]{64}", first.fingerprint())
    prints = {first.fingerprint()}
    for change in (
        {"inputs": first.inputs ^ np.uint8(np.arange(20).reshape(20, 1, 1, 1) == 19)},
        {"labels": 1 - first.labels},
        {"ids": (*first.ids[:-1], "other")},
        {"classes": ("no", "yes")},
        {"inputs": first.inputs.reshape(20, 4, 16, 3)},
    ):
        fields = {name: getattr(first, name) for name in first.__dataclass_fields__}
        prints.add(Dataset(**{**fields, **change}).fingerprint())
    assert len(prints) == 6


def spoil(kaggle: Path) -> None:
    """One id without its image, one image without an id, one damaged, one of several frames."""
    images = some_images(20)
    images["0003.png"] = images["0003.png"][:-30]
    images["0005.png"] = b""
    del images["0008.png"]
    images["extra.png"] = encoded(coloured(1))
    write_zip(kaggle / "train.zip", {f"train/{name}": content for name, content in images.items()})


def test_bad_images_stop_with_all_their_names(kaggle: Path) -> None:
    spoil(kaggle)
    with pytest.raises(DataError) as caught:
        load(kaggle)
    first, *lines = str(caught.value).splitlines()
    assert first.startswith(f"{kaggle}: 4 images cannot be used")
    assert "--skip-bad-images" in first
    assert [line.strip().split(":")[0] for line in lines] == ["0008.png", "extra.png", "0003.png", "0005.png"]
    assert "has a label but no image in train.zip" in lines[0]
    assert "has an image but no label" in lines[1]


def test_bad_images_are_left_out_and_recorded_on_demand(kaggle: Path) -> None:
    spoil(kaggle)
    dataset = load(kaggle, skip_bad_images=True)
    kept = [place for place in range(20) if place not in (3, 5, 8)]
    assert dataset.ids == tuple(f"{place:04d}.png" for place in kept)
    assert dataset.labels.tolist() == [LABELS[place] for place in kept]
    np.testing.assert_array_equal(dataset.inputs, np.stack([coloured(place) for place in kept]))
    assert dataset.skipped[0] == BadImage("0008.png", "has a label but no image in train.zip")
    assert [bad.id for bad in dataset.skipped] == ["0008.png", "extra.png", "0003.png", "0005.png"]


def test_ten_bad_images_are_named_and_the_others_counted(tmp_path: Path) -> None:
    root = write_folders(tmp_path, a=3, b=3)
    for place in range(1_200):
        (root / "a" / f"x{place:04d}.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load(root)
    lines = str(caught.value).splitlines()
    assert "1,200 images cannot be used" in lines[0]
    assert len(lines) == 12
    assert lines[-1].strip() == "and 1,190 more"


@pytest.mark.parametrize("spoiled", [["a"], ["a", "b"]])
def test_a_class_without_a_usable_image_is_refused(tmp_path: Path, spoiled: list[str]) -> None:
    root = write_folders(tmp_path, a=2, b=2)
    for name in spoiled:
        for path in (root / name).iterdir():
            path.write_bytes(b"")
    with pytest.raises(DataError, match=f"none is of class {', '.join(spoiled)};") as caught:
        load(root, skip_bad_images=True)
    assert "a/0000.png: an image file must not be empty" in str(caught.value)


def test_a_wrong_table_stops_even_when_bad_images_are_skipped(kaggle: Path) -> None:
    write_table(kaggle / "train.csv", [("0000.png", "1"), ("0001.png", "maybe")])
    with pytest.raises(DataError, match="1 of 2 are words"):
        load(kaggle, skip_bad_images=True)


def test_limit_is_stratified_and_examines_only_the_chosen(tmp_path: Path) -> None:
    images = some_images(40)
    for place in range(0, 40, 4):
        images[f"{place:04d}.png"] = b"" if place > 12 else images[f"{place:04d}.png"]
    root = write_kaggle(tmp_path, images)
    for seed in range(200):
        try:
            dataset = load(root, limit=10, split_seed=seed)
        except DataError as error:
            assert "must not be empty" in str(error)  # noqa: PT017 - most seeds choose an empty file
            continue
        break
    assert len(dataset) == 10
    assert 2 <= 10 - dataset.labels.sum() <= 3
    assert list(dataset.ids) == sorted(dataset.ids)


def test_limit_beyond_the_images_is_refused(kaggle: Path) -> None:
    with pytest.raises(DataError, match="limit = 21 of 20 images"):
        load(kaggle, limit=21)
    assert len(load(kaggle, limit=20)) == 20


def test_images_without_an_id_are_told_whatever_the_limit(kaggle: Path) -> None:
    spoil(kaggle)
    with pytest.raises(DataError, match=r"extra.png: has an image but no label"):
        load(kaggle, limit=10)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "must hold train.csv with train.zip or train/, or a folder per class with images"),
        (["notes.txt"], "but holds notes.txt"),
        (["cat/1.png"], "at least two classes, but got cat"),
        (["cat/1.png", "dog/"], "each class must have images, but dog has none"),
        (["cat/1.png", "Cat/1.png"], "classes must differ in more than case"),
        (["train/cat/1.png", "test/cat/1.png"], "but test, train names a part of a dataset"),
        (["cat/1.png", "dog/1.png", "val/1.png"], "but val names a part of a dataset"),
        (["cat/a/1.png", "dog/1.png"], "must hold images and no folders, but there is cat/a"),
        (["cat/1.png", "dog/1.png", "loose.JPG"], "loose.JPG: lies beside the class folders"),
        (["train.csv"], "must lie beside it in train.zip or train/, but none is there"),
        (["train.csv", "train.zip", "train/1.png"], "but there are train.zip and train; keep the one to use"),
        (
            ["train.csv", "train.zip", "cat/1.png", "dog/1.png"],
            "must hold one layout, but holds train.csv and 2",
        ),
    ],
)
def test_what_fits_no_layout_or_several_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.mkdir() if name.endswith("/") else path.write_bytes(encoded(coloured(1)))
    with pytest.raises(DataError, match=re.escape(message)):
        load(tmp_path)


def test_other_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: must be a folder with .* but there is nothing"):
        load(tmp_path / "nowhere")
    (tmp_path / "photo.png").write_bytes(encoded(coloured(1)))
    with pytest.raises(DataError, match="but there is a file"):
        load(tmp_path / "photo.png")
    for name in ("~nobody-of-this-name/cacti", "x" * 5_000, "a\0b"):
        with pytest.raises(DataError):
            load(name)
    with pytest.raises(DataError, match=r"the study names no data: set data.source or --data"):
        load_dataset(DataSpec(), 32, "nearest")
    with pytest.raises(DataError, match="one of nearest, bilinear"):
        load_dataset(DataSpec(source=str(tmp_path)), 32, "cubic")


def test_the_folder_is_only_read(kaggle: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in kaggle.rglob("*")}
    load(kaggle)
    assert {path: path.stat().st_mtime_ns for path in kaggle.rglob("*")} == before


def test_real_photographs(project: Path) -> None:
    source = project.parent / "shared" / "data" / "vehicles"
    if not source.is_dir():
        pytest.skip("needs the folder vehicles")
    dataset = load_dataset(DataSpec(source=str(source)), 96, "nearest")
    assert dataset.inputs.shape == (17_500, 32, 32, 3)
    assert dataset.labels.sum() == 13_136
    split = split_dataset(dataset.labels, 0.2, 2019)
    assert (len(split.training), len(split.validation)) == (14_000, 3_500)
    assert dataset.labels[split.validation].sum() == 2_627


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": np.zeros((2, 8, 8), np.uint8)},
        {"inputs": np.zeros((2, 8, 8, 2), np.uint8)},
        {"inputs": np.zeros((3, 8, 8, 3), np.uint8)},
        {"inputs": np.zeros((2, 8, 8, 3), np.float32)},
        {"inputs": np.zeros((2, 8), np.float64)},
        {"inputs": np.zeros((2, 0), np.float32)},
        {"labels": np.zeros(2, np.int32)},
        {"labels": np.array([0, 2])},
        {"labels": np.array([-1, 0])},
        {"ids": ("a",)},
    ],
)
@pytest.mark.parametrize(
    "inputs",
    [np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 1), np.uint8), np.zeros((2, 5), np.float32)],
    ids=["colour", "grey", "features"],
)
def test_a_dataset_does_not_contradict_itself(inputs: np.ndarray, change: dict[str, object]) -> None:
    fields = {
        "inputs": inputs,
        "labels": np.array([0, 1]),
        "ids": ("a", "b"),
        "classes": ("0", "1"),
        "source": "here",
        "skipped": (),
    }
    assert len(Dataset(**fields)) == 2
    with pytest.raises(DataError):
        Dataset(**{**fields, **change})
