"""A dataset in the terminal and as a page: figures against NumPy's, and hostile names as text."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import HOSTILE
from PIL import Image
from rich.console import Console

from array_samples import grey
from batchscope.data import BadImage, Dataset, describe, split_of
from batchscope.report.data_page import data_page_html, data_sample, print_description, write_data_page


def images(classes: int = 2, count: int = 40, **changes: object) -> Dataset:
    fields: dict[str, object] = {
        "inputs": grey(count)[..., None],
        "labels": np.arange(count) % classes,
        "ids": tuple(f"{place}.png" for place in range(count)),
        "classes": tuple(f"c{number:03}" for number in range(classes)),
        "source": "/data/here",
        "skipped": (),
        "sizes": ((8, 8, count),),
    }
    return Dataset(**(fields | changes))  # type: ignore[arg-type]


def table(columns: int = 3) -> Dataset:
    rows = np.random.default_rng(1).normal(5, 2, (40, columns)).astype(np.float32)
    rows[:, 1] = 7
    return images(inputs=rows, features=tuple(f"f{place}" for place in range(columns)), sizes=())


def terminal(dataset: Dataset) -> str:
    return printed(dataset, Console(width=100, record=True, file=io.StringIO())).export_text()


def printed(dataset: Dataset, console: Console) -> Console:
    split = split_of(dataset, 0.25, 0)
    print_description(describe(dataset, split), data_sample(dataset, split), console)
    return console


def words(text: str) -> str:
    """The text in one line, as columns and lines are a matter of width."""
    return " ".join(text.split())


def page(dataset: Dataset) -> str:
    split = split_of(dataset, 0.25, 0)
    return data_page_html(describe(dataset, split), data_sample(dataset, split))


class Texts(HTMLParser):
    """What a reader sees, and which elements there are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_data(self, data: str) -> None:
        self.seen.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_a_description_has_numpys_figures() -> None:
    dataset = table()
    found = describe(dataset, split_of(dataset, 0.25, 0))
    assert (sum(found.training), sum(found.validation), found.training) == (30, 10, (15, 15))
    assert (found.shape, found.dtype, found.sizes) == ((3,), "float32", ())
    assert (found.least, found.most) == (dataset.inputs.min(), dataset.inputs.max())
    for place, feature in enumerate(found.features):
        column = dataset.inputs[:, place].astype(np.float64)
        assert (feature.name, feature.least, feature.most) == (f"f{place}", column.min(), column.max())
        assert feature.mean == pytest.approx(column.mean(), rel=1e-12)
        assert feature.is_constant == (place == 1)
    assert found.fingerprint == dataset.fingerprint()


def test_images_in_the_terminal() -> None:
    told = words(terminal(images(notes=("The test part is left alone.",))))
    assert "examples 40: 30 for training, 10 for validation (drawn from them, stratified)" in told
    assert "each an image of 8 x 8 px in grey" in told
    assert "values uint8, 0 to 255" in told
    assert "sizes 8 x 8 px (40)" in told
    assert "first ids 0.png, 1.png, 2.png" in told
    assert "The test part is left alone." in told
    assert "c000 15 5" in told
    assert "c001 15 5" in told


def test_several_sizes_are_told_with_what_becomes_of_them() -> None:
    sizes = ((300, 400, 20), (100, 100, 15), (90, 80, 3), (8, 9, 1), (9, 8, 1))
    told = words(terminal(images(sizes=sizes)))
    assert (
        "400 x 300 px (20), 100 x 100 px (15), 80 x 90 px (3), and 2 other sizes; brought to 8 x 8 px" in told
    )


def test_a_table_in_the_terminal_and_as_a_page() -> None:
    dataset = table(columns=25)
    told = terminal(dataset)
    assert "a row of 25 features" in told
    assert "1 feature never changes: f1" in told
    assert re.search(r"f1 +7 +7 +7$", told, flags=re.MULTILINE)
    assert "The first 20 of 25." in told
    assert "f19" in told
    assert "f20" not in told
    text = page(dataset)
    assert "Examples per class, of 25 features" in text
    assert "<img" not in text
    assert "sample of the images" not in text
    assert text.count("<tr>") == 1 + 2 + 1 + 20


def test_many_classes_flood_neither_terminal_nor_page() -> None:
    weights = np.arange(100) + 6
    labels = np.repeat(np.arange(100), weights)
    dataset = images(classes=100, count=len(labels), labels=labels)
    told = terminal(dataset)
    assert len(told.splitlines()) < 45
    assert "the 10 with the fewest; 80 lie between." in told
    assert "c099" in told
    assert "c000" in told
    assert "c050" not in told
    text = page(dataset)
    assert "<summary>All classes</summary>" in text
    training = describe(dataset, split_of(dataset, 0.25, 0)).training
    assert (
        f"100 classes with {min(training)} (class c000) to {max(training)} (class c099) training examples."
        in text
    )
    assert text.count('<th scope="row">') == 100
    assert "<details>" not in page(images(classes=20, count=80))


@pytest.mark.parametrize("colours", [1, 3])
def test_the_sample_on_the_page_is_of_the_images(colours: int) -> None:
    dataset = images(inputs=np.random.default_rng(2).integers(0, 256, (40, 8, 8, colours), np.uint8))
    shown = [attrs for tag, attrs in Texts(page(dataset)).tags if tag == "img"]
    assert len(shown) == 24
    for attrs in shown:
        _, encoded = str(attrs["src"]).split(",")
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
        place = int(str(attrs["title"]).removesuffix(".png"))
        np.testing.assert_array_equal(pixels.reshape(8, 8, colours), dataset.inputs[place])
        assert attrs["alt"] == f"c{dataset.labels[place]:03}: {place}.png"


def test_a_terminal_of_all_colours_shows_the_first_image_of_each_class() -> None:
    """At 16 px each character shows two pixels exactly: the upper as its ink, the lower as its ground."""
    inputs = np.random.default_rng(3).integers(0, 256, (40, 16, 16, 3), np.uint8)
    settings: dict[str, Any] = {"width": 70, "record": True, "force_terminal": True}
    console = Console(file=io.StringIO(), color_system="truecolor", **settings)
    dataset = images(inputs=inputs)
    told = printed(dataset, console).export_text(styles=True)
    lines = [line for line in told.splitlines() if "\u2580" in line]
    assert len(lines) == 8
    cell = re.compile(r"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m\u2580\x1b\[0m")
    shown = np.array([[list(map(int, found)) for found in cell.findall(line)] for line in lines])
    assert shown.shape == (8, 64, 6)
    split = split_of(dataset, 0.25, 0)
    labels = dataset.labels[split.training]
    for place, (label, nth) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        image = inputs[split.training[labels == label][nth]].astype(int)
        part = shown[:, 16 * place : 16 * place + 16]
        np.testing.assert_array_equal(part[..., :3], image[0::2])
        np.testing.assert_array_equal(part[..., 3:], image[1::2])
    assert "c000             c001             c000             c001" in told
    few = Console(file=io.StringIO(), color_system="standard", **settings)
    assert "\u2580" not in printed(dataset, few).export_text() + terminal(dataset)


def test_images_that_cannot_be_used_are_named() -> None:
    bad = tuple(BadImage(f"{place}.png", "is empty") for place in range(12))
    told = terminal(images(skipped=bad))
    assert "12 images cannot be used; a run stops for them unless given --skip-bad-images:" in told
    assert "9.png: is empty" in told
    assert "and 2 more" in told
    assert "12 could not be used" in page(images(skipped=bad))


def test_names_are_text_whatever_they_are() -> None:
    hostile = f"{HOSTILE}[red]\x1b[2J"
    dataset = images(
        classes=2,
        source=hostile,
        ids=(hostile,) * 40,
        skipped=(BadImage(hostile, hostile),),
        notes=(hostile,),
    )
    dataset = Dataset(**(vars(dataset) | {"classes": ("a", hostile)}))
    text = page(dataset)
    found = Texts(text)
    assert {tag for tag, _ in found.tags} & {"script", "iframe", "object"} == set()
    assert all("onerror" not in attrs for _, attrs in found.tags)
    policies = [attrs["content"] for tag, attrs in found.tags if "http-equiv" in attrs]
    assert ["script-src 'none'" in str(policy) for policy in policies] == [True]
    assert any(hostile in seen for seen in found.seen)
    told = terminal(dataset)
    assert "\x1b" not in told
    assert "[red]" in told


def test_the_page_is_written_to_a_file(tmp_path: Path) -> None:
    dataset = images()
    split = split_of(dataset, 0.25, 0)
    write_data_page(describe(dataset, split), data_sample(dataset, split), tmp_path / "a" / "page.html")
    text = (tmp_path / "a" / "page.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "<h1>here</h1>" in text
