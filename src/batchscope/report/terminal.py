"""The analysis in a terminal: verdict first, then tables."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from batchscope.analysis.results import Analysis, Sentence
from batchscope.report.tables import Cell, Table, analysis_tables, summary_of

__all__ = ["print_analysis", "summary_table"]


def summary_table(analysis: Analysis) -> RichTable:
    """Means over replicates per batch size at the chosen epochs, for a terminal."""
    return _rich(summary_of(analysis))


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
        console.print(_rich(table), "")


def _listed(sentences: tuple[Sentence, ...]) -> Group:
    return Group(*(Padding(Text(sentence.text), (0, 0, 1, 2)) for sentence in sentences))


def _rich(table: Table) -> RichTable:
    drawn = RichTable(
        title=Text(table.title, style="bold"),
        caption=Text(table.note, style="dim"),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
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
