"""The analysis in a terminal: verdict first, then tables."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from batchscope.analysis.results import Analysis, Sentence
from batchscope.report.tables import Cell, Table, analysis_tables, summary_of

__all__ = ["print_analysis", "rich_table", "summary_table"]


def summary_table(analysis: Analysis) -> RichTable:
    """Means over replicates per batch size at the chosen epochs, for a terminal."""
    return rich_table(summary_of(analysis))


def print_analysis(analysis: Analysis, console: Console) -> None:
    """Prints the verdict, the notes, the recommendation and all tables.

    Text from study files and histories is printed as it is: Rich markup in it means nothing.
    """
    console.print(Text("Verdict", style="bold"))
    console.print(_listed(analysis.verdict))
    console.print(Text(f"Recommendation: {analysis.recommendation.status.replace('_', ' ')}", style="bold"))
    console.print(_listed(analysis.recommendation.reasons))
    if analysis.notes:
        console.print(Text("To keep in mind", style="bold"))
        console.print(_listed(analysis.notes))
    for table in analysis_tables(analysis):
        for part in _fitting(table, console):
            console.print(rich_table(part), "")


def _listed(sentences: tuple[Sentence, ...]) -> Group:
    return Group(*(Padding(Text(sentence.text), (0, 0, 1, 2)) for sentence in sentences))


def _fitting(table: Table, console: Console) -> Iterator[Table]:
    """The table, or one for each name in its first column where it is wider than the terminal."""
    wide = (
        console.measure(rich_table(table), options=console.options.update(width=1000)).maximum > console.width
    )
    names = list(dict.fromkeys(row[0].text for row in table.rows))
    if not wide or table.numeric(0) or len(names) == len(table.rows):
        yield table
        return
    for name in names:
        rows = tuple(row[1:] for row in table.rows if row[0].text == name)
        note = table.note if name == names[-1] else ""
        title = f"{table.title}: {name}" if name else table.title
        yield replace(table, title=title, note=note, columns=table.columns[1:], rows=rows)


def rich_table(table: Table) -> RichTable:
    """A table for a terminal; Rich markup in its texts means nothing."""
    drawn = RichTable(
        title=Text(table.title, style="bold"),
        caption=Text(table.note, style="dim"),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        show_edge=False,
    )
    for index, name in enumerate(table.columns):
        side: Literal["right", "left"] = "right" if table.numeric(index) else "left"
        drawn.add_column(Text(_head(name, [row[index] for row in table.rows])), justify=side, overflow="fold")
    for row in table.rows:
        drawn.add_row(*(_text(cell) for cell in row))
    return drawn


def _head(name: str, cells: Sequence[Cell]) -> str:
    """A column's head in lines no longer than its cells and words make the column anyway.

    Rich narrows the widest columns first, words in them or not, so heads must not make them wide.
    """
    lines = [line for cell in cells for line in (cell.text, *cell.detail.split("\n"))]
    return textwrap.fill(name, max(len(part) for part in (*lines, *name.split())), break_on_hyphens=False)


def _text(cell: Cell) -> Text:
    text = Text(cell.text)
    return text.append(f"\n{cell.detail}", style="dim") if cell.detail else text
