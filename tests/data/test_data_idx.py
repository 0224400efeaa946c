"""IDX files: the bytes of their images, or what is wrong with them."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from array_samples import grey, idx_bytes, load, refusal, write_idx
from batchscope.data import split_of

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
IMAGES, LABELS = grey(12), np.arange(12) % 3 + 4
GZ = "train-images-idx3-ubyte.gz"


@pytest.mark.parametrize("packed", [True, False])
def test_images_and_labels_are_those_of_the_files(tmp_path: Path, packed: bool) -> None:
    write_idx(tmp_path, "train", IMAGES, LABELS, packed)
    dataset = load(tmp_path)
    np.testing.assert_array_equal(dataset.inputs, IMAGES[..., None])
    assert dataset.classes == ("4", "5", "6")
    np.testing.assert_array_equal(dataset.labels, LABELS - 4)
    assert (dataset.given, dataset.sizes, dataset.ids[:2]) == (0, ((8, 8, 12),), ("0", "1"))


def test_the_test_part_validates_where_there_is_no_other_and_says_so(tmp_path: Path) -> None:
    write_idx(tmp_path, "train", IMAGES, LABELS)
    write_idx(tmp_path, "t10k", grey(6, seed=1), LABELS[:6], packed=False)
    dataset = load(tmp_path)
    np.testing.assert_array_equal(dataset.inputs[12:], grey(6, seed=1)[..., None])
    assert (len(dataset), dataset.given, dataset.ids[12]) == (18, 6, "test/0")
    assert "its test part is used for validation" in dataset.notes[0]
    other = tmp_path / "other"
    write_idx(other, "t10k", grey(4, seed=2), LABELS[:4])
    chosen = load(tmp_path, validation=str(other))
    np.testing.assert_array_equal(chosen.inputs[12:], grey(4, seed=2)[..., None])
    assert chosen.notes == (f"The test part of {tmp_path} is left alone.",)


def test_larger_images_are_brought_to_the_size_of_the_network(tmp_path: Path) -> None:
    images = grey(4, height=64, width=48)
    write_idx(tmp_path, "train", images, np.array([0, 1, 0, 1]))
    dataset = load(tmp_path)
    assert (dataset.inputs.shape, dataset.sizes) == ((4, 32, 32, 1), ((64, 48, 4),))
    columns = ((np.arange(32) + 0.5) * 1.5).astype(int)  # the pixel in whose square the new centre lies
    np.testing.assert_array_equal(dataset.inputs[..., 0], images[:, 1::2][:, :, columns])


def claiming(*shape: int) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "must begin with 00 00 08 03 and 3 lengths, but begins with nothing", id="empty"),
        pytest.param(
            b"\x00\x00\x08\x03\x00\x00", "3 lengths, but begins with 00 00 08 03 00 00", id="cut header"
        ),
        pytest.param(
            idx_bytes(LABELS.astype(np.uint8)), "but begins with 00 00 08 01", id="labels for images"
        ),
        pytest.param(b"\x00\x00\x0d\x03" + bytes(12), "but begins with 00 00 0d 03", id="floats"),
        pytest.param(
            idx_bytes(IMAGES)[:-1], "by its header 768 bytes must follow, but there are 767", id="cut"
        ),
        pytest.param(idx_bytes(IMAGES) + b"x", "768 bytes must follow, but there are more", id="longer"),
        pytest.param(claiming(2**32 - 1, 2**32 - 1, 2**32 - 1), "must hold at most 1,073,741,824", id="huge"),
        pytest.param(claiming(2**20, 1, 1000), "by its header 1,048,576,000 bytes must follow", id="bomb"),
        pytest.param(
            claiming(0, 8, 8), "each length must be 1 or more, but the header has (0, 8, 8)", id="none"
        ),
        pytest.param(
            claiming(0, 2**32 - 1, 2**32 - 1), "each length must be 1 or more", id="none of a huge size"
        ),
        pytest.param(
            idx_bytes(grey(11)), "each example needs a label, but there are 11 and 12", id="too few"
        ),
        pytest.param(idx_bytes(grey(12, width=3)), "sides must be at least 4 px", id="narrow"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_images_that_contradict_their_header_are_refused(
    tmp_path: Path, packed: bool, content: bytes, message: str
) -> None:
    write_idx(tmp_path, "train", IMAGES, LABELS, packed)
    path = tmp_path / (GZ if packed else GZ.removesuffix(".gz"))
    path.write_bytes(gzip.compress(content) if packed else content)
    assert message in refusal(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [lambda packed: packed[:-9], lambda packed: b"no gzip", lambda packed: packed[:-8] + bytes(8)],
    ids=["cut", "no gzip", "wrong checksum"],
)
def test_damaged_gzip_is_refused(tmp_path: Path, damage: object) -> None:
    write_idx(tmp_path, "train", IMAGES, LABELS)
    packed = (tmp_path / GZ).read_bytes()
    (tmp_path / GZ).write_bytes(damage(packed))  # type: ignore[operator]
    assert f"{GZ}: cannot be read as an IDX file" in refusal(tmp_path)


def test_a_pair_is_whole_and_there_once(tmp_path: Path) -> None:
    write_idx(tmp_path, "train", IMAGES, LABELS)
    images = (tmp_path / GZ).read_bytes()
    (tmp_path / GZ).unlink()
    assert "must have images and labels, but there is only train-labels-idx1-ubyte.gz" in refusal(tmp_path)
    (tmp_path / GZ).write_bytes(images)
    (tmp_path / GZ.removesuffix(".gz")).write_bytes(idx_bytes(IMAGES))
    assert "but holds both; keep one" in refusal(tmp_path)


@pytest.mark.parametrize("beside", ["train.csv", "cat/1.png"])
def test_another_layout_beside_is_refused(tmp_path: Path, beside: str) -> None:
    write_idx(tmp_path, "train", IMAGES, LABELS)
    (tmp_path / "dog").mkdir()
    (tmp_path / beside).parent.mkdir(exist_ok=True)
    (tmp_path / beside).touch()
    assert "must hold one layout, but holds" in refusal(tmp_path)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist_of_debian() -> None:
    dataset = load(DEBIAN)
    assert (dataset.inputs.shape, dataset.given) == ((70_000, 28, 28, 1), 10_000)
    for part, start, end in (("train", 0, 60_000), ("t10k", 60_000, 70_000)):
        with gzip.open(DEBIAN / f"{part}-images-idx3-ubyte.gz") as file:
            plain = hashlib.sha256(file.read()[16:])
        assert hashlib.sha256(dataset.inputs[start:end].tobytes()).digest() == plain.digest()
        with gzip.open(DEBIAN / f"{part}-labels-idx1-ubyte.gz") as file:
            assert dataset.labels[start:end].astype(np.uint8).tobytes() == file.read()[8:]
    assert dataset.class_counts(np.arange(60_000)) == (6_000,) * 10
    split = split_of(dataset, 0.2, 2019)
    np.testing.assert_array_equal(np.sort(split.training), np.arange(60_000))
    np.testing.assert_array_equal(np.sort(split.validation), np.arange(60_000, 70_000))
    # The mean by which it is normalised everywhere.
    assert dataset.inputs[:60_000].mean() / 255 == pytest.approx(0.2860, abs=5e-5)
