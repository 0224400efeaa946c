"""Prints the dependency group ``dev`` of pyproject.toml, for pips that do not know groups yet."""

import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"

if __name__ == "__main__":
    groups = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["dependency-groups"]
    print("\n".join(groups["dev"]))  # noqa: T201
