"""What was found about batch sizes without a run: in a terminal, as pictures, and as a page."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from batchscope.analysis.sizing import Sizing
from batchscope.analysis.sizing_words import advice, sizing_notes
from batchscope.report.files import replace_file
from batchscope.report.pace_tables import sizing_tables
from batchscope.report.pictures import write_pictures
from batchscope.report.terminal import rich_table

__all__ = ["print_sizing", "sizing_page_html", "write_sizing_page", "write_sizing_pictures"]


def print_sizing(found: Sizing, console: Console) -> None:
    """Prints the advice, the notes and the tables; Rich markup in names of stages means nothing."""
    console.print(Text(advice(found).text), "")
    for note in sizing_notes(found):
        console.print(Text(note.text, style="dim"))
    for table in sizing_tables(found):
        console.print("", rich_table(replace(table, note="")))
        console.print(Text(table.note, style="dim"))


def write_sizing_pictures(found: Sizing, folder: Path) -> list[Path]:
    """Writes the figure as PNG and SVG; nothing where no batch size fits.

    Raises:
        ReportError: A file cannot be written.
    """
    from batchscope.report.pace import sizing_figure, sizing_info

    info = sizing_info(found)
    return [] if info is None else write_pictures([sizing_figure(info)], len(info.batch_sizes), folder)


def write_sizing_page(found: Sizing, path: Path) -> None:
    """Writes a page of one file that needs nothing else and holds no script.

    Raises:
        ReportError: The file cannot be written.
    """
    replace_file(path, sizing_page_html(found).encode())


def sizing_page_html(found: Sizing) -> str:
    """The page as text."""
    from batchscope.report.pace import sizing_figure, sizing_info
    from batchscope.report.render import svg
    from batchscope.report.templating import environment, policy, variables
    from batchscope.report.theme import DARK, LIGHT

    info = sizing_info(found)
    drawing = None if info is None else svg(sizing_figure(info), len(info.batch_sizes)).encode()
    return (
        environment()
        .get_template("sizing.html")
        .render(
            found=found,
            advice=advice(found).text,
            notes=[note.text for note in sizing_notes(found)],
            tables=sizing_tables(found),
            picture="" if drawing is None else base64.b64encode(drawing).decode(),
            picture_title="" if info is None else info.title,
            light=variables(LIGHT, 1),
            dark=variables(DARK, 1),
            policy=policy(),
        )
    )
