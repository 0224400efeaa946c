"""The documents say what the code does."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer
from rich.text import Text
from scipy import stats

import batchscope
from batchscope.analysis import analyze
from batchscope.cli import app
from batchscope.history import COLUMNS
from batchscope.loading import parse_change, parse_study
from batchscope.own_study import CommandStudy, FunctionStudy
from batchscope.published import published_history
from batchscope.report.figures import all_figures
from batchscope.spec import Study
from batchscope.studies import built_in_studies, load_study
from scripted import script

pictures, reference = script("pictures"), script("reference")

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
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


@pytest.mark.parametrize("path", reference.references(), ids=lambda path: path.name)
def test_references_say_what_the_code_does(path: Path):
    assert path.read_text(encoding="utf-8") == reference.references()[path]


@pytest.mark.parametrize("heading", reference.TABLES)
def test_the_study_files_reference_has_every_key_with_its_meaning(heading: str):
    rows = table_rows(sections(read("docs/study-file.md"))[heading])
    assert [row[0] for row in rows] == [f"`{name}`" for name in reference.TABLES[heading].model_fields]
    assert [row[0] for row in rows if not row[-1]] == []


def test_every_table_of_a_study_has_its_reference():
    kinds = (Study, CommandStudy, FunctionStudy)
    schemas = "".join(json.dumps(kind.model_json_schema()) for kind in kinds)
    found = set(re.findall(r'"\$ref": "#/\$defs/(\w+)"', schemas)) | {kind.__name__ for kind in kinds}
    assert found == {model.__name__ for model in reference.TABLES.values()}


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("study-file.md", "| `split_seed` | integer | ≥ 0, < 4294967296 |", "| `split_seed` | number | |"),
        ("commands.md", "| `--cache-limit SIZE` | `8GB` |", "| `--cache-limit SIZE` | `9GB` |"),
    ],
)
def test_a_reference_that_drifted_is_shown_and_mended(
    name: str,
    before: str,
    after: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    for path in reference.references():
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(reference, "DOCS", tmp_path)
    assert reference.main(["--check"]) == 0
    right = (tmp_path / name).read_text(encoding="utf-8")
    assert right.count(before) == 1
    (tmp_path / name).write_text(right.replace(before, after), encoding="utf-8")
    assert reference.main(["--check"]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert [line[:1] for line in shown if after in line or before in line] == ["-", "+"]
    assert reference.main([]) == 0
    assert (tmp_path / name).read_text(encoding="utf-8") == right


def test_a_key_that_is_new_gets_a_row_without_meaning():
    page = read("docs/study-file.md")
    found = re.search(r"^\| `limit` \|.*\n", page, flags=re.MULTILINE)
    assert found is not None
    again = reference.study_reference(page.replace(found[0], ""))
    assert again == page.replace(found[0], "| `limit` | integer | ≥ 10 | none | |\n")


def test_help_texts_lose_nothing_to_rich_markup():
    helps = [parameter.help for command in walk().values() for parameter in command.params if parameter.help]
    assert [text for text in helps if Text.from_markup(text).plain != text.replace("\\[", "[")] == []


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


def walk() -> dict[str, Any]:
    """Every command of the command line by what is typed to get at it."""

    def below(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        yield path, command
        for name, child in getattr(command, "commands", {}).items():
            yield from below(child, f"{path} {name}")

    return dict(below(typer.main.get_command(app), "batchscope"))


def commands() -> dict[str, set[str]]:
    """Every command with its options."""
    return {
        path: {name for parameter in command.params for name in parameter.opts} | {"--help"}
        for path, command in walk().items()
    }


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


def shell_lines(text: str) -> list[list[str]]:
    """The words of each command in fenced shell blocks: lines joined, comments and redirections left out."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    commands = (shlex.split(line.partition(" > ")[0], comments=True) for line in lines)
    return [words for words in commands if words]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_are_accepted(document: Path):
    """Arguments, options, their values and keys of built-in studies are right; nothing is run."""
    for words in shell_lines(document.read_text(encoding="utf-8")):
        if words[0] != "batchscope":
            continue
        command, rest = walk()["batchscope"], words[1:]
        while hasattr(command, "commands"):
            command = command.commands[rest.pop(0)]
        given = command.make_context(command.name, rest).params
        if given.get("study") in built_in_studies():
            load_study(given["study"], [parse_change(text) for text in given.get("change") or []])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_in_documents_uses_what_there_is(document: Path):
    text = document.read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id not in ("batchscope", "bs") or node.attr in batchscope.__all__, node.attr


def test_the_api_reference_has_every_public_name():
    named = re.findall(r"^\.\. auto\w+:: batchscope\.(\w+)", read("docs/api.md"), flags=re.MULTILINE)
    assert set(batchscope.__all__) <= set(named)


def test_the_quick_start_shows_an_example_that_is_run():
    blocks = re.findall(r"^```python\n(.*?)^```", read("docs/quick-start.md"), flags=re.MULTILINE | re.DOTALL)
    assert [block.strip() for block in blocks] == [
        read("examples/mlp_classifier.py").split('"""\n', 1)[1].strip()
    ]


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


@pytest.mark.parametrize("name", ["README.md", "docs/how-to-read.md"])
def test_the_verdict_is_quoted_word_for_word(name: str):
    quotes = re.findall(r"(?:^>.*\n)+", read(name), flags=re.MULTILINE)
    quoted = "\n\n".join(re.sub(r"^> ?", "", quote, flags=re.MULTILINE) for quote in quotes)
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\n+", quoted)]
    said = [sentence.text for sentence in analyze(published_history()).verdict]
    assert paragraphs[0] == said[0]
    assert [text for text in paragraphs if text not in said] == []


def test_the_guide_shows_every_figure_of_the_page():
    history = published_history()
    figures = {figure.key for figure in all_figures(history, analyze(history))} - {pictures.NOT_SHOWN}
    probed = {"findings-vehicles-2019", "batchnorm-lag"}
    shown = re.findall(r"\]\(images/([\w-]+)\.png\)", read("docs/how-to-read.md"))
    assert sorted(shown) == sorted(figures | probed)


def test_the_guide_tells_how_wide_intervals_are():
    rows = table_rows(sections(read("docs/how-to-read.md"))["What an interval means"])
    expected = [(n, stats.t.ppf(0.975, n - 1) / n**0.5) for n in (2, 3, 5, 10)]
    assert rows == [(str(n), f"{factor:.2f} standard deviations") for n, factor in expected]


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
    groups = {name for group in project["dependency-groups"].values() for name in names(group)}
    assert listed == names(project["project"]["dependencies"]) | groups
    extras = project["project"]["optional-dependencies"].values()
    others = {name for extra in extras for name in names(extra)} | names(project["build-system"]["requires"])
    assert {name for name in others if f"`{name}`" not in text} == set()


def test_the_citation_names_the_version():
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert f"\nversion: {version}\n" in read("CITATION.cff")
