"""A run as files: its history as a table, and everything in one JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from batchscope.analysis import to_dict, to_json
from batchscope.export.content import RunContent
from batchscope.history import encode_history
from batchscope.loading import dump_study
from batchscope.report.files import replace_file
from batchscope.report.page import page_html
from batchscope.run_report import analyze_run, page_content
from batchscope.running.folder import RunFolder
from batchscope.running.store import Store, TrialStatus

__all__ = ["Material", "run_json", "run_material", "write_file"]

FORMAT = 1
"""Of the JSON file; it grows when a key is renamed or removed."""


@dataclass(frozen=True)
class Material:
    """What tells of a whole run.

    Attributes:
        files: Their content by name.
        description: The study's own words and the verdict, in paragraphs.
    """

    files: Mapping[str, bytes]
    description: str


def write_file(run: RunContent, folder: RunFolder, to: str, path: Path) -> None:
    """Writes a run's history, or all of it, as one file.

    Args:
        run: The run.
        folder: Where it is stored.
        to: ``csv``, ``parquet`` or ``json``.
        path: Replaced where it is there.

    Raises:
        HistoryError: For JSON: the history cannot be analysed.
        ReportError: The file cannot be written.
    """
    if to == "json":
        replace_file(path, run_json(run, folder).encode())
        return
    with Store(folder.database) as store:
        history = store.history(run.study.name)
    replace_file(path, encode_history(history, f".{to}"))


def run_json(run: RunContent, folder: RunFolder) -> str:
    """Study, trials, history and analysis as strict JSON; docs/export.md has its keys.

    NaN and infinity, of which JSON has none, become null.

    Raises:
        HistoryError: The history cannot be analysed.
    """
    with Store(folder.database) as store:
        statuses, history = store.trials(), store.history(run.study.name)
        analysis = analyze_run(run.study, store, history)
    content = {
        "format": FORMAT,
        "batchscope": metadata.version("batchscope"),
        "run": run.identity,
        "study": run.study.model_dump(mode="json", exclude_none=True),
        "trials": [_trial(status) for status in statuses],
        "history": _rows(history),
        "analysis": to_dict(analysis),
    }
    return json.dumps(content, allow_nan=False, indent=1, ensure_ascii=False) + "\n"


def run_material(run: RunContent, folder: RunFolder) -> Material:
    """What tells of a whole run: study, history, analysis and page, and the verdict in words.

    Raises:
        HistoryError: The history cannot be analysed.
    """
    with Store(folder.database) as store:
        history = store.history(run.study.name)
        analysis = analyze_run(run.study, store, history)
        content = page_content(run.study, store, history, analysis)
    files = {
        "study.toml": dump_study(run.study).encode(),
        "history.csv": encode_history(history, ".csv"),
        "history.parquet": encode_history(history, ".parquet"),
        "analysis.json": to_json(analysis).encode(),
        "report.html": page_html(content).encode(),
    }
    paragraphs = [content.description, *(sentence.text for sentence in analysis.verdict)]
    return Material(files, "\n\n".join(filter(None, paragraphs)))


def _trial(status: TrialStatus) -> dict[str, Any]:
    return {
        "trial": status.trial.name,
        "batch_size": status.trial.batch_size,
        "replicate": status.trial.replicate,
        "state": str(status.state),
        "epochs": status.epochs,
        "error": status.error,
    }


def _rows(history: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): _finite(value) for name, value in row.items()} for row in history.to_dict("records")]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
