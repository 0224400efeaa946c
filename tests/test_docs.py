"""The documents say what the code does."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer
from pydantic import BaseModel

from batchscope.analysis import analyze
from batchscope.cli import app
from batchscope.history import COLUMNS
from batchscope.loading import parse_study
from batchscope.own_study import CommandStudy, FunctionSpec, FunctionStudy
from batchscope.published import published_history
from batchscope.spec import (
    Augmentation,
    DataSpec,
    FromLayer,
    LearningRate,
    ModelSpec,
    Stage,
    Study,
    Until,
)

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
TABLES = {
    "Top level": Study,
    "A command": CommandStudy,
    "A function": FunctionStudy,
    "`[function]`": FunctionSpec,
    "`[data]`": DataSpec,
    "`[model]`": ModelSpec,
    "`[[stages]]`": Stage,
    "`learning_rate = { ... }`": LearningRate,
    "`until = { ... }`": Until,
    "`trainable = { ... }`": FromLayer,
    "`[stages.augmentation]`": Augmentation,
}
PLURALS = {"integer": "integers", "number": "numbers", "table": "tables"}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}

Row = tuple[str, ...]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def sections(text: str) -> dict[str, str]:
    """Text below each heading of the second level."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def table_rows(text: str) -> list[Row]:
    """Cells of all tables' rows, without their heads."""
    rows: list[Row] = []
    lines = text.splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("|") and before.startswith("|") and not line.startswith("| ---"):
            rows.append(tuple(cell.strip() for cell in line.strip("|").split("|")))
    return rows


def branches(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The alternatives of a value, null left out: a TOML file cannot hold it."""
    return [branch for branch in schema.get("anyOf", [schema]) if branch.get("type") != "null"]


def kind(schema: dict[str, Any]) -> str:
    kinds = []
    for branch in branches(schema):
        name = "table" if "$ref" in branch else branch["type"]
        kinds.append(f"list of {PLURALS[kind(branch['items'])]}" if name == "array" else name)
    return " or ".join(kinds)


def values(schema: dict[str, Any]) -> str:
    found = []
    for branch in branches(schema):
        found += [f"{sign} {branch[key]}" for key, sign in BOUNDS.items() if key in branch]
        found += [f"`{value}`" for value in branch.get("enum", [])]
        found += ["not empty"] if branch.get("minLength") == 1 else []
        found += [f"`{branch['pattern']}`"] if "pattern" in branch else []
        if branch.get("type") == "array":
            least = branch["minItems"]
            found.append(f"{'exactly' if branch.get('maxItems') == least else 'at least'} {least}")
            found += [f"each {text}" for text in filter(None, [values(branch["items"])])]
    return ", ".join(found)


def default(model: type[BaseModel], name: str) -> str:
    field = model.model_fields[name]
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "see below"
    return "none" if value is None else f"`{json.dumps(value)}`"


@pytest.mark.parametrize("heading", TABLES)
def test_the_study_files_reference_has_every_key_and_no_other(heading: str):
    model = TABLES[heading]
    properties = model.model_json_schema()["properties"]
    expected = [
        (f"`{name}`", kind(schema), values(schema), default(model, name))
        for name, schema in properties.items()
    ]
    rows = table_rows(sections(read("docs/study-file.md"))[heading])
    assert [row[:4] for row in rows] == expected
    assert all(row[4] for row in rows)


def test_every_table_of_a_study_has_its_reference():
    kinds = (Study, CommandStudy, FunctionStudy)
    schemas = "".join(json.dumps(kind.model_json_schema()) for kind in kinds)
    found = set(re.findall(r'"\$ref": "#/\$defs/(\w+)"', schemas)) | {kind.__name__ for kind in kinds}
    assert found == {model.__name__ for model in TABLES.values()}


@pytest.mark.parametrize("name", ["README.md", "docs/study-file.md", "docs/own-code.md"])
def test_study_files_in_documents_are_valid(name: str):
    files = re.findall(r"^```toml\n(.*?)^```", read(name), flags=re.MULTILINE | re.DOTALL)
    assert files
    for text in files:
        assert parse_study(tomllib.loads(text), name).batch_sizes


def code(text: str) -> Iterator[str]:
    """Lines of fenced shell blocks, and code in running text."""
    fences = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
    for language, block in fences.findall(text):
        if language == "sh":
            yield from block.splitlines()
    yield from re.findall(r"`([^`\n]+)`", fences.sub("", text))


def commands() -> dict[str, set[str]]:
    """Every command of the command line with its options."""

    def walk(command: Any, path: str) -> Iterator[tuple[str, set[str]]]:
        yield path, {name for parameter in command.params for name in parameter.opts} | {"--help"}
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, f"{path} {name}")

    return dict(walk(typer.main.get_command(app), "batchscope"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_options_exist(document: Path):
    known = commands()
    for line in code(document.read_text(encoding="utf-8")):
        words = re.sub(r'"[^"]*"', "QUOTED", line.partition("#")[0]).split()
        if line.startswith("--"):
            assert {word for word in words if word.startswith("--")} <= set().union(*known.values()), line
        if words[:1] != ["batchscope"] or len(words) == 1:
            continue
        path = max((name for name in known if words[: name.count(" ") + 1] == name.split()), key=len)
        assert path != "batchscope", f"{line}: no such command"
        options = {word.partition("=")[0] for word in words if word.startswith("-")}
        assert options <= known[path], line


def test_the_readme_names_every_command():
    text = "\n".join(code(read("README.md")))
    groups = {"batchscope", "batchscope data", "batchscope data synthetic-cactus"}
    assert [name for name in commands().keys() - groups if name not in text] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_exist(document: Path):
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), flags=re.MULTILINE))
    named = {
        found[1] for line in code(document.read_text("utf-8")) if (found := re.match(r"make ([a-z]+)", line))
    }
    assert named <= targets


def anchors(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_resolve(document: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = unquote(target).partition("#")
        path = document.parent / name if name else document
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def test_the_readme_quotes_the_verdict_word_for_word():
    quoted = re.sub(
        r"^> ?",
        "",
        "\n".join(re.findall(r"^>.*$", read("README.md"), flags=re.MULTILINE)),
        flags=re.MULTILINE,
    )
    paragraphs = [" ".join(part.split()) for part in quoted.split("\n\n")]
    said = [sentence.text for sentence in analyze(published_history()).verdict]
    assert paragraphs[0] == said[0]
    assert [text for text in paragraphs if text not in said] == []


def test_the_architecture_has_the_historys_columns_and_the_layers():
    parts = sections(read("docs/architecture.md"))
    assert [row[0] for row in table_rows(parts["The history"])] == [f"`{name}`" for name in COLUMNS]
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = [line.replace("batchscope.", "").split(" | ") for line in contracts[0]["layers"]]
    named = [re.findall(r"`(\w+)`", row[0]) for row in table_rows(parts["Layers"])]
    assert named == layers


def test_the_architecture_has_a_reason_for_every_dependency():
    project = tomllib.loads(read("pyproject.toml"))

    def names(requirements: list[str]) -> set[str]:
        return {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}  # type: ignore[index]

    text = sections(read("docs/architecture.md"))["Dependencies, and why"]
    listed = {row[0].strip("`") for row in table_rows(text)}
    assert listed == names(project["project"]["dependencies"]) | names(project["dependency-groups"]["dev"])
    extras = project["project"]["optional-dependencies"].values()
    others = {name for extra in extras for name in names(extra)} | names(project["build-system"]["requires"])
    assert {name for name in others if f"`{name}`" not in text} == set()


def test_the_citation_names_the_version():
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert f"\nversion: {version}\n" in read("CITATION.cff")
