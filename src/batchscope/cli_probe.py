"""The command `batchscope probe`: parses, calls one function and prints."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from batchscope.cli_options import Change, Data, Limit, Weights
from batchscope.errors import Problem, StudyError

__all__ = ["probe"]


def probe(
    study: Annotated[
        str, typer.Argument(help="A built-in study (see 'studies') or a study file.", show_default=False)
    ],
    batch_sizes: Annotated[
        str, typer.Option(metavar="LOW..HIGH", help="Tried are LOW and its doubles, up to HIGH.")
    ] = "16..1024",
    most: Annotated[
        int | None,
        typer.Option(
            "--max", help="Never try a larger batch size than this, whatever the range.", show_default=False
        ),
    ] = None,
    data: Data = None,
    weights: Weights = None,
    limit: Limit = None,
    change: Change = None,
    seconds: Annotated[
        float, typer.Option(help="To train each stage at each batch size, about, once it is warm.")
    ] = 3.0,
    json: Annotated[
        bool, typer.Option("--json", help="Print what was found as JSON (see docs/json.md).")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page to this file.", show_default=False)] = None,
    figures: Annotated[
        Path | None,
        typer.Option(help="Write the figure into this folder as PNG and SVG.", show_default=False),
    ] = None,
) -> None:
    """Find which batch sizes fit in memory and how fast each trains, without running a study."""
    from batchscope.running.stopping import Stopped, stoppable

    try:
        with stoppable():
            from rich.console import Console

            from batchscope import api
            from batchscope.analysis import sizing_json
            from batchscope.loading import parse_change
            from batchscope.report.sizing import print_sizing, write_sizing_page, write_sizing_pictures
            from batchscope.running.progress import LinePrinter

            found = api.probe(
                study,
                batch_sizes=_range(batch_sizes),
                most=most,
                data=data,
                weights=weights,
                limit=limit,
                changes=dict(parse_change(text) for text in change or []),
                seconds=seconds,
                watcher=LinePrinter(Console(stderr=True)),
            )
            if html is not None:
                write_sizing_page(found, html)
                typer.echo(f"Page: {html}", err=json)
            if figures is not None:
                written = write_sizing_pictures(found, figures)
                typer.echo(f"Figures: {len(written)} files in {figures}", err=json)
            if json:
                typer.echo(sizing_json(found), nl=False)
            else:
                print_sizing(found, Console())
    except Stopped as stop:
        with suppress(OSError):  # the terminal may be gone
            typer.echo(f"Stopped by {stop}. Nothing is kept of a probe.", err=True)
        raise typer.Exit(stop.exit_code) from None


def _range(text: str) -> tuple[int, int]:
    found = re.fullmatch(r" *([0-9]{1,18})\.\.([0-9]{1,18}) *", text)
    if found is None:
        raise StudyError(
            "--batch-sizes", [Problem("batch_sizes", "must be a range such as 16..1024", repr(text))]
        )
    return int(found[1]), int(found[2])
