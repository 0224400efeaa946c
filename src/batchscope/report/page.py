"""The HTML page: one file that needs nothing else and asks nothing of anybody.

Everything that comes from study files, histories and data is text to it: HTML is escaped by the
template, JSON by `script_json`, and a content security policy admits only the scripts written
here, by their hashes, and no connection at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from batchscope.analysis.results import Analysis
from batchscope.analysis.words import count
from batchscope.report.content import PageContent
from batchscope.report.files import replace_file
from batchscope.report.tables import analysis_tables
from batchscope.report.templating import TEMPLATES, data_values, environment, policy, variables
from batchscope.report.theme import DARK, LIGHT, Ground, batch_size_colours, chart_config

if TYPE_CHECKING:
    from batchscope.report.figure import Figure

__all__ = ["page_html", "script_json", "summary_line", "write_page"]


@dataclass(frozen=True)
class _Script:
    """A script of the page's own, and the hash by which the policy admits it."""

    text: Markup
    integrity: str


def write_page(content: PageContent, path: Path) -> None:
    """Writes the page; a reader finds the old one or the new one, never a part.

    Raises:
        HistoryError: The history has neither an accuracy nor a loss.
        ReportError: The file cannot be written.
    """
    replace_file(path, page_html(content).encode())


def page_html(content: PageContent) -> str:
    """The page as text."""
    figures, sizes = content.figures, content.analysis.facts.batch_sizes
    scripts = {"vega": _vega(), "page": _own_script()}
    return (
        environment()
        .get_template("page.html")
        .render(
            content=content,
            analysis=content.analysis,
            summary_line=summary_line(content.analysis),
            reasons=_reasons(content.analysis),
            figures=figures,
            tables=analysis_tables(content.analysis),
            **({} if content.data is None else data_values(content.data)),
            charts=Markup(script_json(_charts(figures, len(sizes)))),  # noqa: S704 - escaped by script_json
            light=variables(LIGHT, len(sizes)),
            dark=variables(DARK, len(sizes)),
            scripts=scripts,
            policy=policy(*(script.integrity for script in scripts.values())),
        )
    )


def script_json(value: object) -> str:
    """JSON that may stand inside a ``<script>`` element.

    Everything but ASCII is escaped, and so are ``<``, ``>`` and ``&``, so that no text can end
    the element or open a comment in it.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _charts(figures: tuple[Figure, ...], count: int) -> dict[str, Any]:
    """What the page's script draws: colours are variables of the style sheet on screen."""
    screen = Ground(
        paper="var(--paper)",
        ink="var(--ink)",
        muted="var(--muted)",
        rule="var(--rule)",
        grid="var(--grid)",
        anchors=(),
        terms=tuple(f"var(--term-{index})" for index in range(len(LIGHT.terms))),
    )
    colours = tuple(f"var(--batch-{index})" for index in range(count))
    return {
        "figures": [
            {
                "key": figure.key,
                "spec": figure.spec(),
                "title": figure.picture_title(),
                "columns": figure.panels.columns,
                "width": figure.panels.width,
                "margin": figure.panels.margin,
                "frame": figure.panels.frame,
            }
            for figure in figures
        ],
        "screen": {**chart_config(colours, screen), "aria": False},
        "picture": {
            **chart_config(batch_size_colours(count, LIGHT), LIGHT),
            "background": LIGHT.paper,
            "padding": 16,
        },
    }


def summary_line(analysis: Analysis) -> str:
    """How much the study holds: batch sizes, replicates, trials, and how far they went."""
    facts = analysis.facts
    sizes = [str(size) for size in facts.batch_sizes]
    shown = ", ".join(sizes) if len(sizes) <= 12 else f"{sizes[0]} to {sizes[-1]} ({len(sizes)} of them)"
    parts = [
        f"Batch {'size' if len(sizes) == 1 else 'sizes'} {shown}",
        count(len(facts.replicates), "replicate"),
        count(facts.n_trials, "trial"),
        count(facts.last_epoch, "epoch") if facts.end_epoch is not None else facts.end_amount,
    ]
    how = {
        "linear": "learning rate in proportion to batch size",
        "sqrt": "learning rate with the root of batch size",
        "grid": "each batch size at its best learning rate",
    }
    parts += [how[found] for found in [analysis.learning_rates.how] if found in how]
    return " \u00b7 ".join(parts)


def _reasons(analysis: Analysis) -> tuple[str, ...]:
    """Reasons of the recommendation that the verdict does not already give."""
    told = " ".join(sentence.text for sentence in analysis.verdict)
    return tuple(reason.text for reason in analysis.recommendation.reasons if reason.text not in told)


@cache
def _vega() -> _Script:
    """Vega, Vega-Lite and Vega-Embed as one script, from vl-convert."""
    import vl_convert

    # The stub of vl-convert does not know that the snippet has a default.
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    return _script(bundle)


@cache
def _own_script() -> _Script:
    return _script((TEMPLATES / "page.js").read_text(encoding="utf-8"))


def _script(text: str) -> _Script:
    """A script as it will stand between its tags; the browser hashes exactly that."""
    safe = text.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    digest = base64.b64encode(hashlib.sha256(safe.encode()).digest()).decode()
    return _Script(Markup(safe), f"sha256-{digest}")  # noqa: S704 - the project's own script
