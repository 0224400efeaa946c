"""The generated desert views: the same for the same seed, balanced, and not to be had by cheap cues."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from batchscope.data import Dataset, desert, generate_cacti, load_dataset, write_kaggle_layout
from batchscope.data.shapes import Draws
from batchscope.data.synthetic import draw_cacti, synthetic_labels
from batchscope.errors import DataError
from batchscope.spec import DataSpec


@pytest.fixture(scope="module")
def views() -> Dataset:
    return generate_cacti(2_500, 7)


def test_shape_and_balance(views: Dataset) -> None:
    assert views.inputs.shape == (2_500, 32, 32, 3)
    assert views.classes == ("0", "1")
    assert views.labels.sum() == 1_875
    assert (views.labels.reshape(-1, 4).sum(axis=1) == 3).all()
    assert len(set(views.ids)) == 2_500


@pytest.mark.parametrize("count", [1, 31, 32, 33, 100])
def test_an_image_does_not_depend_on_the_count(views: Dataset, count: int) -> None:
    few = generate_cacti(count, 7)
    np.testing.assert_array_equal(few.inputs, views.inputs[:count])
    np.testing.assert_array_equal(few.labels, views.labels[:count])
    assert few.ids == views.ids[:count]


def test_chosen_images_are_those_of_the_series(views: Dataset) -> None:
    numbers = np.array([3, 31, 32, 700, 2_499])
    chosen = draw_cacti(numbers, 7)
    np.testing.assert_array_equal(chosen.inputs, views.inputs[numbers])
    np.testing.assert_array_equal(chosen.labels, views.labels[numbers])


def test_seeds_and_images_differ(views: Dataset) -> None:
    other = generate_cacti(100, 8)
    assert not (other.inputs == views.inputs[:100]).all(axis=(1, 2, 3)).any()
    assert len({image.tobytes() for image in views.inputs}) == 2_500
    assert not np.array_equal(synthetic_labels(100, 8), views.labels[:100])


def test_a_cactus_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_else = lambda scene, *_: scene._draws.chance(0.0)  # noqa: E731
    monkeypatch.setattr(desert._Scene, "_presence", nothing_else)
    table = np.random.default_rng(0).random((256, desert.COLUMNS), np.float32)
    bare, grown = (
        desert.draw_desert(Draws(table), np.full(256, positive)).astype(int) for positive in (False, True)
    )
    changed = (np.abs(grown - bare).max(axis=3) > 20).sum(axis=(1, 2))
    assert changed.min() >= 10
    assert 30 < np.median(changed) < 120


def test_a_linear_model_on_pixels_does_not_solve_it(views: Dataset) -> None:
    """It stays at the majority's share, .75; a small convolutional network reaches .98."""
    pixels = views.inputs.reshape(2_500, -1) / 255
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=300))
    model.fit(pixels[:2_000], views.labels[:2_000])
    probability = model.predict_proba(pixels[2_000:])[:, 1]
    truth = views.labels[2_000:]
    assert 0.65 < ((probability > 0.5) == truth).mean() < 0.82
    assert roc_auc_score(truth, probability) < 0.8


def test_colours_alone_do_not_solve_it(views: Dataset) -> None:
    """Histograms of brightness and greenness, to a model that may be as crooked as it likes."""
    pixels = views.inputs.astype(float)
    brightness = pixels.mean(axis=3)
    channels = [
        brightness - brightness.mean(axis=(1, 2), keepdims=True),
        pixels[..., 1] - pixels[..., 0],
        pixels[..., 1] - pixels[..., 2],
    ]
    counts = [[np.histogram(image, 16, (-80, 80))[0] for image in channel] for channel in channels]
    features = np.concatenate(counts, axis=1)
    model = HistGradientBoostingClassifier(max_iter=50, random_state=0)
    model.fit(features[:2_000], views.labels[:2_000])
    probability = model.predict_proba(features[2_000:])[:, 1]
    truth = views.labels[2_000:]
    assert ((probability > 0.5) == truth).mean() < 0.85
    assert roc_auc_score(truth, probability) < 0.87


def test_a_study_gets_the_number_it_names() -> None:
    dataset = load_dataset(DataSpec(source="synthetic-cactus", images=50), 96, "nearest")
    np.testing.assert_array_equal(dataset.inputs, generate_cacti(50).inputs)
    assert dataset.source == "synthetic-cactus"


def test_a_limit_chooses_from_that_number() -> None:
    limited = load_dataset(DataSpec(source="synthetic-cactus", images=1_000, limit=40), 96, "nearest")
    assert limited.labels.sum() == 30
    numbers = [int(name[-10:-4]) for name in limited.ids]
    assert numbers == sorted(numbers)
    assert numbers[-1] > 500
    np.testing.assert_array_equal(limited.inputs, generate_cacti(1_000).inputs[numbers])
    with pytest.raises(DataError, match="limit = 60 of 50 images"):
        load_dataset(DataSpec(source="synthetic-cactus", images=50, limit=60), 96, "nearest")


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (-1, 0), (5, -1)])
def test_impossible_numbers_are_refused(count: int, seed: int) -> None:
    with pytest.raises(DataError, match=f"got count={count}, seed={seed}"):
        generate_cacti(count, seed)


def test_written_and_read_again(tmp_path: Path, views: Dataset) -> None:
    some = draw_cacti(np.arange(40), 7)
    write_kaggle_layout(some, tmp_path / "new" / "cacti")
    again = load_dataset(DataSpec(source=str(tmp_path / "new" / "cacti")), 96, "nearest")
    assert again.labels.sum() == some.labels.sum()
    assert again.ids == tuple(sorted(again.ids))
    assert all(re.fullmatch(r"[0-9a-f]{32}\.jpg", name) for name in again.ids)
    # Each picture comes back with its own label, changed by JPEG only.
    difference = np.abs(again.inputs[:, None].astype(int) - some.inputs[None]).mean(axis=(2, 3, 4))
    match = difference.argmin(axis=1)
    assert sorted(match) == list(range(40))
    np.testing.assert_array_equal(again.labels, some.labels[match])
    assert difference.min(axis=1).max() < 8


def test_written_files_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_kaggle_layout(generate_cacti(12, 3), tmp_path / name, "has_thing")
    for file in ("train.csv", "train.zip"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    with (tmp_path / "one" / "train.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["id", "has_thing"]
    assert len(rows) == 13
    with zipfile.ZipFile(tmp_path / "one" / "train.zip") as archive:
        assert archive.namelist() == [f"train/{name}" for name, _ in rows[1:]]
        assert Image.open(io.BytesIO(archive.read(archive.namelist()[0]))).format == "JPEG"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=r"must be a new or an empty folder, but it holds files"):
        write_kaggle_layout(generate_cacti(4), tmp_path)
    with pytest.raises(DataError, match="cannot be written"):
        write_kaggle_layout(generate_cacti(4), tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
