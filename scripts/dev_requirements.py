"""Prints a dependency group of pyproject.toml, for pips that know no groups yet: `dev`, or the one named."""

import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"

if __name__ == "__main__":
    groups = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["dependency-groups"]
    print("\n".join(groups[sys.argv[1] if len(sys.argv) > 1 else "dev"]))  # noqa: T201
