from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pages import HOSTILE, hostile, kind, sample
from PIL import Image

from batchscope.analysis import Analysis, Settings, analyze
from batchscope.errors import ReportError
from batchscope.history import check_history
from batchscope.report.content import DataSample, PageContent
from batchscope.report.figures import all_figures
from batchscope.report.page import page_html, script_json, write_page
from batchscope.report.sample import class_rows, thumbnails


class Outline(HTMLParser):
    """Tags, texts and scripts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.headings: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        if tag == "script":
            self.scripts.append("")
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            self.scripts[-1] += data
        if self._open in ("h1", "h2", "h3"):
            self.headings[-1] += data


@pytest.fixture(scope="module")
def page(published: pd.DataFrame, analysis: Analysis) -> str:
    return page_html(kind(published, analysis))


def test_the_verdict_stands_before_every_figure_and_table(page: str, analysis: Analysis) -> None:
    outline = Outline(page)
    sections = [heading for heading in outline.headings if heading in SECTIONS]
    assert sections == SECTIONS
    assert page.index(analysis.verdict[0].text.split("'")[0][:60]) < page.index("<figure")


SECTIONS = ["Verdict", "Figures", "Tables", "Data", "Study file", "Provenance"]


def test_every_figure_has_its_title_label_and_links(
    page: str, published: pd.DataFrame, analysis: Analysis
) -> None:
    outline = Outline(page)
    figures = all_figures(published, analysis)
    labels = [attrs["aria-label"] for tag, attrs in outline.tags if attrs.get("class") == "chart"]
    assert labels == [figure.title for figure in figures]
    assert [heading for heading in outline.headings if heading in labels] == labels
    assert [figure.label for figure in figures] == ["A", "A (loss)", "B", "C", "D", "E", "F", "G"]
    assert all(f"Figure {figure.label}." in page for figure in figures)
    links = [attrs["download"] for tag, attrs in outline.tags if tag == "a" and "download" in attrs]
    assert links == [f"{figure.key}.{kind}" for figure in figures for kind in ("csv", "png", "svg")]


def test_the_page_holds_every_figure_of_the_charts(page: str, published: pd.DataFrame) -> None:
    charts = json.loads(Outline(page).scripts[0])
    means = next(figure for figure in charts["figures"] if figure["key"] == "c-means-accuracy")
    rows = means["spec"]["datasets"][means["spec"]["data"]["name"]]
    last = {(row["batch_size"], row["part"]): row["value"] for row in rows if row["epoch"] == 20}
    assert last[(128, "validation")] == pytest.approx(0.735629, abs=1e-6)
    assert charts["screen"]["range"]["ordinal"] == [f"var(--batch-{index})" for index in range(4)]
    assert "--batch-3: #1f1676" in page


def test_only_the_page_s_own_scripts_are_admitted_and_nothing_may_be_fetched(page: str) -> None:
    outline = Outline(page)
    policy = next(attrs["content"] for tag, attrs in outline.tags if attrs.get("http-equiv"))
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in outline.scripts[1:]
    ]
    assert rules["script-src"].split() == [f"'sha256-{value}'" for value in hashes]
    assert "unsafe" not in rules["script-src"]


def test_nothing_in_the_page_points_elsewhere(page: str) -> None:
    for tag, attrs in Outline(page).tags:
        for name in ("src", "href", "action", "srcset", "poster"):
            value = attrs.get(name) or ""
            assert value.startswith(("#", "data:image/png;base64,")) or not value, (tag, value)


def test_hostile_text_stays_text(published: pd.DataFrame) -> None:
    outline = Outline(page_html(hostile(published)))
    assert len(outline.scripts) == 3
    assert outline.headings[0] == "<script>alert(1)</script>"
    images = [attrs for tag, attrs in outline.tags if tag == "img"]
    assert [str(image["src"])[:22] for image in images] == ["data:image/png;base64,"] * 2
    assert not [attrs for _, attrs in outline.tags if any(name.startswith("on") for name in attrs)]
    charts = json.loads(outline.scripts[0])
    stages = {
        row["stage"]
        for figure in charts["figures"]
        if figure["key"] == "epochs-and-updates"
        for row in figure["spec"]["datasets"][figure["spec"]["data"]["name"]]
    }
    assert stages == {f"{HOSTILE}feature_extraction", f"{HOSTILE}fine_tuning"}


@pytest.mark.parametrize("text", ["</script>", "<!--", "]]>", "\u2028", "\u00e9", "&amp;", '"\\'])
def test_script_json_cannot_leave_its_element(text: str) -> None:
    written = script_json({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert written.isascii()
    assert not set("<>&") & set(written)


def test_script_json_refuses_what_json_does_not_know() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        script_json([float("nan")])


def test_a_page_without_data_study_or_provenance(published: pd.DataFrame, analysis: Analysis) -> None:
    text = page_html(PageContent("bare", published, analysis))
    assert [heading for heading in Outline(text).headings if heading in SECTIONS] == SECTIONS[:3]


def test_the_page_is_written_as_a_whole(published: pd.DataFrame, analysis: Analysis, tmp_path: Path) -> None:
    path = tmp_path / "report" / "report.html"
    write_page(kind(published, analysis), path)
    assert path.read_text().startswith("<!doctype html>")
    assert [item.name for item in path.parent.iterdir()] == ["report.html"]
    assert path.stat().st_size < 2_000_000


def test_sample_images_survive_exactly(page: str) -> None:
    sources = [str(attrs["src"]) for tag, attrs in Outline(page).tags if tag == "img"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(sources[0].split(",")[1]))))
    assert (pixels == sample().images[0]).all()
    assert re.search(r"image-rendering:\s*pixelated", page)


def test_large_images_are_shown_smaller() -> None:
    large = DataSample(np.zeros((60, 400, 200, 3), np.uint8), (0,) * 60, ("x",) * 60, ("one",), (60,), (0,))
    shown = thumbnails(large)
    assert (shown[0].width, shown[0].height) == (48, 96)
    assert len(shown) == 48


def test_class_balance() -> None:
    assert [(row.training_share, row.validation_share) for row in class_rows(sample())] == [
        (0.25, 0.25),
        (0.75, 0.75),
    ]
    empty = DataSample(np.zeros((0, 8, 8, 3), np.uint8), (), (), ("one",), (0,), (0,))
    assert class_rows(empty)[0].training_share == 0


@pytest.mark.parametrize(
    ("images", "labels", "counts", "rule"),
    [
        (np.zeros((1, 8, 8, 3), np.float32), (0,), (1,), "uint8"),
        (np.zeros((1, 8, 8), np.uint8), (0,), (1,), "shape"),
        (np.zeros((1, 8, 8, 3), np.uint8), (0, 1), (1,), "label"),
        (np.zeros((1, 8, 8, 3), np.uint8), (0,), (1, 2), "counts"),
    ],
)
def test_a_sample_that_contradicts_itself_is_refused(
    images: np.ndarray, labels: tuple[int, ...], counts: tuple[int, ...], rule: str
) -> None:
    with pytest.raises(ReportError, match=rule):
        DataSample(images, labels, ("a",), ("one",), counts, (1,))


def test_two_hundred_thousand_rows_make_a_page_below_five_megabytes() -> None:
    sizes, replicates, epochs = 100, 10, 200
    keys = np.stack(np.unravel_index(np.arange(200_000), (sizes, replicates, epochs)), axis=1) + 1
    rng = np.random.default_rng(5)
    history = check_history(
        pd.DataFrame(
            {
                "batch_size": keys[:, 0] * 8,
                "replicate": keys[:, 1],
                "stage": np.where(keys[:, 2] <= 100, "head", "tail"),
                "epoch": keys[:, 2],
                "updates": keys[:, 2] * (14000 // (keys[:, 0] * 8)),
                "train_accuracy": rng.uniform(0.9, 1.0, len(keys)),
                "val_accuracy": rng.uniform(0.7, 0.9, len(keys)),
                "train_loss": rng.uniform(0.0, 0.2, len(keys)),
                "val_loss": rng.uniform(0.2, 0.9, len(keys)),
            }
        )
    )
    text = page_html(PageContent("large", history, analyze(history, Settings(resamples=100))))
    assert 1_000_000 < len(text.encode()) < 5_000_000
