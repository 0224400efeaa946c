"""When a contender did what: the common form of all measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol import Event, Work

__all__ = ["EpochTime", "Stamped", "Timeline", "assemble"]


@dataclass(frozen=True)
class Stamped:
    """An event and when it came, in seconds since the contender was started.

    Attributes:
        at: The moment.
        event: What happened.
        probe_seconds: What an epoch's probes took, which are no part of the protocol.
    """

    at: float
    event: Event
    probe_seconds: float = 0.0


@dataclass(frozen=True)
class EpochTime:
    """One epoch of one trial.

    Attributes:
        trial: Batch size and replicate.
        stage: The stage's name.
        epoch: Counted from 1 within the stage.
        work: What was done.
        seconds: From the end of the epoch before, or the trial's start; with evaluation and everything
            else that was done in between, but for probes.
        training_seconds: Of training alone.
        probe_seconds: Of probes.
    """

    trial: tuple[int, int]
    stage: str
    epoch: int
    work: Work
    seconds: float
    training_seconds: float
    probe_seconds: float


@dataclass(frozen=True)
class Timeline:
    """One run of a contender.

    Attributes:
        wall: Seconds from its start to its exit, seen from outside.
        start_up: Of them, until the first trial began.
        closing: Of them, after the last trial ended.
        busy: Sum of all trials' durations; more than the time between where trials run in parallel.
        epochs: All epochs.
        peak_bytes: The most that its processes held in memory; pages that they share count once.
    """

    wall: float
    start_up: float
    closing: float
    busy: float
    epochs: tuple[EpochTime, ...]
    peak_bytes: int

    @property
    def parallel(self) -> float:
        """How many trials ran at once, on average."""
        return self.busy / (self.wall - self.start_up - self.closing)

    @property
    def probe_seconds(self) -> float:
        """Share of `wall` that probes took."""
        return sum(epoch.probe_seconds for epoch in self.epochs) / self.parallel


def assemble(stamped: Sequence[Stamped], wall: float, peak_bytes: int) -> Timeline:
    """Puts a run's events together.

    Raises:
        ValueError: A trial did not end.
    """
    last: dict[tuple[int, int], float] = {}
    starts: dict[tuple[int, int], float] = {}
    ends: dict[tuple[int, int], float] = {}
    epochs: list[EpochTime] = []
    for item in stamped:
        event, trial = item.event, item.event.trial
        if event.kind == "started":
            starts[trial] = last[trial] = item.at
        elif event.kind == "ended":
            ends[trial] = item.at
        else:
            seconds = item.at - last[trial] - item.probe_seconds
            last[trial] = item.at
            epochs.append(
                EpochTime(
                    trial,
                    event.stage,
                    event.epoch,
                    event.work,
                    seconds,
                    event.training_seconds,
                    item.probe_seconds,
                )
            )
    if not starts or starts.keys() != ends.keys():
        raise ValueError(f"every trial must end, but of {sorted(starts)} only {sorted(ends)} did")
    busy = sum(ends[trial] - starts[trial] for trial in starts)
    return Timeline(wall, min(starts.values()), wall - max(ends.values()), busy, tuple(epochs), peak_bytes)
