"""The plan of a study: its trials in the order in which they run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from batchscope.errors import DataError
from batchscope.own_study import AnyStudy
from batchscope.records import Trial
from batchscope.schedule import schedule
from batchscope.spec import Study

__all__ = ["check_sizes", "examples_per_trial", "plan_trials"]


def plan_trials(study: AnyStudy) -> list[Trial]:
    """Lists the trials, replicate by replicate.

    A study that is stopped half way so holds every batch size, and every learning rate of a grid, as
    often as any other. Within a replicate the small batch sizes, which take longest, come first.
    """
    grid: Sequence[float | None] = study.grid or [None]
    return [
        Trial(batch_size=batch_size, replicate=replicate, learning_rate=learning_rate)
        for replicate in range(1, study.replicates + 1)
        for batch_size in sorted(study.batch_sizes)
        for learning_rate in grid
    ]


def check_sizes(study: Study, training: int, validation: int) -> None:
    """Refuses batch sizes for which there are too few examples.

    Args:
        study: The study.
        training: Number of training examples.
        validation: Number of validation examples.

    Raises:
        DataError: A batch would not be full once.
    """
    largest = max(study.batch_sizes)
    if largest > training:
        raise DataError(
            f"the largest batch size must not exceed the number of training examples, "
            f"but got batch size {largest} and {training} examples; take a smaller one or more examples"
        )
    if study.last_batch == "drop" and largest > validation:
        raise DataError(
            f'with last_batch = "drop" validation needs at least one full batch, but got batch size '
            f'{largest} and {validation} validation examples; set last_batch = "keep" or take more examples'
        )


def examples_per_trial(study: Study, training: int) -> dict[int, float]:
    """Images that a whole trial presents, by batch size.

    A stage until a target counts with the most that it may present. NaN where a budget is in seconds:
    nothing is known ahead then.

    Args:
        study: The study.
        training: Number of training images.
    """
    return {
        size: sum(
            math.nan if stage.examples is None else stage.examples
            for stage in schedule(study, size, training)
        )
        for size in study.batch_sizes
    }
