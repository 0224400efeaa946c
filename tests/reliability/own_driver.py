"""Runs the function of an example with other settings, prints a line an epoch, and writes no report.

Arguments: the example's file, the run's folder, the number of epochs. The exit code is 1 where a trial
did not complete.
"""

from __future__ import annotations

import importlib.util
import sys

from rich.console import Console

import batchscope
from batchscope import api
from batchscope.records import TrialState
from batchscope.running.progress import LinePrinter

api.Run.write_report = lambda self: self.path  # type: ignore[method-assign]
path, folder, epochs = sys.argv[1:]
spec = importlib.util.spec_from_file_location("example", path)
assert spec is not None
assert spec.loader is not None
example = importlib.util.module_from_spec(spec)  # which no worker could import: the function goes by value
spec.loader.exec_module(example)
example.EPOCHS = int(epochs)
run = batchscope.run(
    example.train,
    batch_sizes=[16, 64],
    replicates=2,
    learning_rates=[0.05],
    out=folder,
    workers=2,
    watcher=LinePrinter(Console()),
)
sys.exit(any(status.state is not TrialState.COMPLETE for status in run.trials))
