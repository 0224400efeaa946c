"""Runs of training code of one's own, without their reports."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from batchscope.api import Run
from batchscope.own.function import TrainFunction, function_name, function_spec, pack
from batchscope.resolving import resolve
from batchscope.running.options import RunOptions
from batchscope.running.run import run_study
from run_samples import Events

HEAD = "import json, os, sys, time\nnow = os.environ\nsize = int(now['BATCHSCOPE_BATCH_SIZE'])\n"
"""Begins programs: ``report(epoch)`` prints a record whose figures tell batch size and epoch."""
REPORT = (
    "def record(number, **more):\n"
    "    told = {'updates': number * 64 // size, 'val_accuracy': number / 10 + size / 1000}\n"
    "    return json.dumps(told | more)\n"
    "def report(number, **more):\n"
    "    print(record(number, **more))\n"
)

Told = Callable[..., Run]


def run_function(
    train: TrainFunction,
    folder: Path,
    watcher: Events | None = None,
    options: RunOptions | None = None,
    **keys: object,
) -> Run:
    """Two batch sizes, 16 and 32, and one replicate, unless told otherwise."""
    raw = {"name": function_name(train), "function": function_spec(train).model_dump(exclude_none=True)}
    study = resolve(raw | {"batch_sizes": [16, 32], "replicates": 1} | keys, [])
    run_study(study, folder, watcher or Events(), options, pack(train))
    return Run(folder)


def run_program(
    text: str,
    folder: Path,
    arguments: Sequence[str] = (),
    watcher: Events | None = None,
    options: RunOptions | None = None,
    **keys: object,
) -> Run:
    """The same for a Python program, which is written beside the run's folder."""
    program = folder.with_name("program.py")
    program.write_text(HEAD + REPORT + text, encoding="utf-8")
    command = shlex.join([sys.executable, str(program), *arguments])
    raw = {"name": "program", "command": command, "batch_sizes": [16, 32], "replicates": 1}
    run_study(resolve(raw | keys, []), folder, watcher or Events(), options)
    return Run(folder)


def outcomes(run: Run) -> list[tuple[str, str, int]]:
    """Name, state and stored epochs of each trial."""
    return [(status.trial.name, status.state.value, status.epochs) for status in run.trials]


def read_pid(path: Path) -> int:
    """A process id that somebody wrote down."""
    return int(path.read_text(encoding="utf-8"))


def environment(**settings: str) -> dict[str, str]:
    """This process's environment, with the folders that it imports from."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | settings
