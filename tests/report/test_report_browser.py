"""The page in a browser: it draws, sorts, copies and saves, and asks nothing of anybody."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from every_figure import KINDS
from pages import HOSTILE, hostile, kind
from playwright.sync_api import Browser, Page, expect, sync_playwright

from batchscope.analysis import Analysis, Settings, analyze
from batchscope.report.content import PageContent
from batchscope.report.figures import all_figures
from batchscope.report.page import write_page
from batchscope.report.theme import DARK, LIGHT
from probed import probed_history

CHROMIUM = Path("/usr/bin/chromium")
REQUIRED = os.environ.get("BATCHSCOPE_REQUIRE_BROWSER") == "1"
ARGUMENTS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists() and not REQUIRED, reason="needs Debian's chromium"),
]


class Opened:
    """A page, and everything that it complained of or asked for."""

    def __init__(self, browser: Browser, path: Path, width: int, scheme: str) -> None:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
            accept_downloads=True,
        )
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append("dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        context.route(lambda url: url != path.as_uri(), lambda route: route.abort())
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("body[data-charts=drawn]")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def path(published: pd.DataFrame, analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("browser") / "report.html"
    write_page(kind(published, analysis), target)
    return target


@pytest.fixture(scope="module")
def wide(browser: Browser, path: Path) -> Opened:
    return Opened(browser, path, 1200, "light")


def test_charts_are_drawn_without_a_complaint_or_a_request(
    wide: Opened, path: Path, published: pd.DataFrame, analysis: Analysis
) -> None:
    figures = all_figures(published, analysis)
    assert wide.page.locator(".chart svg").count() == len(figures)
    # 12 panels x 2 parts x 2 measures, 4 batch sizes x (3 replicates x 2 parts + 2 parts), 2 x 2
    # mean lines of figure D, 4 batch sizes x 4 panels by epochs and updates, 1 line of the gap.
    assert wide.page.locator(".chart svg g.mark-line.role-mark path").count() == 48 + 24 + 8 + 4 + 16 + 1
    assert wide.complaints == []
    assert wide.requests == [path.as_uri()]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_figure_is_drawn(browser: Browser, tmp_path: Path, name: str) -> None:
    made, settings = KINDS[name][0](), KINDS[name][1]
    content = PageContent(name, made, analyze(made, settings))
    write_page(content, tmp_path / "page.html")
    opened = Opened(browser, tmp_path / "page.html", 1200, "light")
    assert opened.complaints == []
    assert opened.page.locator("figure svg").count() == len(content.figures)


def test_a_click_sorts_a_table(wide: Opened) -> None:
    head = wide.page.locator("#table-summary thead button", has_text="Validation accuracy")
    cells = wide.page.locator("#table-summary tbody tr td:nth-child(5)")

    def order() -> list[float]:
        return [float(value) for value in cells.evaluate_all("cells => cells.map(c => c.dataset.value)")]

    before = order()
    head.click()
    assert order() == sorted(before) != before
    assert head.locator("..").get_attribute("aria-sort") == "ascending"
    head.click()
    assert order() == sorted(before, reverse=True)
    assert head.locator("..").get_attribute("aria-sort") == "descending"


def test_words_are_sorted_as_words_and_numbers_in_them_as_numbers(wide: Opened) -> None:
    wide.page.locator("#table-comparisons thead button", has_text="Quantity").click()
    texts = wide.page.locator("#table-comparisons tbody td:first-child").all_text_contents()
    assert texts == ["observed gap"] * 3 + ["validation accuracy"] * 3


def test_a_table_is_copied_as_tab_separated_text(wide: Opened) -> None:
    wide.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    wide.page.locator("[data-copy=table-spread]").click()
    expect(wide.page.locator("#said")).to_have_text("Copied.")
    lines = wide.page.evaluate("navigator.clipboard.readText()").split("\n")
    assert lines[0].split("\t") == ["Batch size", "Replicates", "Standard deviation"]
    assert lines[4].split("\t") == ["128", "3", "0.0357"]


def test_figures_and_their_data_can_be_saved(wide: Opened) -> None:
    def saved(kind: str) -> bytes:
        with wide.page.expect_download() as download:
            wide.page.locator(f"#figure-gap [data-save={kind}]").click()
        assert download.value.suggested_filename == f"gap.{kind}"
        return Path(download.value.path()).read_bytes()

    rows = saved("csv").decode().splitlines()
    assert rows[0] == "batch_size,gap,low,high,replicates"
    assert rows[4].startswith("128,0.25605")
    assert saved("png").startswith(b"\x89PNG")
    drawing = saved("svg").decode()
    assert "The observed gap rises from" in drawing
    assert "var(" not in drawing


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (400, "dark"), (820, "light")])
def test_a_narrow_window_needs_no_sideways_scrolling(
    browser: Browser, path: Path, width: int, scheme: str
) -> None:
    opened = Opened(browser, path, width, scheme)
    root = "document.documentElement"
    assert opened.page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")
    charts = opened.page.locator(".chart").evaluate_all(
        "boxes => boxes.map(b => b.scrollWidth - b.clientWidth)"
    )
    assert charts == [0] * len(charts)
    assert opened.complaints == []


def test_charts_follow_the_width_of_the_window(browser: Browser, path: Path) -> None:
    opened = Opened(browser, path, 1200, "light")
    drawing = opened.page.locator("#figure-c-means-accuracy svg")
    assert int(drawing.get_attribute("width") or 0) > 800
    opened.page.set_viewport_size({"width": 400, "height": 900})
    expect(drawing).to_have_attribute("width", re.compile("^3[0-6][0-9]$"))


@pytest.mark.parametrize(
    ("scheme", "paper", "line"),
    [("light", "255, 255, 255", "31, 22, 118"), ("dark", "20, 23, 28", "106, 102, 230")],
)
def test_colours_follow_the_scheme_and_print_is_light(
    browser: Browser, path: Path, scheme: str, paper: str, line: str
) -> None:
    opened = Opened(browser, path, 1200, scheme)
    lines = "document.querySelectorAll('#figure-c-means-accuracy .mark-line.role-mark path')"
    stroke = f"getComputedStyle([...{lines}].at(-1)).stroke"
    background = "getComputedStyle(document.body).backgroundColor"
    assert opened.page.evaluate(background) == f"rgb({paper})"
    assert opened.page.evaluate(stroke) == f"rgb({line})"
    opened.page.emulate_media(media="print")
    assert opened.page.evaluate(stroke) == "rgb(31, 22, 118)"
    assert opened.page.evaluate(background) == "rgb(255, 255, 255)"


@pytest.mark.parametrize(("width", "scheme"), [(1200, "dark"), (400, "light")])
def test_what_the_gap_is_made_of_is_drawn_on_any_ground_and_width(
    browser: Browser, tmp_path: Path, width: int, scheme: str
) -> None:
    history = probed_history()
    path = tmp_path / "probed.html"
    write_page(PageContent("probed", history, analyze(history, Settings(resamples=100))), path)
    opened = Opened(browser, path, width, scheme)
    ground = DARK if scheme == "dark" else LIGHT
    bars = opened.page.locator("#figure-gap-terms svg g.mark-rect.role-mark path")
    assert bars.count() == 2 * 4 * 4
    fills = set(bars.evaluate_all("bars => bars.map(bar => getComputedStyle(bar).fill)"))
    expected = {tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in ground.terms}
    assert fills == {f"rgb({red}, {green}, {blue})" for red, green, blue in expected}
    overflow = "boxes => boxes.map(b => b.scrollWidth - b.clientWidth)"
    assert set(opened.page.locator(".chart").evaluate_all(overflow)) == {0}
    assert opened.complaints == []


def test_hostile_names_do_nothing(browser: Browser, published: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    write_page(hostile(published), path)
    opened = Opened(browser, path, 1200, "light")
    assert opened.page.locator("h1").text_content() == "<script>alert(1)</script>"
    assert opened.page.locator("script").count() == 3
    assert opened.page.locator(".lead").text_content() == HOSTILE
    point = opened.page.locator("#figure-epochs-and-updates svg .mark-symbol.role-mark path").last
    point.scroll_into_view_if_needed()
    point.hover(force=True)
    opened.page.wait_for_selector("#vg-tooltip-element.visible")
    assert HOSTILE in (opened.page.locator("#vg-tooltip-element").text_content() or "")
    assert opened.page.locator("img:not([src^='data:image/png'])").count() == 0
    assert opened.complaints == []
    assert opened.requests == [path.as_uri()]
