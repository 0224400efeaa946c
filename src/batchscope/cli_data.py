"""The commands `batchscope data ...`: each parses, calls one thing and prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["data_app"]

data_app = typer.Typer(help="Get, make or look at data to study.", no_args_is_help=True)


@data_app.command("synthetic-cactus")
def synthetic_cactus(
    to: Annotated[Path, typer.Option(help="Folder to write train.csv and train.zip to.")],
    images: Annotated[int, typer.Option(help="How many.")] = 17_500,
    seed: Annotated[int, typer.Option(help="Same seed, same images.")] = 2019,
) -> None:
    """Generate aerial views with and without a columnar cactus, in the competition's layout."""
    from batchscope.data import write_cacti

    write_cacti(to, images, seed)
    typer.echo(to)


@data_app.command("aerial-cactus")
def aerial_cactus(
    to: Annotated[Path, typer.Option(help="Folder to put the competition's files in.")],
) -> None:
    """Fetch Kaggle's Aerial Cactus Identification images (needs a Kaggle account)."""
    from batchscope.data import fetch_competition

    typer.echo(fetch_competition(to))


@data_app.command("describe")
def describe_data(
    source: Annotated[
        str,
        typer.Argument(help="Folder, .npz, .csv or .parquet file, keras:NAME, or synthetic-cactus."),
    ],
    label: Annotated[
        str | None, typer.Option(help="Column of labels of a table of features.", show_default=False)
    ] = None,
    validation: Annotated[
        str | None, typer.Option(help="Folder or file with the examples for validation.", show_default=False)
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with a sample to this file.", show_default=False)
    ] = None,
) -> None:
    """Show what a source holds: classes, sizes, ranges, and what cannot be used."""
    from rich.console import Console

    from batchscope.data import describe, load_and_split
    from batchscope.loading import parse_data
    from batchscope.report.data_page import data_sample, print_description, write_data_page

    given = {"source": source, "label": label, "validation": validation}
    spec = parse_data({key: value for key, value in given.items() if value is not None}, "data describe")
    dataset, split = load_and_split(spec)
    description, sample = describe(dataset, split), data_sample(dataset, split)
    print_description(description, sample, Console())
    if html is not None:
        write_data_page(description, sample, html)
        typer.echo(f"Page: {html}")
