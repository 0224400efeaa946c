"""Study files: reading, changing, writing and comparing them.

Whatever is wrong with a study file is reported at once, each problem with its key, rule and value.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from batchscope.errors import Problem, StudyError
from batchscope.own_study import AnyStudy, FunctionSpec, study_kind
from batchscope.recipe import BUDGETS, Augmentation, FromLayer, LearningRate, Stage, TargetSpec, Until
from batchscope.spec import BaseStudy, DataSpec, ModelSpec

__all__ = [
    "EXTENDED",
    "apply_changes",
    "difference",
    "dump_study",
    "extension",
    "parse_change",
    "parse_data",
    "parse_study",
    "parse_targets",
    "read_toml",
    "study_values",
]

# Of keys of one table that exclude each other, a new one takes the place of the old one.
_ALTERNATIVES = (
    frozenset(BUDGETS),
    frozenset({"base", "grid"}),
    frozenset({"warmup_epochs", "warmup_updates"}),
    frozenset({"backbone", "network"}),
)
# What a value becomes where a key below it is set, of those that may be a table or a plain value.
_AS_TABLE: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "trainable": lambda _: {},
    "learning_rate": lambda value: {"base": value},
}
EXTENDED = ("replicates", "until_ci", "targets")
"""Keys in which a study may be given more: no trial that is planned depends on them."""
# Another source of the same function is told, and does not make it another study.
_TOLD = "function.sha256"
# A study needs four levels; what reads, copies and shows it calls itself at each.
_DEEPEST = 20
_NESTING = f"tables and lists must nest at most {_DEEPEST} deep"
_EXAMPLES = {"FromLayer": "{ from_layer = 100 }", "LearningRate": "{ base = 0.01 }"}
_TABLES: Mapping[str, type[BaseModel]] = {
    "data": DataSpec,
    "model": ModelSpec,
    "stages": Stage,
    "augmentation": Augmentation,
    "trainable": FromLayer,
    "learning_rate": LearningRate,
    "until": Until,
    "targets": TargetSpec,
    "function": FunctionSpec,
}


def read_toml(text: str, source: str) -> dict[str, Any]:
    """Parses TOML.

    Raises:
        StudyError: The text is not TOML, and tells line and column; or it nests too deeply, or holds
            an integer beyond 64 bits, to which TOML limits them.
    """
    try:
        raw = tomllib.loads(text)
    except RecursionError as error:
        raise StudyError(source, [Problem("", _NESTING)]) from error
    except ValueError as error:  # too many digits are none of TOML's errors
        raise StudyError(source, [Problem("", f"must be TOML: {error}")]) from error
    if (rule := _excess(raw)) is not None:
        raise StudyError(source, [Problem("", rule)])
    return raw


def parse_study(raw: Mapping[str, Any], source: str) -> AnyStudy:
    """Validates a study, of the kind that its keys tell.

    Args:
        raw: The parsed TOML.
        source: Names the file or built-in study in error messages.

    Raises:
        StudyError: With every problem found.
    """
    kind = study_kind(raw)
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise StudyError(source, _problems(error, raw, kind)) from error


def parse_data(raw: Mapping[str, Any], source: str) -> DataSpec:
    """Validates the description of data alone, as it stands under ``[data]``.

    Args:
        raw: Its keys and values.
        source: Names their origin in error messages.

    Raises:
        StudyError: With every problem found.
    """
    try:
        return DataSpec.model_validate(raw)
    except ValidationError as error:
        raise StudyError(source, _problems(error, raw, DataSpec)) from error


def parse_change(text: str) -> tuple[str, Any]:
    """Splits ``KEY=VALUE``; the value is read as TOML, and as text where it is not TOML.

    Raises:
        StudyError: There is no ``=`` or no key.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise StudyError("--set", [Problem(repr(text), "must have the form KEY=VALUE")])
    try:
        parsed = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):
        return key.strip(), value
    return key.strip(), parsed["value"] if parsed.keys() == {"value"} else value


def parse_targets(texts: Sequence[str], source: str = "--target") -> list[TargetSpec]:
    """Reads targets written as ``METRIC=VALUE``, such as ``val_accuracy=0.85``.

    Args:
        texts: Each target once.
        source: Names their origin in error messages.

    Raises:
        StudyError: With every problem found.
    """
    found: list[TargetSpec] = []
    problems: list[Problem] = []
    for text in texts:
        metric, _, value = text.partition("=")
        try:
            target = TargetSpec(metric=metric.strip(), value=float(value))  # type: ignore[arg-type]  # checked there
        except ValidationError as error:
            broken = _problems(error, {"metric": metric, "value": value}, TargetSpec)
            problems += [Problem(repr(text), f"{problem.key} {problem.rule}".lstrip()) for problem in broken]
        except ValueError:
            problems.append(Problem(repr(text), "must have the form METRIC=VALUE, such as val_accuracy=0.85"))
        else:
            if target in found:
                problems.append(Problem(repr(text), "each target must be given once"))
            found.append(target)
    if problems:
        raise StudyError(source, problems)
    return found


def apply_changes(
    raw: Mapping[str, Any], changes: Iterable[tuple[str, Any]], source: str = "--set"
) -> dict[str, Any]:
    """Sets dotted keys in a study; a stage is addressed by its name, ``stages.fine_tuning.epochs``.

    Args:
        raw: The parsed TOML; left as it is.
        changes: Pairs of dotted key and value, applied in order. Keys are not checked here:
            `parse_study` refuses what a study does not know.
        source: Names the origin of the changes in error messages.

    Raises:
        StudyError: A key leads through something that is not a table, or names no stage; a key or
            value nests too deeply, or a value holds an integer beyond 64 bits.
    """
    result: dict[str, Any] = _copy(raw)
    problems: list[Problem] = []
    for key, value in changes:
        problem = _set(result, key, value)
        if problem is not None:
            problems.append(problem)
    if problems:
        raise StudyError(source, problems)
    return result


def dump_study(study: BaseStudy) -> str:
    """Writes a study as TOML, every value spelled out, so that later defaults cannot change it."""
    return tomli_w.dumps(study.model_dump(mode="json", exclude_none=True))


def difference(before: BaseStudy, after: BaseStudy) -> list[str]:
    """Lists what makes one study another than the one before, a line per key: ``seed: 1 -> 2``.

    Another source of the same function is no difference, nor is an `extension`.
    """
    return [line for line, extends in _changes(before, after) if not extends]


def extension(before: BaseStudy, after: BaseStudy) -> list[str]:
    """Lists what a study is given more of, of `EXTENDED`, a line per key.

    Replicates and the most of them may grow; `until_ci` may come, or ask for another half width; targets
    may be any others. A search is never forgotten: without `until_ci`, or by another of its metrics, it
    is another study, for the page tells by it what intervals are worth.
    """
    return [line for line, extends in _changes(before, after) if extends]


def _changes(before: BaseStudy, after: BaseStudy) -> list[tuple[str, bool]]:
    """A line for each key that differs, and whether it extends the study."""
    old, new = _flatten(before.model_dump(mode="json")), _flatten(after.model_dump(mode="json"))
    keys = [*old, *(key for key in new if key not in old)]
    return [
        (f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}", _extends(key, old, new))
        for key in keys
        if old.get(key) != new.get(key) and key != _TOLD
    ]


def _extends(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    if key in ("replicates", "until_ci.max_replicates"):
        return key not in old or (key in new and bool(old[key] < new[key]))
    if key == "until_ci.metric":
        return key not in old
    return key == "targets" or (key == "until_ci.half_width" and key in new)


def study_values(study: BaseStudy) -> dict[str, Any]:
    """A study's values by dotted key, such as ``stages.fine_tuning.epochs``, but for those that are unset."""
    return _flatten(study.model_dump(mode="json", exclude_none=True))


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value


def _excess(value: Any, levels: int = _DEEPEST) -> str | None:
    """The rule on nesting or on integers that a value breaks."""
    if levels < 0:
        return _NESTING
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**63 else "integers must fit into 64 bits"
    if not isinstance(value, Mapping | list):
        return None
    items = value.values() if isinstance(value, Mapping) else value
    return next((rule for item in items if (rule := _excess(item, levels - 1)) is not None), None)


def _set(table: dict[str, Any], dotted: str, value: Any) -> Problem | None:
    *path, last = dotted.split(".")
    rule = _excess(value, _DEEPEST - len(path))
    if rule is not None:
        return Problem(dotted, rule)
    here: Any = table
    for depth, part in enumerate(path):
        if isinstance(here, list):
            named = [stage for stage in here if isinstance(stage, dict) and stage.get("name") == part]
            if not named:
                names = ", ".join(str(stage.get("name")) for stage in here if isinstance(stage, dict))
                return Problem(dotted, f"must name one of the stages {names}", part)
            here = named[0]
        elif isinstance(here.get(part, {}), dict | list):
            _displace(here, part)
            here = here.setdefault(part, {})
        elif part in _AS_TABLE:
            here[part] = _AS_TABLE[part](here[part])
            here = here[part]
        else:
            return Problem(dotted, f"{'.'.join(path[: depth + 1])} is not a table", repr(here[part]))
    if isinstance(here, list):
        return Problem(dotted, "must name a stage and one of its keys, such as stages.NAME.epochs")
    here[last] = value
    _displace(here, last)
    return None


def _displace(table: dict[str, Any], key: str) -> None:
    """Removes those keys that exclude a new one."""
    for group in _ALTERNATIVES:
        if key in group:
            for other in group - {key}:
                table.pop(other, None)


def _problems(error: ValidationError, raw: Mapping[str, Any], model: type[BaseModel]) -> list[Problem]:
    """One problem per key: the branches of a union fail together and read as alternatives."""
    merged: dict[str, Problem] = {}
    found = error.errors(include_url=False)
    for item in found:
        if isinstance(item["input"], Mapping) and _is_judged_as_table(item["loc"], found):
            continue
        keep_last = item["type"] in ("missing", "extra_forbidden")
        key = _dotted(item["loc"], raw, keep_last=keep_last)
        rule = _rule(item["type"], item["msg"], item["loc"], model)
        value = None if item["type"] == "missing" else _shown(item["input"])
        if item["type"] == "value_error" and not item["loc"]:
            value = None
        before = merged.get(key)
        if before is not None:
            rule, value = f"{before.rule}, or {rule}", before.value
        merged[key] = Problem(key, rule, value)
    return list(merged.values())


def _is_judged_as_table(loc: Sequence[int | str], found: Sequence[Any]) -> bool:
    """Whether a table's own keys are at fault, so that not being the plain value it may also be is none."""
    at = len(loc) - 1
    branches = [other["loc"][: at + 1] for other in found if len(other["loc"]) > at]
    beside = [branch for branch in branches if branch[:-1] == loc[:-1]]
    return not _example(loc) and any(_example(branch) for branch in beside)


def _example(loc: Sequence[int | str]) -> str:
    """Of a table, where the last part of a location is the branch of a union that is one; else empty."""
    # A model with validators of its own stands there as function-after[..., Model].
    branch = str(loc[-1]) if loc else ""
    found = [text for name, text in _EXAMPLES.items() if branch == name or branch.endswith(f", {name}]")]
    return found[0] if found else ""


def _dotted(loc: Sequence[int | str], raw: Any, *, keep_last: bool) -> str:
    """The key as a user writes it: stages by name, without pydantic's names of union branches."""
    parts: list[str] = []
    here = raw
    for position, part in enumerate(loc):
        if isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
            name = here.get("name") if isinstance(here, dict) else None
            parts.append(name if isinstance(name, str) else str(part + 1))
        elif isinstance(here, dict) and part in here:
            here = here[part]
            parts.append(str(part))
        elif keep_last and position == len(loc) - 1:
            parts.append(str(part))
    return ".".join(parts)


def _rule(kind: str, message: str, loc: Sequence[int | str], model: type[BaseModel]) -> str:
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        return f"unknown key{_suggestion(loc, model)}"
    if kind == "model_type":
        return f"must be a table {_example(loc)}".rstrip()
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    return message.replace("Input should be", "must be").replace("String should", "must")


def _suggestion(loc: Sequence[int | str], model: type[BaseModel]) -> str:
    tables = [_TABLES[str(part)] for part in loc[:-1] if part in _TABLES]
    fields = list((tables[-1] if tables else model).model_fields)
    close = difflib.get_close_matches(str(loc[-1]), fields, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(fields)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves by dotted key; stages by name."""
    if isinstance(value, dict):
        pairs: Iterable[tuple[str, Any]] = value.items()
    elif (
        isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value)
    ):
        pairs = ((item["name"], item) for item in value)
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in pairs:
        flat.update(_flatten(item, f"{prefix}.{key}" if prefix else key))
    return flat
