"""A worker: the process that trains. It is started as ``python -m batchscope.running.worker``.

It is a program of its own, not a child made by multiprocessing, so that a user's script or
notebook is not imported again in it. It takes commands on its standard input, gives messages on
what was its standard output, and ends when the run that started it is gone.
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
import time
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, BinaryIO

from batchscope.errors import BatchscopeError, TrainingError
from batchscope.masking import masked
from batchscope.records import BatchProgress
from batchscope.running.messages import (
    STAGE_FACT,
    BatchDone,
    EpochDone,
    Fatal,
    Measure,
    Measured,
    Message,
    Ready,
    RunTrial,
    SetUp,
    TrialEnded,
    receive,
    send,
)

if TYPE_CHECKING:
    from batchscope.training.trial import Trainer

__all__ = ["leave_signals_to_the_run", "main"]

_PROGRESS_SECONDS = 0.25
_BACKENDS = ("tensorflow", "jax", "torch")


def main() -> None:
    """Serves the run that started this process until it closes the pipe."""
    leave_signals_to_the_run()
    outbox = _take_over_stdout()
    inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(inbox,), daemon=True).start()
    set_up = inbox.get()
    if not isinstance(set_up, SetUp):
        raise TypeError(f"a worker must be set up first, but got {set_up!r}")
    try:
        trainer, facts = _prepare(set_up)
    except BatchscopeError as error:  # any worker would refuse it
        send(outbox, Fatal(error))
        return
    except Exception:  # noqa: BLE001  # memory may be short for this worker alone: the run decides by its log
        sys.stderr.write(masked(traceback.format_exc()))
        sys.stderr.flush()
        os._exit(1)
    send(outbox, Ready(facts))
    while True:
        command = inbox.get()
        if isinstance(command, RunTrial):
            send(outbox, _run_trial(trainer, command, outbox, inbox.get))
        elif isinstance(command, Measure):
            send(outbox, _measure(trainer, command.seconds))


def leave_signals_to_the_run() -> None:
    """Ignores what a terminal or a service manager sends to the run and its workers alike.

    The run ends its workers itself.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _take_over_stdout() -> BinaryIO:
    """Keeps the pipe for messages; whatever libraries print goes where errors go, to the log."""
    outbox = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return outbox


def _listen(inbox: queue.SimpleQueue[Message]) -> None:
    try:
        while (message := receive(sys.stdin.buffer)) is not None:
            inbox.put(message)
    finally:
        os._exit(0)  # the run is gone: nobody would store what is trained from here on


def _prepare(set_up: SetUp) -> tuple[Trainer, Mapping[str, str]]:
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
    return trainer, facts | {f"{STAGE_FACT}{name}": path for name, path in trainer.paths.items()}


def _measure(trainer: Trainer, seconds: float) -> Measured | Fatal:
    try:
        return Measured(trainer.measure(seconds))
    except Exception:  # noqa: BLE001  # the run tells it
        return Fatal(TrainingError(f"training could not be measured:\n{traceback.format_exc()}"))


def _run_trial(
    trainer: Trainer, command: RunTrial, outbox: BinaryIO, acknowledged: Callable[[], Message]
) -> TrialEnded:
    try:
        for record in trainer.run(
            command.trial, command.checkpoint, command.stored_epochs, _throttled(outbox)
        ):
            send(outbox, EpochDone(record))
            acknowledged()
    except Exception:  # noqa: BLE001  # one bad trial stops nobody
        return TrialEnded(traceback.format_exc())
    return TrialEnded()


def _throttled(outbox: BinaryIO) -> Callable[[BatchProgress], None]:
    """Sends progress a few times a second at most."""
    sent = 0.0

    def on_batch(progress: BatchProgress) -> None:
        nonlocal sent
        now = time.monotonic()
        if now - sent >= _PROGRESS_SECONDS:
            sent = now
            send(outbox, BatchDone(progress))

    return on_batch


if __name__ == "__main__":
    main()
