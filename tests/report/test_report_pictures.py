from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from batchscope.errors import ReportError
from batchscope.report.figure import Figure
from batchscope.report.figures import history_figures
from batchscope.report.files import replace_file
from batchscope.report.pictures import write_pictures

NAMES = [
    "a-replicates-accuracy",
    "a-replicates-loss",
    "b-together-accuracy",
    "c-means-accuracy",
    "d-by-batch-size-accuracy",
]


@pytest.fixture(scope="module")
def figures(published: pd.DataFrame) -> tuple[Figure, ...]:
    return history_figures(published)


@pytest.fixture(scope="module")
def pictures(figures: tuple[Figure, ...], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_pictures(figures, 4, tmp_path_factory.mktemp("pictures") / "figures")


def test_every_figure_is_written_twice(pictures: list[Path]) -> None:
    assert [path.name for path in pictures] == [f"{name}{end}" for name in NAMES for end in (".png", ".svg")]
    assert sorted(path.name for path in pictures[0].parent.iterdir()) == sorted(
        path.name for path in pictures
    )


@pytest.mark.parametrize("index", range(len(NAMES)), ids=NAMES)
def test_pictures_are_drawn(pictures: list[Path], figures: tuple[Figure, ...], index: int) -> None:
    figure = figures[index]
    with Image.open(pictures[2 * index]) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert 2 * figure.panels.total * 0.9 < pixels.shape[1] < 2 * figure.panels.total * 1.15
    assert pixels.shape[0] > 600
    assert (pixels[0] == 255).all()
    # Each batch size's colour covers some pixels.
    for colour in ((0xD9, 0x7C, 0x08), (0x1F, 0x16, 0x76)):
        assert (np.abs(pixels.astype(int) - colour).max(axis=2) < 48).sum() > 100


@pytest.mark.parametrize("index", range(len(NAMES)), ids=NAMES)
def test_svg_tells_its_title(pictures: list[Path], figures: tuple[Figure, ...], index: int) -> None:
    figure = figures[index]
    root = ElementTree.fromstring(pictures[2 * index + 1].read_text())
    words = " ".join(text.strip() for text in root.itertext())
    assert figure.title in words
    assert "Batch size (examples)" in words or "batch 128" in words
    assert "hover" not in pictures[2 * index + 1].read_text()


def test_no_point_lies_outside_the_picture(pictures: list[Path]) -> None:
    for path in pictures[::2]:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L"))
        margin = np.concatenate(
            [pixels[:8].ravel(), pixels[-8:].ravel(), pixels[:, :8].ravel(), pixels[:, -8:].ravel()]
        )
        assert (margin == 255).all(), path.name


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "page.html"
    replace_file(path, b"old")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert [item.name for item in path.parent.iterdir()] == ["page.html"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    replace_file(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ReportError, match="No space left"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["page.html"]


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ReportError, match="must be writable"):
        replace_file(tmp_path / "taken" / "page.html", b"new")
