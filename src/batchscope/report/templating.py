"""What the HTML pages have in common: templates, colours, the data section, the security policy."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2

from batchscope.report.content import DataSample
from batchscope.report.sample import MANY_CLASSES, class_range, class_rows, thumbnails
from batchscope.report.theme import Ground, batch_size_colours

__all__ = ["TEMPLATES", "data_values", "environment", "policy", "variables"]

TEMPLATES = Path(__file__).parent / "templates"
_GROUND_NAMES = ("paper", "ink", "muted", "rule", "grid")


def data_values(data: DataSample) -> dict[str, object]:
    """What the template ``data.html`` shows."""
    rows = class_rows(data)
    return {
        "data": data,
        "class_rows": rows,
        "class_range": class_range(rows),
        "many_classes": MANY_CLASSES,
        "thumbnails": thumbnails(data),
    }


def variables(ground: Ground, count: int) -> dict[str, str]:
    """Values of the style sheet's variables on a ground, for so many batch sizes."""
    named = {name: str(getattr(ground, name)) for name in _GROUND_NAMES}
    colours = batch_size_colours(count, ground)
    named |= {f"term-{index}": colour for index, colour in enumerate(ground.terms)}
    return named | {f"batch-{index}": colour for index, colour in enumerate(colours)}


def policy(*hashes: str) -> str:
    """A content security policy that admits no connection, and only scripts with these hashes."""
    allowed = " ".join(f"'{value}'" for value in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def environment() -> jinja2.Environment:
    """Templates that escape what they are given and refuse to leave anything out."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
