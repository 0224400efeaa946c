"""What a person sees while a study runs: a live display, a line an epoch, or nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from batchscope.records import BatchProgress, EpochRecord, Trial, TrialState

__all__ = ["LinePrinter", "LiveDisplay", "Silent", "TimeLeft", "Watcher"]


class Watcher(Protocol):
    """Told of a study's course; used as a context around it."""

    def __enter__(self) -> Self:
        """The study is about to start."""

    def __exit__(self, *_: object) -> None:
        """The study is over, one way or another."""

    def note(self, text: str) -> None:
        """Something worth telling that belongs to no trial."""

    def plan(self, trials: Sequence[Trial], done: int, examples: float) -> None:
        """All trials, how many were done before, and how many images are still to be presented."""

    def started(self, trial: Trial, examples: int, seconds: float) -> None:
        """A trial begins, or goes on after so many images and seconds of training."""

    def batch(self, trial: Trial, progress: BatchProgress) -> None:
        """An epoch got further."""

    def epoch(self, trial: Trial, record: EpochRecord) -> None:
        """An epoch ended."""

    def ended(self, trial: Trial, state: TrialState, error: str | None) -> None:
        """A trial is over."""


class TimeLeft:
    """Estimates how long a study still takes, from the pace since its first trial started.

    Args:
        examples: Images still to be presented.
        clock: Seconds from any origin, when the first trial starts.
    """

    def __init__(self, examples: float, clock: float) -> None:
        self._total, self._start = examples, clock
        self._done = 0.0

    def add(self, examples: float) -> None:
        """Images presented meanwhile."""
        self._done += examples

    def expect(self, examples: float) -> None:
        """Further images to be presented."""
        self._total += examples

    def seconds(self, clock: float, running: float = 0.0) -> float | None:
        """Seconds left; None before there is a pace to go by.

        Args:
            clock: Now, on the clock given at the start.
            running: Images of the epoch that is under way.
        """
        done = self._done + running
        if done <= 0 or clock <= self._start:
            return None
        return max(self._total - done, 0.0) * (clock - self._start) / done


class _Course:
    """How far the trials of a study are.

    Reading images and starting workers is over when the first trial starts, and the clock starts
    then. Simplified: what a failed trial leaves undone goes on counting as images to come.

    Args:
        examples: Images still to be presented.
    """

    def __init__(self, examples: float = 0.0) -> None:
        self._examples = examples
        self._left = TimeLeft(examples, time.monotonic())
        self._counts: dict[Trial, tuple[int, float]] = {}

    def started(self, trial: Trial, examples: int, seconds: float) -> None:
        """Notes where a trial's counts stand."""
        if not self._counts:
            self._left = TimeLeft(self._examples, time.monotonic())
        self._counts[trial] = (examples, seconds)

    def advance(self, trial: Trial, record: EpochRecord) -> tuple[int, float]:
        """Images and seconds of training that a record adds to its trial."""
        examples, seconds = self._counts[trial]
        if record.examples <= examples:  # the trial's checkpoint is lost, and it begins anew
            self._left.expect(examples)
            examples, seconds = 0, 0.0
        self._counts[trial] = (record.examples, record.seconds)
        self._left.add(record.examples - examples)
        return record.examples - examples, record.seconds - seconds

    def time_left(self, running: float = 0.0) -> str:
        """The time left, as text; `running` images of the epoch under way are done already."""
        return _duration(self._left.seconds(time.monotonic(), running))


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def note(self, text: str) -> None:
        """Ignored."""

    def plan(self, trials: Sequence[Trial], done: int, examples: float) -> None:
        """Ignored."""

    def started(self, trial: Trial, examples: int, seconds: float) -> None:
        """Ignored."""

    def batch(self, trial: Trial, progress: BatchProgress) -> None:
        """Ignored."""

    def epoch(self, trial: Trial, record: EpochRecord) -> None:
        """Ignored."""

    def ended(self, trial: Trial, state: TrialState, error: str | None) -> None:
        """Ignored."""


class LinePrinter(Silent):
    """Prints a line an epoch, for logs and pipes.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._course = _Course()
        self._total = self._done = 0

    def note(self, text: str) -> None:
        """Printed as it is."""
        self._line(text)

    def plan(self, trials: Sequence[Trial], done: int, examples: float) -> None:
        """Tells how much there is to do."""
        self._total, self._done = len(trials), done
        self._course = _Course(examples)
        self._line(f"{len(trials)} trials, {done} done before")

    def started(self, trial: Trial, examples: int, seconds: float) -> None:
        """Notes where the trial's counts stand."""
        self._course.started(trial, examples, seconds)

    def epoch(self, trial: Trial, record: EpochRecord) -> None:
        """Tells the epoch's figures."""
        examples, seconds = self._course.advance(trial, record)
        self._line(
            f"{trial.name} epoch {record.epoch} {record.stage}: "
            f"accuracy {record.train_accuracy:.4f} val {record.val_accuracy:.4f}, "
            f"loss {record.train_loss:.4f} val {record.val_loss:.4f}, "
            f"{_rate(examples, seconds)}, {self._course.time_left()} left"
        )

    def ended(self, trial: Trial, state: TrialState, error: str | None) -> None:
        """Tells how a trial ended, with the traceback of one that failed."""
        self._done += 1
        self._line(f"{trial.name} {state} ({self._done} of {self._total} trials)")
        if error:
            self._line(error)

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class LiveDisplay(Silent):
    """Two lines that renew themselves in a terminal.

    Args:
        console: The terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._trials = Progress(
            TextColumn("trials"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]} left"),
            console=console,
        )
        self._task = self._trials.add_task("trials", total=None, left="?")
        self._current = Text("setting up")
        self._live = Live(self._render(), console=console, refresh_per_second=8, transient=True)
        self._course = _Course()

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        """Printed above the display."""
        self._console.print(text, highlight=False, markup=False)

    def plan(self, trials: Sequence[Trial], done: int, examples: float) -> None:
        """Sets the bar."""
        self._course = _Course(examples)
        self._trials.update(self._task, total=len(trials), completed=done)

    def started(self, trial: Trial, examples: int, seconds: float) -> None:
        """Names the trial."""
        self._course.started(trial, examples, seconds)
        self._show(f"{trial.name}  starting")

    def batch(self, trial: Trial, progress: BatchProgress) -> None:
        """Shows stage, epoch, accuracy and pace."""
        self._trials.update(self._task, left=self._course.time_left(running=progress.examples))
        self._show(
            f"{trial.name}  {progress.stage}  epoch {progress.epoch}, "
            f"{progress.examples / progress.total:.0%}  accuracy {progress.accuracy:.4f}  "
            f"{_rate(progress.examples, progress.seconds)}"
        )

    def epoch(self, trial: Trial, record: EpochRecord) -> None:
        """Counts the epoch's images."""
        self._course.advance(trial, record)
        self._trials.update(self._task, left=self._course.time_left())
        self._show(f"{trial.name}  {record.stage}  epoch {record.epoch}  val {record.val_accuracy:.4f}")

    def ended(self, trial: Trial, state: TrialState, error: str | None) -> None:
        """Moves the bar; a trial that did not complete is told above it."""
        self._trials.advance(self._task)
        if state is not TrialState.COMPLETE:
            self.note(f"{trial.name} {state}")
        if error:
            self.note(error)

    def _show(self, text: str) -> None:
        self._current = Text(text, overflow="ellipsis", no_wrap=True)
        self._live.update(self._render())

    def _render(self) -> Group:
        return Group(self._trials, self._current)


def _rate(examples: int, seconds: float) -> str:
    return f"{examples / seconds:.0f} images/s" if seconds > 0 else "- images/s"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
