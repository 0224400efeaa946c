"""A run as a notebook shows it: one piece of HTML that needs neither scripts nor a network.

Charts are pictures in the text (``data:`` addresses), so they are there in JupyterLab, classic
notebooks, Colab and VS Code alike, in notebooks that are not trusted, and in saved ones.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from batchscope.report.content import PageContent
from batchscope.report.figure import Figure
from batchscope.report.page import summary_line
from batchscope.report.tables import Table, summary_of
from batchscope.report.templating import environment

__all__ = ["RunCard", "Trouble", "card_html"]

_MAIN = ("c-means-accuracy", "c-means-loss", "epochs-and-updates", "gap", "gap-terms")
_LARGEST_SVG = 250_000
"""Bytes of a drawing from which on the picture is the smaller one."""


@dataclass(frozen=True)
class Trouble:
    """A trial that failed or diverged.

    Attributes:
        trial: Its name.
        state: Which of the two.
        epochs: That are stored.
        error: Last line of a failed trial's traceback, else empty.
    """

    trial: str
    state: str
    epochs: int
    error: str


@dataclass(frozen=True)
class RunCard:
    """What a notebook shows of a run.

    Attributes:
        title: The study's name.
        states: Pairs of state and number of trials in it, those without any left out.
        troubles: Trials that failed or diverged.
        content: As on the page; None where there is nothing to analyse yet.
        reason: Why there is nothing; empty where there is.
        page: Where the page lies; None where it is not written yet.
    """

    title: str
    states: tuple[tuple[str, int], ...]
    troubles: tuple[Trouble, ...]
    content: PageContent | None
    reason: str
    page: str | None


@dataclass(frozen=True)
class _Picture:
    """A chart in the text.

    Attributes:
        source: A ``data:`` address.
        width: In CSS pixels; None where the drawing knows its own.
        title: The finding.
    """

    source: str
    width: int | None
    title: str


def card_html(card: RunCard) -> str:
    """The card as HTML; every text from outside is escaped."""
    content = card.content
    table: Table | None = None if content is None else summary_of(content.analysis)
    return (
        environment()
        .get_template("notebook.html")
        .render(
            card=card,
            trials=sum(number for _, number in card.states),
            states=", ".join(f"{number} {state}" for state, number in card.states),
            summary_line=None if content is None else summary_line(content.analysis),
            verdict=() if content is None else [sentence.text for sentence in content.analysis.verdict],
            table=table,
            pictures=() if content is None else _pictures(content),
        )
    )


def _pictures(content: PageContent) -> list[_Picture]:
    sizes = len(content.analysis.facts.batch_sizes)
    return [_picture(figure, sizes) for figure in content.figures if figure.key in _MAIN]


def _picture(figure: Figure, batch_sizes: int) -> _Picture:
    from batchscope.report.render import SCALE, png, svg

    drawing = svg(figure, batch_sizes).encode()
    if len(drawing) <= _LARGEST_SVG:
        return _Picture(_address("image/svg+xml", drawing), None, figure.title)
    picture = png(figure, batch_sizes)
    width = int.from_bytes(picture[16:20])  # where PNG has it
    return _Picture(_address("image/png", picture), round(width / SCALE), figure.title)


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
