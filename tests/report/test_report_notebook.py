"""A run as a notebook shows it: figures, pictures, and nothing that comes from outside as markup."""

from __future__ import annotations

import base64
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from pages import HOSTILE, hostile, kind
from planted import planted

from batchscope import load
from batchscope.analysis import Analysis, analyze
from batchscope.analysis.words import number
from batchscope.records import TrialState
from batchscope.report import notebook
from batchscope.report.content import PageContent
from batchscope.report.notebook import RunCard, Trouble, card_html
from batchscope.running.folder import RunFolder
from run_samples import FIRST, SECOND, record, small_study

VOID = {"br", "img"}


class Shown(HTMLParser):
    """What the HTML holds: elements in balance, texts by class, cells, pictures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.pictures: list[dict[str, str]] = []
        self.rows: list[list[str]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.attributes |= found.keys()
        if tag == "img":
            self.pictures.append(found)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self._open.append((tag, found.get("class", "")))
            self.texts.setdefault(found.get("class", ""), []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, name in self._open:
            self.texts[name][-1] += data
        if self._open and self._open[-1][0] in ("td", "th"):
            self.rows[-1][-1] += data

    def text(self, name: str) -> list[str]:
        return [" ".join(text.split()) for text in self.texts.get(name, [])]


def card(content: PageContent | None, **changes: object) -> RunCard:
    made = RunCard("mine", (("complete", 12),), (), content, "", None)
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shown(published: pd.DataFrame, analysis: Analysis) -> Shown:
    return Shown(card_html(card(kind(published, analysis))))


def test_the_summary_is_that_of_the_analysis(shown: Shown, analysis: Analysis):
    head, *rows = shown.rows
    assert head[:3] == ["Epoch", "Batch size", "Replicates"]
    names = {
        "Training accuracy": "train_accuracy",
        "Validation accuracy": "val_accuracy",
        "Observed gap": "gap",
    }
    assert head[3:] == list(names)
    assert len(rows) == len(analysis.summary) == 8
    for cells, row in zip(rows, analysis.summary, strict=True):
        figures = [number(getattr(row, name).mean) for name in names.values()]
        assert cells == [str(row.epoch), str(row.batch_size), "3", *figures]


def test_the_verdict_is_there_word_for_word(shown: Shown, analysis: Analysis):
    assert shown.text("batchscope-verdict") == [sentence.text for sentence in analysis.verdict]


def test_the_main_charts_are_drawings_in_the_text(shown: Shown, published: pd.DataFrame, analysis: Analysis):
    figures = {figure.key: figure for figure in kind(published, analysis).figures}
    titles = [figures[key].title for key in ("c-means-accuracy", "epochs-and-updates", "gap")]
    assert [picture["alt"] for picture in shown.pictures] == titles
    for picture in shown.pictures:
        head, _, content = picture["src"].partition(",")
        assert head == "data:image/svg+xml;base64"
        drawing = base64.b64decode(content, validate=True).decode()
        assert drawing.startswith("<svg")
        assert len(drawing) < 250_000


def test_nothing_is_run_or_fetched(shown: Shown):
    allowed = {
        "div",
        "h3",
        "p",
        "br",
        "span",
        "b",
        "details",
        "summary",
        "table",
        "caption",
        "thead",
        "tbody",
    }
    assert shown.tags <= allowed | {"tr", "th", "td", "small", "img", "code", "ul", "li"}
    assert shown.attributes <= {"class", "style", "src", "alt", "width"}
    assert all(picture["src"].startswith("data:image/") for picture in shown.pictures)


def test_texts_from_outside_are_text(published: pd.DataFrame):
    content = hostile(published)
    troubles = (Trouble(HOSTILE, "failed", 1, HOSTILE),)
    html = card_html(card(content, title=HOSTILE, troubles=troubles, reason=HOSTILE, page=HOSTILE))
    seen = Shown(html)
    assert "script" not in seen.tags
    assert "onerror" not in seen.attributes
    plain = " ".join(HOSTILE.split())
    assert seen.text("batchscope-verdict") == [plain]
    assert seen.text("batchscope-reason") == [plain]
    assert all(picture["src"].startswith("data:image/") for picture in seen.pictures)


def test_a_large_chart_becomes_a_picture(monkeypatch: pytest.MonkeyPatch):
    history = planted(lambda size, replicate, epoch: 0.5 + 0.001 * epoch * replicate / size)
    content = PageContent("mine", history, analyze(history))
    monkeypatch.setattr(notebook, "_LARGEST_SVG", 20_000)
    pictures = Shown(card_html(card(content))).pictures
    kinds = [picture["src"].partition(";")[0] for picture in pictures]
    assert "data:image/png" in kinds
    for picture in pictures:
        if picture["src"].startswith("data:image/png"):
            content_of = base64.b64decode(picture["src"].partition(",")[2])
            assert content_of.startswith(b"\x89PNG")
            assert 2 * int(picture["width"]) == pytest.approx(int.from_bytes(content_of[16:20]), abs=1)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    place = RunFolder(tmp_path / "run")
    with place.claim(small_study()) as store:
        store.plan([FIRST, SECOND])
    return place


def test_a_run_that_has_not_begun_says_so(folder: RunFolder):
    seen = Shown(load(folder.path)._repr_html_())
    assert seen.text("batchscope-states") == ["2 trials: 2 waiting"]
    assert seen.text("batchscope-reason") == ["No epoch is stored yet."]
    assert (seen.pictures, seen.rows) == ([], [])


def test_a_run_that_goes_on_shows_what_is_there(folder: RunFolder):
    run = load(folder.path)
    with folder.claim(small_study()) as store:
        store.set_state(FIRST, TrialState.RUNNING)
        store.add(FIRST, record(1))
        seen = Shown(run._repr_html_())
        assert seen.text("batchscope-states") == ["2 trials: 1 waiting, 1 running"]
        assert [row[1] for row in seen.rows[1:]] == ["8"]
        store.add(FIRST, record(2))
        store.set_state(FIRST, TrialState.FAILED, "Traceback:\nValueError: <b>broken</b>")
        store.set_state(SECOND, TrialState.DIVERGED)
    seen = Shown(run._repr_html_())
    assert seen.text("batchscope-states") == ["2 trials: 1 diverged, 1 failed"]
    assert seen.text("batchscope-troubles") == [
        "b8-r1 failed after 2 epochs: ValueError: <b>broken</b> b16-r1 diverged after 0 epochs"
    ]
    assert len(seen.pictures) >= 2


def test_a_history_that_cannot_be_analysed_is_told(folder: RunFolder, monkeypatch: pytest.MonkeyPatch):
    from batchscope.errors import HistoryError

    with folder.claim(small_study()) as store:
        store.add(FIRST, record(1))

    def refuse(*_: object) -> None:
        raise HistoryError("a metric is needed")

    monkeypatch.setattr("batchscope.run_report.analyze_run", refuse)
    seen = Shown(load(folder.path)._repr_html_())
    assert seen.text("batchscope-reason") == ["The history cannot be analysed yet: a metric is needed"]


def test_many_troubles_are_cut(published: pd.DataFrame):
    troubles = tuple(Trouble(f"b8-r{index}", "failed", 1, "") for index in range(25))
    seen = Shown(card_html(card(None, troubles=troubles)))
    assert seen.text("batchscope-troubles")[0].endswith("b8-r9 failed after 1 epoch and 15 more")
