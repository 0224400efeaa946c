"""What a run of somebody's own training code has, where one of Keras has images and features."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from batchscope.errors import Problem, RunFolderError, StudyError
from batchscope.masking import masked
from batchscope.own.function import PackedFunction
from batchscope.own.leftovers import bearers, end_all
from batchscope.own.source import command_sha256
from batchscope.own_study import AnyOwnStudy, AnyStudy, CommandStudy, FunctionStudy
from batchscope.records import Trial
from batchscope.running.folder import RunFolder
from batchscope.running.messages import AnyOwnSetUp, CommandSetUp, FunctionSetUp
from batchscope.running.store import Store

__all__ = [
    "SOURCE_FACT",
    "change_of_source",
    "end_leftovers",
    "epochs_left",
    "own_set_up",
    "refuse_another_source",
    "source_facts",
    "warning_of_secrets",
]

SOURCE_FACT = "source sha256"
"""Name of a session's fact: the SHA-256 of the code that it trained with."""


def epochs_left(study: AnyOwnStudy, store: Store) -> dict[Trial, float]:
    """Epochs that each unfinished trial has still to report; NaN where the study does not tell."""
    total = math.nan if study.epochs is None else study.epochs
    return {
        status.trial: total - status.epochs for status in store.trials() if not status.state.is_finished()
    }


def end_leftovers(mark: str) -> list[str]:
    """Ends what a session that was killed has left running, and says what to tell of it.

    Args:
        mark: The run's, whose folder is held by this process: who bears it is of an earlier one.
    """
    found = set(bearers(mark))
    if not found:
        return []
    end_all(mark)
    staying = set(bearers(mark))
    notes = []
    if ended := found - staying:
        notes.append(f"ended what an earlier session had left running: {_listed(ended)}")
    if staying:
        notes.append(
            f"what an earlier session had left running could not be ended: {_listed(staying)}; it may still "
            "write into the run's folder: end it by hand"
        )
    return notes


def _listed(processes: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(processes)))


def own_set_up(study: AnyOwnStudy, place: RunFolder, function: PackedFunction | None) -> AnyOwnSetUp:
    """What a worker of the study is told first.

    Raises:
        StudyError: The function is not at hand.
    """
    if not isinstance(study, FunctionStudy):
        return CommandSetUp(study, place.logs.absolute())
    if function is None:
        rule = "must be given by a Python program: batchscope.run(function, ...); this file only names it"
        raise StudyError(study.name, [Problem("function", rule, study.function.name)])
    return FunctionSetUp(study, function)


def source_facts(study: AnyStudy) -> Mapping[str, str]:
    """What a session notes of the code that trains; nothing of Keras', or where there is no source."""
    sha256 = _sha256(study)
    return {} if sha256 is None else {SOURCE_FACT: sha256}


def warning_of_secrets(study: AnyStudy) -> str | None:
    """What to say of a command into which a secret was typed."""
    if not isinstance(study, CommandStudy) or not study.secrets:
        return None
    return (
        f"the command seems to hold a secret: {masked(study.command, study.secrets)}; study.toml keeps it as "
        "it was typed, and other users of the machine see it while it runs: put it into an environment "
        "variable, which the command inherits"
    )


def change_of_source(study: AnyStudy, place: RunFolder, store: Store) -> str | None:
    """What to say of code that is no longer that with which the last session trained.

    Args:
        study: The study, of the code as it is now.
        place: The run's folder.
        store: Its results, to which this session has not told its code yet.
    """
    if not any(status.epochs for status in store.trials()):
        return None
    told = [facts[SOURCE_FACT] for _, _, facts in store.sessions() if SOURCE_FACT in facts]
    begun = place.study()
    first = begun.function.sha256 if isinstance(begun, FunctionStudy) else None
    old, new = (told[-1] if told else first), _sha256(study)
    if old is None or new is None or old == new:
        return None
    return f"the source of {_code_name(study)} has changed (sha256 {old[:12]}, now {new[:12]})"


def refuse_another_source(study: AnyStudy, place: RunFolder, store: Store) -> None:
    """Refuses to pass a finished run off as one of code that is another by now.

    Raises:
        RunFolderError: It is.
    """
    changed = change_of_source(study, place, store)
    if changed:
        raise RunFolderError(
            f"{place.path}: a finished run must be called again with the code that it was made with, but "
            f"{changed}; give --out (out=) another folder to train with it, or open what is there with "
            "'batchscope report' or batchscope.load"
        )


def _sha256(study: AnyStudy) -> str | None:
    match study:
        case FunctionStudy(function=function):
            return function.sha256
        case CommandStudy(command=command):
            return command_sha256(command)
        case _:
            return None


def _code_name(study: AnyStudy) -> str:
    return study.function.name if isinstance(study, FunctionStudy) else "the command's scripts"
