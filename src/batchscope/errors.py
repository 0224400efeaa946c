"""Every error that batchscope raises on purpose.

BatchscopeError
├── StudyError        a study file, or a change to one, that cannot be accepted
├── DataError         images, labels or their source
├── WeightsError      pretrained weights that cannot be had or do not fit
├── HistoryError      a history table that lacks something or contradicts itself
├── RunFolderError    a run's folder that cannot be used
├── TrainingError     a recipe that this model or backend cannot carry out
├── ClusterError      a Ray cluster that cannot be used
├── ExportError       another tool that cannot be given what was asked for
└── ReportError       a page or picture that cannot be made

BatchscopeWarning       what was done, but not all that was asked for

A message states the rule, then the value that broke it, then what to do.
Errors of other libraries are translated where they enter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "BatchscopeError",
    "BatchscopeWarning",
    "ClusterError",
    "DataError",
    "ExportError",
    "HistoryError",
    "Problem",
    "ReportError",
    "RunFolderError",
    "StudyError",
    "TrainingError",
    "WeightsError",
]


class BatchscopeError(Exception):
    """Base of all errors that batchscope raises on purpose."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a study file.

    Attributes:
        key: Dotted key, for example ``stages.fine_tuning.epochs``; empty for the file as a whole.
        rule: What must hold, as a sentence without a full stop.
        value: The offending value as it was written, or None where there is none.
    """

    key: str
    rule: str
    value: str | None = None

    def __str__(self) -> str:
        got = "" if self.value is None else f" (got {self.value})"
        return f"{self.key or 'the file'}: {self.rule}{got}"


class StudyError(BatchscopeError):
    """A study file, or a change to one, that cannot be accepted.

    Args:
        source: The file or built-in name at fault.
        problems: Everything that is wrong with it, not only the first thing.
    """

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"{source}: {count} problem{'' if count == 1 else 's'}"
        super().__init__("\n".join([head, *(f"  {problem}" for problem in self.problems)]))

    def __reduce__(self) -> tuple[type[StudyError], tuple[str, tuple[Problem, ...]]]:
        return type(self), (self.source, self.problems)


class DataError(BatchscopeError):
    """Images, labels or their source are not as they must be."""


class WeightsError(BatchscopeError):
    """Pretrained weights cannot be had, or do not fit the model."""


class HistoryError(BatchscopeError):
    """A history lacks a column that is needed, or contradicts itself."""


class RunFolderError(BatchscopeError):
    """A run's folder cannot be used: another study's, not writable, or of a newer version."""


class TrainingError(BatchscopeError):
    """The recipe cannot be carried out by this model or backend."""


class ClusterError(BatchscopeError):
    """A Ray cluster that cannot be used."""


class ExportError(BatchscopeError):
    """A tool is not known, not installed, cannot be reached or refuses what it is given."""


class ReportError(BatchscopeError):
    """A page or a picture cannot be made."""


class BatchscopeWarning(UserWarning):
    """Not all that was asked for was done: trials of a run failed or diverged."""
