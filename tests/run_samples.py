"""Records, studies and processes for the tests of running."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from batchscope.records import BatchProgress, EpochRecord, Trial
from batchscope.running.layout import Layout
from batchscope.spec import Study
from tiny import stage, tiny_study

TESTS = Path(__file__).parent
STUB = TESTS / "stub_worker.py"
FIRST, SECOND = Trial(batch_size=8, replicate=1), Trial(batch_size=16, replicate=1)


def record(epoch: int, **changes: object) -> EpochRecord:
    """The record of an epoch of 48 images, trained in 2 s, whose figures tell the epoch."""
    values: dict[str, object] = {
        "stage": "one",
        "epoch": epoch,
        "updates": 6 * epoch,
        "examples": 48 * epoch,
        "seconds": 2.0 * epoch,
        "learning_rate": 1e-3,
        "train_loss": 1 / (epoch + 1),
        "train_accuracy": 0.6 + 0.1 * epoch,
        "val_loss": 1 / (epoch + 2),
        "val_accuracy": 0.5 + 0.1 * epoch,
    }
    return EpochRecord(**(values | changes))  # type: ignore[arg-type]


Stub = Callable[..., None]
"""Says how workers that train nothing misbehave."""


def small_study(**changes: object) -> Study:
    """One stage of two epochs on 60 generated images, at batch sizes 8 and 16, one replicate."""
    defaults: dict[str, object] = {
        "data": {"source": "synthetic-cactus", "images": 60},
        "stages": [stage("one", "head", epochs=2)],
        "replicates": 1,
    }
    return tiny_study(**(defaults | changes))


SMALL_TAIL = {"from_layer": "tail"}


def trained_study(**changes: object) -> Study:
    """The same with a network that real workers build in a moment, where `TESTS` are on their path."""
    model = {"network": "small_network:build", "input_scaling": "symmetric"}
    return small_study(**({"model": model} | changes))


def python_path(*folders: Path) -> str:
    """``PYTHONPATH`` of processes that import from these folders first."""
    return os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])


class Events:
    """A watcher and a sink that writes down what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.choices: list[tuple[Layout, dict[Layout, float]]] = []
        self.planned: list[tuple[int, int, float]] = []
        self.additions: list[dict[str, float]] = []
        self.starts: list[tuple[str | float, ...]] = []
        self.records: list[tuple[str, int]] = []
        self.ends: list[tuple[str | None, ...]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def note(self, text: str) -> None:
        self.notes.append(text)

    def ready(self, facts: Mapping[str, str]) -> None:
        self.notes.append("ready")

    def chosen(self, layout: Layout, rates: Mapping[Layout, float]) -> None:
        self.choices.append((layout, dict(rates)))

    def plan(
        self, trials: Sequence[Trial], done: int, left: Mapping[Trial, float], unit: str = "examples"
    ) -> None:
        self.planned.append((len(trials), done, sum(left.values())))

    def added(self, left: Mapping[Trial, float]) -> None:
        self.additions.append({trial.name: work for trial, work in left.items()})

    def started(self, trial: Trial, *counts: float) -> None:
        """A watcher is told images and seconds so far, a sink nothing."""
        self.starts.append((trial.name, *counts))

    def batch(self, trial: Trial, progress: BatchProgress) -> None:
        self.notes.append(f"{trial.name} {progress.examples}/{progress.total}")

    def epoch(self, trial: Trial, record: EpochRecord) -> None:
        self.records.append((trial.name, record.epoch))

    def discarded(self, trial: Trial, epoch: int, *, replaced: bool) -> None:
        self.notes.append(f"{trial.name} begins anew at {epoch}")

    def ended(self, trial: Trial, *told: str | None) -> None:
        """A watcher is told state and error, a sink the error alone."""
        self.ends.append((trial.name, *told))


def logged_pids(logs: Path) -> list[int]:
    """Process ids that the stub workers wrote into their logs, in the order of their starts."""
    return [int(log.read_text().split()[0]) for log in sorted(logs.glob("worker-*.log"))]


def logged_threads(logs: Path) -> list[int]:
    """Threads that the stub workers were given, in the order of their starts."""
    return [int(log.read_text().split()[1]) for log in sorted(logs.glob("worker-*.log"))]


def is_alive(pid: int) -> bool:
    """Whether a process runs, whoever started it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(parent: int | None = None) -> list[int]:
    """Processes that this one, or another, started and that still run."""
    parent = os.getpid() if parent is None else parent
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return sorted(found)
