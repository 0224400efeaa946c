"""The analysis as JSON; its keys are documented in docs/json.md and stay stable."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from batchscope.analysis.results import Analysis
from batchscope.analysis.sizing import Sizing
from batchscope.analysis.sizing_words import advice, sizing_notes
from batchscope.analysis.words import Sentence

__all__ = ["sizing_json", "to_dict", "to_json"]


def to_dict(analysis: Analysis) -> dict[str, Any]:
    """The analysis as plain dicts, lists, numbers and text.

    Keys are the names of the dataclasses' fields, those of `StudyFacts` at the top. NaN becomes
    None, since JSON has none; a sentence's figures become a dict.
    """
    encoded = _encoded(analysis)
    return {**encoded.pop("facts"), **encoded}


def to_json(analysis: Analysis) -> str:
    """The analysis as strict JSON (RFC 8259: no NaN, no infinity), indented, ending in a newline."""
    return _text(to_dict(analysis))


def sizing_json(found: Sizing) -> str:
    """What `batchscope probe` found as strict JSON, with what is said of it."""
    encoded = _encoded(dataclasses.replace(found, facts=()))
    said = {"advice": _encoded(advice(found)), "notes": _encoded(sizing_notes(found))}
    return _text({**encoded, "facts": dict(found.facts), **said})


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, allow_nan=False, indent=2, ensure_ascii=False) + "\n"


def _encoded(value: Any) -> Any:
    if isinstance(value, Sentence):
        figures = {name: _encoded(figure) for name, figure in value.figures}
        return {"rule": value.rule, "text": value.text, "figures": figures}
    if dataclasses.is_dataclass(value):
        return {field.name: _encoded(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_encoded(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
