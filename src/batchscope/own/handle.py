"""What a training function is given: its trial."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from batchscope.own.ledger import Ledger
from batchscope.records import EpochRecord, Trial
from batchscope.training.streams import Purpose, seed_for

__all__ = ["TrialHandle", "TrialValues", "trial_values"]


@dataclass(frozen=True)
class TrialValues:
    """What training code is told of its trial.

    Attributes:
        trial: Batch size and replicate.
        seed: Below 2**31, of the study's seed and the replicate: the same at every batch size.
        learning_rate: As the study gives it; None where it gives none.
        folder: For checkpoints; kept until the trial is finished.
    """

    trial: Trial
    seed: int
    learning_rate: float | None
    folder: Path


def trial_values(trial: Trial, study_seed: int, learning_rate: float | None, folder: Path) -> TrialValues:
    """The values of a trial of a study with this seed."""
    seed = seed_for(Purpose.OWN_CODE, study_seed, trial.replicate)
    return TrialValues(trial, seed, learning_rate, folder)


class TrialHandle:
    """A trial, as the function that trains it sees it.

    Args:
        values: Of the trial.
        ledger: Takes the reports.
    """

    def __init__(self, values: TrialValues, ledger: Ledger) -> None:
        self._values, self._ledger = values, ledger

    @property
    def name(self) -> str:
        """Identifies the trial within its study, for example ``b16-r1``."""
        return self._values.trial.name

    @property
    def batch_size(self) -> int:
        """Examples per update."""
        return self._values.trial.batch_size

    @property
    def replicate(self) -> int:
        """The bundle of seeds, counted from 1."""
        return self._values.trial.replicate

    @property
    def seed(self) -> int:
        """For everything random, below 2**31: the same at every batch size of a replicate."""
        return self._values.seed

    @property
    def learning_rate(self) -> float | None:
        """As given to `batchscope.run`; None where none was given."""
        return self._values.learning_rate

    @property
    def folder(self) -> Path:
        """A folder of the trial's own for checkpoints, kept until the trial is finished."""
        return self._values.folder

    @property
    def reported(self) -> tuple[EpochRecord, ...]:
        """The records that are stored, also those from before an interruption."""
        return self._ledger.records

    @property
    def resumed(self) -> bool:
        """Whether records are stored."""
        return bool(self._ledger.records)

    def report(  # noqa: PLR0913  # they are the history's columns
        self,
        *,
        epoch: int | None = None,
        stage: str | None = None,
        updates: int | None = None,
        examples: int | None = None,
        seconds: float | None = None,
        train_loss: float | None = None,
        train_accuracy: float | None = None,
        val_loss: float | None = None,
        val_accuracy: float | None = None,
        learning_rate: float | None = None,
        **columns: float,
    ) -> None:
        """Reports the end of an epoch, and returns when its record is stored.

        Figures may be numbers, or arrays and tensors of one element. All trials must report the same
        ones of the losses, the accuracies and the learning rate. Where one of the metrics is NaN or
        infinite, the record is stored, the trial ends as diverged, and this does not return.

        A trial that was interrupted is begun again by calling the function again. A function that
        begins anew reports its epochs again: those with the figures that are stored pass, and with
        the first other figure what is stored from there on is discarded, and the run says so. A
        function that goes on from a checkpoint reports what comes next; an epoch of before must
        then have the figures that are stored.

        Args:
            epoch: Counted from 1. By default the one after the last report; of a function that was
                called again and reports for the first time, the stored one with so many updates,
                or the one after the last.
            stage: The stage's name; default ``training``.
            updates: Optimizer steps since the trial's start. By default as many as whole batches
                make of `examples`.
            examples: Examples presented since the trial's start. By default `updates` times the
                batch size. One of the two is needed.
            seconds: Of training since the trial's start. By default the time between reports,
                everything included that the function does meanwhile.
            train_loss: Loss on the training part.
            train_accuracy: From 0 to 1.
            val_loss: Loss on the validation part; this or `val_accuracy` is needed.
            val_accuracy: From 0 to 1.
            learning_rate: In force; by default the trial's, if it has one.
            **columns: Further figures, by the names of the history's columns that they will be.

        Raises:
            HistoryError: The report cannot be accepted; nothing of it is stored.
        """
        named = {
            "epoch": epoch,
            "stage": stage,
            "updates": updates,
            "examples": examples,
            "seconds": seconds,
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "learning_rate": learning_rate,
        }
        told: dict[str, object] = {name: value for name, value in named.items() if value is not None}
        self._ledger.take({**told, **columns})
