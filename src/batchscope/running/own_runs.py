"""What a run of somebody's own training code has, where one of Keras has images and features."""

from __future__ import annotations

import math

from batchscope.errors import Problem, StudyError
from batchscope.own.function import PackedFunction
from batchscope.own.leftovers import bearers, end_all, folder_mark
from batchscope.own_study import AnyOwnStudy, AnyStudy, FunctionStudy
from batchscope.records import Trial
from batchscope.running.folder import RunFolder
from batchscope.running.messages import AnyOwnSetUp, CommandSetUp, FunctionSetUp
from batchscope.running.plan import plan_trials
from batchscope.running.store import Store

__all__ = ["begin", "change_of_source", "end_leftovers", "own_set_up"]


def begin(study: AnyOwnStudy, store: Store) -> dict[Trial, float]:
    """Plans the trials.

    Returns:
        Epochs that each unfinished trial has still to report; NaN where the study does not tell.
    """
    store.plan(plan_trials(study))
    total = math.nan if study.epochs is None else study.epochs
    return {
        status.trial: total - status.epochs for status in store.trials() if not status.state.is_finished()
    }


def end_leftovers(place: RunFolder) -> str | None:
    """Ends what a session that was killed has left running, and says what to tell of it.

    Args:
        place: The run's folder, held by this process: who bears its mark is of an earlier one.
    """
    mark = folder_mark(place.logs)
    found = bearers(mark)
    if not found:
        return None
    end_all(mark)
    return f"ended what an earlier session had left running: {', '.join(map(str, sorted(found)))}"


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


def change_of_source(study: AnyStudy, place: RunFolder) -> str | None:
    """What to say of a function whose source is no longer that with which the run began."""
    before = place.study()
    if not isinstance(study, FunctionStudy) or not isinstance(before, FunctionStudy):
        return None
    old, new = before.function.sha256, study.function.sha256
    if old is None or new is None or old == new:
        return None
    return (
        f"the source of {study.function.name} has changed since the run began (sha256 {old[:12]}, now "
        f"{new[:12]}); what is stored was trained by the one before"
    )
