"""What a person sees while a study runs: a live display, a line an epoch, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from batchscope.records import BatchProgress, EpochRecord, Trial, TrialState
from batchscope.running.course import Course, Unit

__all__ = ["LinePrinter", "LiveDisplay", "Silent", "Unit", "Watcher"]


class Watcher(Protocol):
    """Told of a study's course; used as a context around it."""

    def __enter__(self) -> Self:
        """The study is about to start."""

    def __exit__(self, *_: object) -> None:
        """The study is over, one way or another."""

    def note(self, text: str) -> None:
        """Something worth telling that belongs to no trial."""

    def plan(
        self, trials: Sequence[Trial], done: int, left: Mapping[Trial, float], unit: Unit = "examples"
    ) -> None:
        """All trials, how many were done before, and what each of the others has to do, in this unit."""

    def added(self, left: Mapping[Trial, float]) -> None:
        """Further trials are planned; what each has to do."""

    def started(self, trial: Trial, examples: int, seconds: float) -> None:
        """A trial begins, or goes on after so many examples and seconds of training."""

    def batch(self, trial: Trial, progress: BatchProgress) -> None:
        """An epoch got further."""

    def epoch(self, trial: Trial, record: EpochRecord) -> None:
        """An epoch ended."""

    def ended(self, trial: Trial, state: TrialState, error: str | None) -> None:
        """A trial is over."""


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def note(self, text: str) -> None:
        """Ignored."""

    def plan(
        self, trials: Sequence[Trial], done: int, left: Mapping[Trial, float], unit: Unit = "examples"
    ) -> None:
        """Ignored."""

    def added(self, left: Mapping[Trial, float]) -> None:
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
        self._course = Course({})
        self._total = self._done = 0

    def note(self, text: str) -> None:
        """Printed as it is."""
        self._line(text)

    def plan(
        self, trials: Sequence[Trial], done: int, left: Mapping[Trial, float], unit: Unit = "examples"
    ) -> None:
        """Tells how much there is to do."""
        self._total, self._done = len(trials), done
        self._course = Course(left, unit)
        self._line(f"{len(trials)} trials, {done} done before")

    def added(self, left: Mapping[Trial, float]) -> None:
        """Counts them in."""
        self._total += len(left)
        self._course.added(left)

    def started(self, trial: Trial, examples: int, seconds: float) -> None:
        """Notes where the trial's counts stand."""
        self._course.started(trial, examples, seconds)

    def batch(self, trial: Trial, progress: BatchProgress) -> None:
        """Notes how far the epoch is."""
        self._course.batch(trial, progress)

    def epoch(self, trial: Trial, record: EpochRecord) -> None:
        """Tells the epoch's figures."""
        examples, seconds = self._course.epoch(trial, record)
        self._line(
            f"{trial.name} epoch {record.epoch} {record.stage}: {_told(record)}"
            f"{_rate(examples, seconds)}, {_duration(self._course.seconds_left())} left"
        )

    def ended(self, trial: Trial, state: TrialState, error: str | None) -> None:
        """Tells how a trial ended, with the traceback of one that failed."""
        self._course.ended(trial)
        self._done += 1
        self._line(f"{trial.name} {state} ({self._done} of {self._total} trials)")
        if error:
            self._line(error)

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class _Renewing(Protocol):
    """What can show one thing after another in one place."""

    def __enter__(self) -> object:
        """Begins to show."""

    def update(self, content: RenderableType, /, *, refresh: bool = False) -> None:
        """Shows something else: at once, or when it is time to, and what has been replaced by then never."""

    def stop(self) -> None:
        """Takes away what is shown."""


class LiveDisplay(Silent):
    """A bar and a line for each running trial, which renew themselves in a terminal.

    Args:
        console: The terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._trials = Progress(
            TextColumn("trials"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]} left{task.fields[pace]}"),
            console=console,
        )
        self._task = self._trials.add_task("trials", total=None, left="?", pace="")
        self._total = 0
        self._running: dict[Trial, Text] = {}
        self._live = self._live_on(console)
        self._course = Course({})

    def _live_on(self, console: Console) -> _Renewing:
        return Live(self._render(), console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # the terminal may be gone
            self._live.stop()

    def note(self, text: str) -> None:
        """Printed above the display."""
        self._console.print(text, highlight=False, markup=False)

    def plan(
        self, trials: Sequence[Trial], done: int, left: Mapping[Trial, float], unit: Unit = "examples"
    ) -> None:
        """Sets the bar."""
        self._course = Course(left, unit)
        self._total = len(trials)
        self._trials.update(self._task, total=self._total, completed=done)

    def added(self, left: Mapping[Trial, float]) -> None:
        """Lengthens the bar."""
        self._total += len(left)
        self._course.added(left)
        self._trials.update(self._task, total=self._total)

    def started(self, trial: Trial, examples: int, seconds: float) -> None:
        """Gives the trial its line."""
        self._course.started(trial, examples, seconds)
        self._show(trial, "starting")

    def batch(self, trial: Trial, progress: BatchProgress) -> None:
        """Shows stage, epoch, accuracy and pace."""
        self._course.batch(trial, progress)
        self._show(
            trial,
            f"{progress.stage}  epoch {progress.epoch}, "
            f"{progress.examples / progress.total:.0%}  accuracy {progress.accuracy:.4f}  "
            f"{_rate(progress.examples, progress.seconds)}",
            at_once=False,
        )

    def epoch(self, trial: Trial, record: EpochRecord) -> None:
        """Counts the epoch's examples."""
        self._course.epoch(trial, record)
        score = record.metrics.get("val_accuracy", record.val_loss)
        self._show(trial, f"{record.stage}  epoch {record.epoch}  val {score:.4f}")

    def ended(self, trial: Trial, state: TrialState, error: str | None) -> None:
        """Moves the bar and takes the trial's line away; one that did not complete is told above."""
        self._course.ended(trial)
        del self._running[trial]
        self._trials.advance(self._task)
        self._live.update(self._render(), refresh=True)
        if state is not TrialState.COMPLETE:
            self.note(f"{trial.name} {state}")
        if error:
            self.note(error)

    def _show(self, trial: Trial, text: str, *, at_once: bool = True) -> None:
        self._running[trial] = Text(f"{trial.name}  {text}", overflow="ellipsis", no_wrap=True)
        together = f", {self._course.examples_per_second():.0f} examples/s" if len(self._running) > 1 else ""
        left = _duration(self._course.seconds_left())
        self._trials.update(self._task, left=left, pace=together)
        self._live.update(self._render(), refresh=at_once)

    def _render(self) -> Group:
        return Group(self._trials, *(self._running.values() or [Text("setting up")]))


def _told(record: EpochRecord) -> str:
    """Accuracy and loss in training and validation, as far as they were told."""
    parts = []
    for kind in ("accuracy", "loss"):
        told = [
            f"{prefix}{record.metrics[name]:.4f}"
            for name, prefix in ((f"train_{kind}", ""), (f"val_{kind}", "val "))
            if name in record.metrics
        ]
        parts += [f"{kind} {' '.join(told)}, "] if told else []
    return "".join(parts)


def _rate(examples: int, seconds: float) -> str:
    return f"{examples / seconds:.0f} examples/s" if seconds > 0 else "- examples/s"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
