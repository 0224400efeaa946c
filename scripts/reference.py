"""Writes what documents say of keys and options from the code that defines them.

The first four columns of the tables in docs/study-file.md come from the pydantic models; the last one, what a
key means, is prose and is kept. docs/commands.md is written as a whole, from the command line's own help.

`python scripts/reference.py` writes both; with `--check` it only says which of them have drifted.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from difflib import unified_diff
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from rich.text import Text

from batchscope.cli import app
from batchscope.own_study import CommandStudy, FunctionSpec, FunctionStudy
from batchscope.spec import (
    Augmentation,
    DataSpec,
    FromLayer,
    LearningRate,
    ModelSpec,
    Stage,
    Study,
    TargetSpec,
    Until,
    UntilCi,
)

DOCS = Path(__file__).parents[1] / "docs"
TABLES: dict[str, type[BaseModel]] = {
    "Top level": Study,
    "`[[targets]]`": TargetSpec,
    "A command": CommandStudy,
    "A function": FunctionStudy,
    "`[function]`": FunctionSpec,
    "`[data]`": DataSpec,
    "`[model]`": ModelSpec,
    "`[[stages]]`": Stage,
    "`learning_rate = { ... }`": LearningRate,
    "`until = { ... }`": Until,
    "`[until_ci]`": UntilCi,
    "`trainable = { ... }`": FromLayer,
    "`[stages.augmentation]`": Augmentation,
}
"""The heading in docs/study-file.md of each model's table."""
HEAD = "| Key | Type | Values | Default | Meaning |\n| --- | --- | --- | --- | --- |\n"
PLURALS = {"integer": "integers", "number": "numbers", "table": "tables", "string": "strings"}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}

COMMANDS = """\
# Commands

Written by `scripts/reference.py` from the command line itself, whose `--help` says the same. What a study may hold stands in
[study-file.md](study-file.md), what the page says in [how-to-read.md](how-to-read.md).

Exit codes: 0, all went well; 1, a trial failed or diverged and the others are stored; 2, the command, the study or the data
could not be accepted; 128 and the number of the signal that stopped the run, as 130 for Ctrl-C and 143 for SIGTERM.
"""  # noqa: E501  # documents have longer lines


def main(arguments: list[str]) -> int:
    """Writes the references, or with `--check` holds them against what would be written.

    Returns:
        The exit code: 1 where a check found a difference.
    """
    drifted = False
    for path, text in references().items():
        committed = path.read_text(encoding="utf-8") if path.exists() else ""
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
        elif committed != text:
            drifted = True
            names = f"{path.name} as committed", f"{path.name} by the code"
            sys.stdout.writelines(f"{line}\n" for line in _difference(committed, text, names))
    if drifted:
        sys.stdout.write("A reference does not say what the code does: run python scripts/reference.py\n")
    return int(drifted)


def _difference(committed: str, text: str, names: tuple[str, str]) -> Iterator[str]:
    return unified_diff(committed.splitlines(), text.splitlines(), *names, lineterm="")


def references() -> dict[Path, str]:
    """What each generated document must hold."""
    study_file = DOCS / "study-file.md"
    return {
        study_file: study_reference(study_file.read_text(encoding="utf-8")),
        DOCS / "commands.md": command_reference(),
    }


def study_reference(page: str) -> str:
    """The page with the tables of `TABLES` made anew; meanings are kept, and empty for new keys.

    Raises:
        ValueError: A heading or its table is missing.
    """
    for heading, model in TABLES.items():
        pattern = re.compile(
            rf"(^## {re.escape(heading)}\n(?:(?!## |\| ).*\n)*){re.escape(HEAD)}((?:\|.*\n)*)", re.MULTILINE
        )
        found = pattern.search(page)
        if found is None:
            raise ValueError(f"docs/study-file.md needs the heading {heading!r} with a table of keys")
        rows = [[cell.strip() for cell in line[1:-1].split("|", 4)] for line in found[2].splitlines()]
        meanings = {row[0]: row[-1] for row in rows}
        page = f"{page[: found.start()]}{found[1]}{HEAD}{_table(model, meanings)}{page[found.end() :]}"
    return page


def _table(model: type[BaseModel], meanings: dict[str, str]) -> str:
    lines = []
    for name, schema in model.model_json_schema()["properties"].items():
        cells = f"`{name}`", kind(schema), values(schema), default(model, name)
        shown = "".join(f" {cell} |" if cell else " |" for cell in cells)
        meaning = meanings.get(cells[0], "")
        lines.append(f"|{shown} {meaning} |\n" if meaning else f"|{shown} |\n")
    return "".join(lines)


def kind(schema: dict[str, Any]) -> str:
    """The TOML type that a key's JSON schema asks for."""
    kinds = []
    for branch in _branches(schema):
        name = "table" if "$ref" in branch else branch["type"]
        kinds.append(f"list of {PLURALS[kind(branch['items'])]}" if name == "array" else name)
    return " or ".join(kinds)


def values(schema: dict[str, Any]) -> str:
    """The values that a key's JSON schema admits; empty where its type says all."""
    found = []
    for branch in _branches(schema):
        found += [f"{sign} {branch[key]}" for key, sign in BOUNDS.items() if key in branch]
        found += [f"`{value}`" for value in branch.get("enum", [])]
        found += ["not empty"] if branch.get("minLength") == 1 else []
        found += [f"`{branch['pattern']}`"] if "pattern" in branch else []
        if branch.get("type") == "array":
            if (least := branch.get("minItems", 0)) > 0:
                found.append(f"{'exactly' if branch.get('maxItems') == least else 'at least'} {least}")
            found += [f"each {text}" for text in filter(None, [values(branch["items"])])]
    return ", ".join(found)


def default(model: type[BaseModel], name: str) -> str:
    """What holds where a key is absent."""
    field = model.model_fields[name]
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "see below"
    return "none" if value is None else f"`{json.dumps(value)}`"


def _branches(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The alternatives of a value, null left out: a TOML file cannot hold it."""
    return [branch for branch in schema.get("anyOf", [schema]) if branch.get("type") != "null"]


def command_reference() -> str:
    """A section for each command, in the order of `batchscope --help`."""
    return COMMANDS + "".join(_sections(typer.main.get_command(app), "batchscope"))


def _sections(command: Any, path: str) -> Iterator[str]:
    """A command's section, and those of the commands below it. Typer's types are not exported, hence Any."""
    context = command.make_context(path, [], resilient_parsing=True)
    usage = re.sub(r"[{}]", "", " ".join(command.collect_usage_pieces(context))).upper()
    rows = "".join(_row(parameter, context) for parameter in command.get_params(context))
    table = f"| Argument or option | Default | Meaning |\n| --- | --- | --- |\n{rows}"
    yield f"\n## `{path}`\n\n{command.help}\n\n```text\n{path} {usage}\n```\n\n{table}"
    for name, child in getattr(command, "commands", {}).items():
        yield from _sections(child, f"{path} {name}")


def _row(parameter: Any, context: Any) -> str:
    """An argument or option: its help ends with what Typer says of its default."""
    shown, text = parameter.get_help_record(context)
    if parameter.param_type_name == "argument":
        shown = parameter.name.upper() if parameter.metavar is None else parameter.metavar
    told = text.removeprefix(parameter.help).strip()
    standard = "required" if parameter.required else told.removeprefix("[default: ").removesuffix("]")
    if standard not in ("", "required"):
        standard = f"`{standard}`"
    repeated = " May be given several times." if parameter.multiple else ""
    meaning = f"{Text.from_markup(parameter.help).plain}{repeated}".replace("|", "\\|")
    return f"| `{shown}` | {standard} | {meaning} |\n".replace("|  |", "| |")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
