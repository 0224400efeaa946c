"""From the parts of a reduced run to the time of the full protocol.

With n training images in the reduced run and N in the full one, E epochs a stage and R replicates in the full
one, and batch sizes b:

    T = start-up(N) + closing + R * S / parallel
    S = first(N) + sum over stages of E * sum over b of epoch(b) * N_b / n_b

- epoch(b): seconds of an epoch after the stage's first one, evaluation included; n_b and N_b its examples;
- first: what the first epochs of all stages took longer than that, summed over batch sizes: tracing, caches;
- parallel: how many trials ran at once, on average over the reduced run, idle ends included;
- start-up(N), first(N): lines through runs with two numbers of images where there are two, else constant.

Where probes are counted too, S holds what they cost in the reduced run, times the growth of what they look
at.

Simplified: what is done once for all replicates (features of the clean images) is counted R times if a trial
does it, and the idle end of the reduced run is scaled although more trials fill it. Both speak against the
contender that has them, batchscope.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from protocol import Protocol, Work
from timeline import EpochTime, Timeline

__all__ = ["Full", "Line", "Parts", "Spread", "line_through", "parts_of", "project", "spread"]


@dataclass(frozen=True)
class Full:
    """The full protocol.

    Attributes:
        protocol: With its own epochs and replicates.
        images: Number of training and of validation images.
        probes: What all probes of one replicate cost, as a multiple of what they cost in the reduced run.
    """

    protocol: Protocol
    images: tuple[int, int]
    probes: float


@dataclass(frozen=True)
class Line:
    """Seconds as `constant + slope * training images`."""

    constant: float
    slope: float = 0.0

    def at(self, images: int) -> float:
        """Seconds for so many training images, not below 0."""
        return max(self.constant + self.slope * images, 0.0)


@dataclass(frozen=True)
class Parts:
    """What a run is made of.

    Attributes:
        start_up: Until the first trial began.
        first: Trial seconds that stages' first epochs took longer than their others.
        epochs: Trial seconds of an epoch after a stage's first one, with its work, by stage and batch size.
        closing: After the last trial's end.
        probes: Trial seconds of all probes.
        parallel: How many trials ran at once.
    """

    start_up: Line
    first: Line
    epochs: Mapping[tuple[str, int], tuple[float, Work]]
    closing: float
    probes: float
    parallel: float

    def epoch_seconds(self, stage: str) -> float:
        """Seconds of one epoch of a stage at all batch sizes."""
        return (
            sum(seconds for (name, _), (seconds, _) in self.epochs.items() if name == stage) / self.parallel
        )


def parts_of(timeline: Timeline) -> Parts:
    """Takes a run of one replicate apart.

    Raises:
        ValueError: A stage has one epoch only, so that its first cannot be told from the others.
    """
    groups: dict[tuple[str, int], list[EpochTime]] = {}
    for epoch in timeline.epochs:
        groups.setdefault((epoch.stage, epoch.trial[0]), []).append(epoch)
    if min(len(group) for group in groups.values()) < 2:
        raise ValueError("each stage must have at least two epochs, so that its first can be told apart")
    steady: dict[tuple[str, int], tuple[float, Work]] = {}
    first = 0.0
    for key, (opening, *others) in groups.items():
        seconds = statistics.fmean(epoch.seconds for epoch in others)
        steady[key] = seconds, others[0].work
        first += opening.seconds - seconds
    return Parts(
        start_up=Line(timeline.start_up),
        first=Line(first),
        epochs=steady,
        closing=timeline.closing,
        probes=sum(epoch.probe_seconds for epoch in timeline.epochs),
        parallel=timeline.parallel,
    )


def line_through(seconds: float, images: int, other_seconds: float, other_images: int) -> Line:
    """The line through two measurements; falling ones, which are noise, are taken as constant."""
    slope = max((other_seconds - seconds) / (other_images - images), 0.0)
    return Line(seconds - slope * images, slope)


def project(parts: Parts, full: Full, *, probes: bool) -> float:
    """Seconds of the full protocol; with or without probes."""
    protocol, (training, validation) = full.protocol, full.images
    trial_seconds = parts.first.at(training)
    for stage in protocol.stages:
        for size in protocol.batch_sizes:
            seconds, work = parts.epochs[stage.name, size]
            whole = Work.of(protocol, size, training, validation)
            trial_seconds += stage.epochs * seconds * whole.examples / work.examples
    if probes:
        trial_seconds += parts.probes * full.probes
    return parts.start_up.at(training) + parts.closing + protocol.replicates * trial_seconds / parts.parallel


@dataclass(frozen=True)
class Spread:
    """Repeated measurements: their median, smallest and largest."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))
