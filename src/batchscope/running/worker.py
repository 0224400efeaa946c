"""A worker: the process that trains. It is started as ``python -m batchscope.running.worker``.

It is a program of its own, not a child made by multiprocessing, so that a user's script or
notebook is not imported again in it. It takes commands on what was its standard input, gives messages
on what was its standard output, and ends when the run that started it is gone.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from functools import partial
from typing import BinaryIO

from batchscope.errors import BatchscopeError, TrainingError
from batchscope.masking import masked
from batchscope.own.leftovers import end_all, own_mark
from batchscope.running.machine import offer_to_be_ended
from batchscope.running.messages import (
    STAGE_FACT,
    AnySetUp,
    CommandSetUp,
    Fatal,
    FunctionSetUp,
    Measure,
    Measured,
    Message,
    Ready,
    Rehearse,
    Rehearsed,
    RunTrial,
    SetUp,
    TooLarge,
    TrialEnded,
    receive,
    send,
)
from batchscope.running.recipes import KerasRecipe, Line, Recipe, command_recipe, function_recipe
from batchscope.running.stopping import ASK_TO_END

__all__ = ["leave_signals_to_the_run", "main"]

_BACKENDS = ("tensorflow", "jax", "torch")


def main() -> None:
    """Serves the run that started this process until it closes the pipe."""
    leave_signals_to_the_run()
    pipe, outbox = _take_over_pipes()
    inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, inbox), daemon=True).start()
    set_up = inbox.get()
    if not isinstance(set_up, AnySetUp):
        raise TypeError(f"a worker must be set up first, but got {set_up!r}")
    try:
        recipe, facts = _prepare(set_up)
    except BatchscopeError as error:  # any worker would refuse it
        send(outbox, Fatal(error))
        return
    except Exception:  # noqa: BLE001  # memory may be short for this worker alone: the run decides by its log
        sys.stderr.write(masked(traceback.format_exc()))
        sys.stderr.flush()
        os._exit(1)
    send(outbox, Ready(facts))
    line = Line(partial(send, outbox), inbox.get)
    while True:
        command = inbox.get()
        if isinstance(command, RunTrial):
            line.say(_run_trial(recipe, command, line))
        elif isinstance(command, Measure):
            line.say(_measure(recipe, command.seconds))
        elif isinstance(command, Rehearse):
            line.say(_rehearse(recipe, command))


def leave_signals_to_the_run() -> None:
    """Ignores what a terminal or a service manager sends to the run and its workers alike.

    The run ends its workers itself.
    """
    for number in ASK_TO_END:
        signal.signal(number, signal.SIG_IGN)


def _take_over_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keeps the pipes of messages, from the run and to it, for this process alone.

    Whatever libraries print goes where errors go, to the log. Standard input is empty: what reads it,
    a program that the training starts as well, must not swallow a message. A process that is forked
    from this one does not keep the pipes open: the run is to notice when this one ends.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    pipe = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    outbox = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(nothing, sys.stdin.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(_let_go, [pipe.fileno(), outbox.fileno()], nothing))
    return pipe, outbox


def _let_go(kept: list[int], nothing: int) -> None:
    """Empties the list of what this process keeps, so that what it forks in turn has nothing to let go.

    The numbers stay taken, for the file objects would close them again.
    """
    while kept:
        os.dup2(nothing, kept.pop(), inheritable=False)


def _listen(pipe: BinaryIO, inbox: queue.SimpleQueue[Message]) -> None:
    try:
        while (message := receive(pipe)) is not None:
            inbox.put(message)
    finally:
        # The run is gone: nobody would store what is trained from here on.
        if hasattr(os, "getpgrp") and os.getpgrp() == os.getpid():
            end_all(own_mark())
            os.killpg(0, signal.SIGKILL)
        os._exit(0)


def _prepare(set_up: AnySetUp) -> tuple[Recipe, Mapping[str, str]]:
    match set_up:
        case FunctionSetUp():
            return function_recipe(set_up), {"python": platform.python_version()}
        case CommandSetUp():
            return command_recipe(set_up), {}
        case SetUp():
            return _prepare_keras(set_up)


def _prepare_keras(set_up: SetUp) -> tuple[KerasRecipe, Mapping[str, str]]:
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend not in _BACKENDS or importlib.util.find_spec(backend) is None:
        extra = backend if backend in _BACKENDS else "tensorflow"
        raise TrainingError(
            f"training needs one of the backends {', '.join(_BACKENDS)}, but KERAS_BACKEND is {backend}, "
            f"which is not installed; pip install 'batchscope[{extra}]'"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    from batchscope.data import TrainingData
    from batchscope.training.features import FeatureStore
    from batchscope.training.own_network import network_sha256
    from batchscope.training.trial import Trainer
    from batchscope.training.weights import locate, split_pin

    facts = {
        "keras": keras.__version__,
        backend: getattr(importlib.import_module(backend), "__version__", "unknown"),
        "python": platform.python_version(),
    }
    model = set_up.study.model
    if split_pin(model.weights)[0] not in ("imagenet", "none", "file"):
        facts["weights sha256"] = locate(model.weights)[1]
    sha256 = network_sha256(model)
    if sha256 is not None:
        facts["network sha256"] = sha256
    store = FeatureStore(set_up.cache, set_up.cache_limit)
    trainer = Trainer(set_up.study, TrainingData.load(set_up.data), store)
    paths = {f"{STAGE_FACT}{name}": path for name, path in trainer.paths.items()}
    return KerasRecipe(trainer), facts | paths


def _measure(recipe: Recipe, seconds: float) -> Measured | Fatal:
    try:
        return Measured(recipe.measure(seconds))
    except Exception:  # noqa: BLE001  # the run tells it
        return Fatal(TrainingError(f"training could not be measured:\n{traceback.format_exc()}"))


def _rehearse(recipe: Recipe, command: Rehearse) -> Rehearsed | TooLarge | Fatal:
    if not isinstance(recipe, KerasRecipe):
        raise TypeError(f"only what Keras trains can be rehearsed, but got {recipe!r}")
    offer_to_be_ended()
    try:
        return recipe.rehearse(command)
    except Exception:  # noqa: BLE001  # the run tells it
        return Fatal(TrainingError(f"training could not be measured:\n{traceback.format_exc()}"))


def _run_trial(recipe: Recipe, command: RunTrial, line: Line) -> TrialEnded:
    try:
        recipe.carry_out(command, line)
    except (Exception, SystemExit):  # noqa: BLE001  # one bad trial stops nobody
        return TrialEnded(traceback.format_exc())
    return TrialEnded()


if __name__ == "__main__":
    main()
