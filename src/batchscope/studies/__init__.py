"""The built-in study files, and how any study is found by name or path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from batchscope.errors import Problem, StudyError
from batchscope.loading import apply_changes, parse_study, read_toml
from batchscope.spec import Study

__all__ = ["built_in_studies", "load_study", "study_text"]


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
    except OSError as error:
        rule = (
            f"must be a built-in study ({', '.join(built_in_studies())}) or a readable file: {error.strerror}"
        )
        raise StudyError(name, [Problem("", rule)]) from error


def load_study(name: str, changes: Iterable[tuple[str, Any]] = ()) -> Study:
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
        raw = _relative_to(raw, Path(name).parent)
    listed: Sequence[tuple[str, Any]] = list(changes)
    return parse_study(apply_changes(raw, listed) if listed else raw, name)


def _relative_to(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    changed = dict(raw)
    data, model = raw.get("data"), raw.get("model")
    if (
        isinstance(data, dict)
        and isinstance(data.get("source"), str)
        and data["source"] != "synthetic-cactus"
    ):
        changed["data"] = {**data, "source": str(folder / Path(data["source"]).expanduser())}
    if isinstance(model, dict) and isinstance(model.get("weights"), str) and _is_file(model["weights"]):
        changed["model"] = {**model, "weights": str(folder / Path(model["weights"]).expanduser())}
    return changed


def _is_file(weights: str) -> bool:
    return weights not in ("imagenet", "none") and not weights.startswith("pypi:")
