"""Validation: loss and accuracy on images that are not trained on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import keras

from batchscope.history import SELECTION
from batchscope.records import Trial
from batchscope.spec import Stage, Study
from batchscope.training.feeding import Examples, Feeding
from batchscope.training.loops import Figures
from batchscope.training.probes import Evaluator, recalibrate
from batchscope.training.recalibration import averages_kept, batchnorm_layers, use_moments

__all__ = ["Validator"]


@dataclass(frozen=True, eq=False)
class Validator:
    """Validates trials in one stage, with the weights that the network has now.

    Attributes:
        study: Says which examples count.
        stage: Says which BatchNorm statistics do.
        backbone: Holds the BatchNorm layers.
        examples: Of the study.
        evaluator: Of the stage.
        feeding: Of the stage.
    """

    study: Study
    stage: Stage
    backbone: keras.Model
    examples: Examples
    evaluator: Evaluator
    feeding: Feeding

    def count(self, trial: Trial) -> int:
        """How many validation examples, from the first, a trial's figures rest on."""
        count = len(self.examples.validation)
        return count if self.study.last_batch == "keep" else count - count % trial.batch_size

    def measure(self, trial: Trial, *, choosing: bool) -> tuple[Figures, dict[str, float]]:
        """Of the validation examples.

        Args:
            trial: Whose they are.
            choosing: Whether to measure as well, as columns, those by which a learning rate is chosen.
        """
        with self._statistics():
            found = self.evaluator.by_averages(self.feeding.validation(trial.replicate), self.count(trial))
            if not (choosing and len(self.examples.selection)):
                return found, {}
            chosen_by = self.evaluator.by_averages(self.feeding.selection(trial.replicate))
        return found, {f"{SELECTION}loss": chosen_by.loss, f"{SELECTION}accuracy": chosen_by.accuracy}

    @contextmanager
    def _statistics(self) -> Iterator[None]:
        """Within, the BatchNorm layers hold the statistics that validation uses."""
        if self.stage.evaluation == "moving" or not batchnorm_layers(self.backbone):
            yield
            return
        moments = recalibrate(self.examples.probed_images(), self.backbone)
        with averages_kept(self.backbone):
            use_moments(self.backbone, moments)
            yield
