"""NumPy archives: their arrays as they are, or what is wrong with them; no pickle is ever opened."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from array_samples import grey, load, refusal
from image_samples import write_zip

COLOUR = np.random.default_rng(3).integers(0, 256, (12, 8, 6, 3), np.uint8)
FEATURES = np.random.default_rng(4).normal(size=(12, 5))
LABELS = np.arange(12) % 3


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        pytest.param(COLOUR, COLOUR, id="colour"),
        pytest.param(grey(12), grey(12)[..., None], id="grey"),
        pytest.param(grey(12)[..., None], grey(12)[..., None], id="grey with an axis"),
        pytest.param(np.asfortranarray(COLOUR), COLOUR, id="fortran order"),
        pytest.param(FEATURES, FEATURES.astype(np.float32), id="features"),
        pytest.param(FEATURES.astype(">f8"), FEATURES.astype(np.float32), id="other byte order"),
        pytest.param(LABELS[:, None], LABELS[:, None].astype(np.float32), id="whole numbers"),
    ],
)
def test_inputs_are_those_of_the_archive(
    tmp_path: Path, save: object, inputs: np.ndarray, expected: np.ndarray
) -> None:
    save(tmp_path / "a.npz", x=inputs, y=LABELS)  # type: ignore[operator]
    dataset = load(tmp_path / "a.npz")
    assert dataset.inputs.dtype == expected.dtype
    np.testing.assert_array_equal(dataset.inputs, expected)
    np.testing.assert_array_equal(dataset.labels, LABELS)
    assert (dataset.given, dataset.notes, dataset.classes) == (0, (), ("0", "1", "2"))


@pytest.mark.parametrize(
    ("labels", "classes", "indices"),
    [
        pytest.param(LABELS[:, None] * 5 - 5, ("-5", "0", "5"), LABELS, id="a column of numbers"),
        pytest.param((LABELS * 50).astype(np.uint8), ("0", "50", "100"), LABELS, id="bytes"),
        pytest.param(LABELS > 0, ("0", "1"), LABELS > 0, id="truth values"),
        pytest.param(
            np.array(["b", "a", "c"])[LABELS], ("a", "b", "c"), np.array([1, 0, 2])[LABELS], id="words"
        ),
        pytest.param(
            np.array(["9", "10", "8"])[LABELS], ("8", "9", "10"), np.array([1, 2, 0])[LABELS], id="digits"
        ),
    ],
)
def test_labels_are_classes_in_order(
    tmp_path: Path, labels: np.ndarray, classes: tuple[str, ...], indices: np.ndarray
) -> None:
    np.savez(tmp_path / "a.npz", x=COLOUR, y=labels)
    dataset = load(tmp_path / "a.npz")
    assert dataset.classes == classes
    np.testing.assert_array_equal(dataset.labels, indices)


PARTS = {"x_train": COLOUR, "y_train": LABELS, "x_val": COLOUR[:4], "y_val": LABELS[:4]}
TEST = {"x_test": COLOUR[4:9], "y_test": LABELS[4:9]}


def test_a_validation_part_is_taken_as_it_is_and_a_test_part_left_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **PARTS, **TEST)
    dataset = load(tmp_path / "a.npz")
    np.testing.assert_array_equal(dataset.inputs, np.concatenate([COLOUR, COLOUR[:4]]))
    assert (dataset.given, dataset.ids[-1]) == (4, "validation/3")
    assert dataset.notes == (f"The test part of {tmp_path / 'a.npz'} is left alone.",)


def test_a_test_part_validates_where_there_is_no_other(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=COLOUR, y_train=LABELS, **TEST)
    dataset = load(tmp_path / "a.npz")
    np.testing.assert_array_equal(dataset.inputs[12:], COLOUR[4:9])
    np.testing.assert_array_equal(dataset.labels[12:], LABELS[4:9])
    assert "its test part is used for validation" in dataset.notes[0]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        pytest.param({}, "and no others, but holds nothing", id="empty"),
        pytest.param({"x": COLOUR}, "and no others, but holds x", id="no labels"),
        pytest.param({"images": COLOUR, "labels": LABELS}, "but holds images, labels", id="other names"),
        pytest.param({"x": COLOUR, "y": LABELS, "z": LABELS}, "but holds x, y, z", id="one too many"),
        pytest.param({**TEST}, "must hold the arrays x and y, or x_train and y_train", id="no training part"),
        pytest.param({"x": COLOUR, "y": LABELS, **TEST}, "but holds x, x_test, y, y_test", id="both forms"),
        pytest.param({"x": COLOUR, "y": LABELS[:9]}, "there are 12 and 9 labels", id="lengths"),
        pytest.param(
            {"x": COLOUR / 255, "y": LABELS}, "0..255 and write them with astype('uint8')", id="float images"
        ),
        pytest.param(
            {"x": COLOUR.transpose(0, 3, 1, 2), "y": LABELS}, "x.transpose(0, 2, 3, 1)", id="colours first"
        ),
        pytest.param({"x": COLOUR[..., :2], "y": LABELS}, "but are uint8 (12, 8, 6, 2)", id="two colours"),
        pytest.param({"x": LABELS, "y": LABELS}, "but are int64 (12,)", id="one axis"),
        pytest.param({"x": COLOUR[:, :3], "y": LABELS}, "sides must be at least 4 px", id="small"),
        pytest.param({"x": FEATURES[:, :0], "y": LABELS}, "but are float64 (12, 0)", id="no features"),
        pytest.param({"x": FEATURES * 1j, "y": LABELS}, "but has dtype complex128", id="complex"),
        pytest.param(
            {"x": np.array([[1.0, np.nan]] * 12), "y": LABELS}, "12 are not: the first is nan", id="nan"
        ),
        pytest.param({"x": np.full((12, 1), 1e39), "y": LABELS}, "within float32", id="beyond float32"),
        pytest.param({"x": COLOUR, "y": np.eye(12)}, "keep y.argmax(axis=1)", id="a column a class"),
        pytest.param(
            {"x": COLOUR, "y": LABELS * 1.5}, "labels must be whole numbers or words", id="fractions"
        ),
        pytest.param({"x": COLOUR, "y": LABELS * 0}, "at least two classes, but got 0", id="one class"),
        pytest.param({"x": COLOUR, "y": np.array(["a", ""] * 6)}, "some have none: row 1: ''", id="no word"),
        pytest.param({"x": COLOUR, "y": np.array(["a", "1"] * 6)}, "some are words: row 0: 'a'", id="mixed"),
        pytest.param(
            {"x": COLOUR, "y": np.array(["0.5", "1"] * 6)}, "other numbers: row 0: '0.5'", id="measured"
        ),
        pytest.param(
            {"x": COLOUR, "y": np.array(["01", "1"] * 6)}, "written in one way, but got '01', '1'", id="01"
        ),
        pytest.param(
            {**PARTS, "x_val": FEATURES[:4]},
            "must have inputs of one kind, but they are uint8",
            id="kinds differ",
        ),
        pytest.param({**PARTS, "y_val": LABELS[:4] + 1}, "training part, but 3 is not", id="a new class"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    assert message in refusal(tmp_path / "a.npz")


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("unpickled"),))


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("member", "message"),
    [
        pytest.param(npy(np.array([Hostile()], dtype=object)), "but has dtype object", id="pickle"),
        pytest.param(npy(np.zeros(3, dtype="i4,f4")), "but has dtype", id="records"),
        pytest.param(b"", "cannot be read as one", id="empty"),
        pytest.param(b"no array", "cannot be read as one", id="no array"),
        pytest.param(npy(COLOUR)[:-1], "must have 1,728 bytes, but has 1,727", id="cut"),
        pytest.param(npy(COLOUR) + b"x", "must have 1,728 bytes, but has 1,729", id="longer"),
        pytest.param(
            header("{'descr': '|u1', 'fortran_order': False, 'shape': (99999999, 9999, 9999, 3), }"),
            "must have 29,994,000,000,059,997 bytes, but has 0",
            id="claims terabytes",
        ),
        pytest.param(
            header("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -8, 8, 3), }"),
            "lengths of an array must be 0 or more",
            id="negative",
        ),
        pytest.param(
            header("{'descr': '|u1', 'fortran_order': False, 'shape': 12, }"), "cannot be read", id="shape"
        ),
        pytest.param(header("[" * 9_000), "cannot be read", id="nested"),
        pytest.param(header("__import__('os')"), "cannot be read", id="code"),
        pytest.param(header("{" + " " * 20_000 + "}"), "cannot be read", id="long header"),
    ],
)
def test_members_that_are_no_plain_arrays_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_zip(tmp_path / "a.npz", {"x.npy": member, "y.npy": npy(LABELS)})
    assert message in refusal(tmp_path / "a.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_a_damaged_array_fails_its_checksum(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=COLOUR, y=LABELS)
    content = (tmp_path / "a.npz").read_bytes()
    place = content.index(COLOUR.tobytes()[:64])
    (tmp_path / "a.npz").write_bytes(content[:place] + b"\0\0" + content[place + 2 :])
    assert "Bad CRC-32" in refusal(tmp_path / "a.npz")


def test_an_archive_that_unpacks_to_too_much_is_refused_before_it_does(tmp_path: Path) -> None:
    zeros = header("{'descr': '|u1', 'fortran_order': False, 'shape': (1572864, 32, 32, 1), }")
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", zeros + bytes(2**20))
        archive.writestr("y.npy", npy(LABELS))
        archive.getinfo("x.npy").file_size = 1572864 * 1024 + len(zeros)  # as the directory will say
    assert "must unpack to at most 1,073,741,824 bytes together" in refusal(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", npy(COLOUR)])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    assert "must be an archive of NumPy arrays" in refusal(tmp_path / "a.npz")
