"""What the mini-batch size does to a training run, and whether the effect is real.

>>> import batchscope
>>> run = batchscope.run("demo", out="runs/demo")  # doctest: +SKIP
>>> batchscope.load("runs/demo").history  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchscope.api import Run, load, probe, run
    from batchscope.errors import (
        BatchscopeError,
        BatchscopeWarning,
        DataError,
        ExportError,
        HistoryError,
        ReportError,
        RunFolderError,
        StudyError,
        TrainingError,
        WeightsError,
    )
    from batchscope.own.handle import TrialHandle
    from batchscope.spec import Study

__all__ = [
    "BatchscopeError",
    "BatchscopeWarning",
    "DataError",
    "ExportError",
    "HistoryError",
    "ReportError",
    "Run",
    "RunFolderError",
    "Study",
    "StudyError",
    "TrainingError",
    "TrialHandle",
    "WeightsError",
    "load",
    "probe",
    "run",
]

__version__ = metadata.version("batchscope")

_HOMES = {
    "Run": "batchscope.api",
    "load": "batchscope.api",
    "probe": "batchscope.api",
    "run": "batchscope.api",
    "Study": "batchscope.spec",
    "TrialHandle": "batchscope.own.handle",
}


def __getattr__(name: str) -> object:
    """Imports public names where they are first used, so that start-up stays light."""
    if name not in __all__:
        raise AttributeError(f"module 'batchscope' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "batchscope.errors")), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
