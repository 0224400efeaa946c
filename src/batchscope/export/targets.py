"""Which tools a run can be taken to, and what each needs to be told."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from batchscope.errors import ExportError
from batchscope.export.content import read_run
from batchscope.export.tracker import Tracker
from batchscope.running.folder import RunFolder

__all__ = ["export_run", "trackers_for"]

_TRACKERS = ("mlflow", "tensorboard")
_FILES = {"csv": "history.csv", "parquet": "history.parquet", "json": "run.json"}


def export_run(folder: RunFolder, to: str, out: Path | None, tracking_uri: str | None) -> str:
    """Takes a run to another tool; what that has already is not added again.

    Args:
        folder: The run's.
        to: ``mlflow``, ``tensorboard``, ``csv``, ``parquet`` or ``json``.
        out: The file, or TensorBoard's folder; None for one in ``export/`` of the run's folder.
        tracking_uri: Of MLflow, see `MlflowTracker`.

    Returns:
        Where it lies.

    Raises:
        HistoryError: No epoch is stored yet.
        ExportError: The tool is not known, not installed, or cannot be reached.
        ReportError: The file cannot be written.
    """
    known = (*_TRACKERS, *_FILES)
    if to not in known:
        raise ExportError(f"a run can be exported to {', '.join(known)}, but got {to!r}")
    if to != "mlflow" and tracking_uri is not None:
        raise ExportError(f"--tracking-uri is for mlflow alone, but got --to {to}; leave it out")
    if to == "mlflow" and out is not None:
        raise ExportError("--out is for files, but got --to mlflow; give --tracking-uri or nothing")
    if to in _TRACKERS:
        tracker = _tracker(to, out or folder.export / to, tracking_uri)
        run = read_run(folder)
        tracker.update(run)
        tracker.conclude(run, folder)
        return tracker.place
    from batchscope.export.files import write_file

    path = out or folder.export / _FILES[to]
    write_file(read_run(folder), folder, to, path)
    return str(path)


def trackers_for(tools: str | Sequence[str], tracking_uri: str | None, folder: RunFolder) -> list[Tracker]:
    """The tools that are to follow a run while it goes on.

    Args:
        tools: Of ``mlflow`` and ``tensorboard``.
        tracking_uri: Of MLflow, see `MlflowTracker`.
        folder: The run's; TensorBoard's files come into its ``export/``.

    Raises:
        ExportError: One is not known or not installed.
    """
    named = list(dict.fromkeys([tools] if isinstance(tools, str) else tools))
    unknown = [tool for tool in named if tool not in _TRACKERS]
    if unknown:
        raise ExportError(f"a run can be tracked by {' and '.join(_TRACKERS)}, but got {unknown[0]!r}")
    if tracking_uri is not None and "mlflow" not in named:
        raise ExportError("--tracking-uri is for mlflow alone, but there is no --track mlflow; leave it out")
    return [_tracker(tool, folder.export / tool, tracking_uri) for tool in named]


def _tracker(tool: str, out: Path, tracking_uri: str | None) -> Tracker:
    if importlib.util.find_spec(tool) is None:
        raise ExportError(
            f"{tool} must be installed to take a run there, but is not: pip install 'batchscope[{tool}]'"
        )
    if tool == "mlflow":
        from batchscope.export.mlflow_tracker import MlflowTracker

        return MlflowTracker(tracking_uri)
    from batchscope.export.tensorboard_tracker import TensorboardTracker

    return TensorboardTracker(out)
