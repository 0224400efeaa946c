"""What the store gives back, besides the history."""

from __future__ import annotations

from dataclasses import dataclass

from batchscope.records import Trial, TrialState

__all__ = ["DataSummary", "LastEpoch", "SampleImage", "TrialStatus"]


@dataclass(frozen=True)
class TrialStatus:
    """How far a trial is.

    Attributes:
        trial: The trial.
        state: Where it stands.
        epochs: Epochs stored.
        error: The traceback of a failed trial, else None.
    """

    trial: Trial
    state: TrialState
    epochs: int
    error: str | None


@dataclass(frozen=True)
class LastEpoch:
    """Where a trial's stored history ends.

    Attributes:
        epoch: The last epoch that is stored.
        examples: Images presented up to there.
        seconds: Training time up to there.
        finite: Whether its losses are finite; where not, the trial has diverged.
    """

    epoch: int
    examples: int
    seconds: float
    finite: bool


@dataclass(frozen=True)
class SampleImage:
    """An image kept for the page.

    Attributes:
        id: The image's id.
        label: Name of its class.
        png: The image, encoded.
    """

    id: str
    label: str
    png: bytes


@dataclass(frozen=True)
class DataSummary:
    """What the page tells of the data.

    Attributes:
        source: Where they came from.
        fingerprint: Digest of inputs and labels.
        classes: Names.
        training: Number of training examples of each class.
        validation: Number of validation examples of each class.
        skipped: Pairs of id and reason of the images left out.
        shape: Of one example: ``(height, width, colours)``, or ``(features,)``; empty where it was
            stored before there were tables, and so is one of images.
        notes: What a reader must know of where the parts came from.
    """

    source: str
    fingerprint: str
    classes: tuple[str, ...]
    training: tuple[int, ...]
    validation: tuple[int, ...]
    skipped: tuple[tuple[str, str], ...]
    shape: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
