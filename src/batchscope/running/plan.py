"""The plan of a study: its trials in the order in which they run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from batchscope.errors import DataError
from batchscope.own_study import AnyStudy
from batchscope.records import Trial
from batchscope.schedule import StageSchedule, schedule
from batchscope.spec import Study

__all__ = [
    "check_sizes",
    "check_warmup",
    "examples_per_trial",
    "over_before_warm",
    "plan_trials",
    "replicate_of",
]


def plan_trials(study: AnyStudy) -> list[Trial]:
    """Lists the trials, replicate by replicate.

    A study that is stopped half way so holds every batch size, and every learning rate of a grid, as
    often as any other. Within a replicate the small batch sizes, which take longest, come first.
    """
    return [
        trial
        for replicate in range(1, study.replicates + 1)
        for batch_size in sorted(study.batch_sizes)
        for trial in replicate_of(study, batch_size, replicate)
    ]


def replicate_of(study: AnyStudy, batch_size: int, replicate: int) -> list[Trial]:
    """The trials of one replicate at one batch size: one, or one for each learning rate of a grid."""
    grid: Sequence[float | None] = study.grid or [None]
    return [Trial(batch_size, replicate, learning_rate) for learning_rate in grid]


def check_sizes(study: Study, training: int, validation: int) -> None:
    """Refuses batch sizes for which there are too few examples, or a stage too short to warm up.

    Args:
        study: The study.
        training: Number of training examples.
        validation: Number of validation examples.

    Raises:
        DataError: A batch would not be full once, or a stage of known length would be over before its
            learning rate is warmed up.
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
    for size in sorted(study.batch_sizes):
        check_warmup(study, size, training)


def check_warmup(study: Study, batch_size: int, training: int) -> None:
    """Refuses a batch size with a stage that is too short to warm up.

    Args:
        study: As for `over_before_warm`, like the others.
        batch_size: Examples per update.
        training: Number of training examples.

    Raises:
        DataError: It has one.
    """
    planned = over_before_warm(study, batch_size, training)
    if planned is not None:
        raise DataError(
            f"a warm-up must not be longer than its stage, but at batch size {batch_size} that of the "
            f"stage {planned.stage.name} takes {planned.warmup:,} updates and the stage has "
            f"{planned.updates:,}; "
            "shorten the warm-up, lengthen the stage or leave out the batch size"
        )


def over_before_warm(study: Study, batch_size: int, training: int) -> StageSchedule | None:
    """The first stage of known length that is over before its learning rate is warmed up.

    Args:
        study: The study, whose own batch sizes do not matter.
        batch_size: Examples per update.
        training: Number of training examples, at least `batch_size`.
    """
    for planned in schedule(study, batch_size, training):
        if planned.updates is not None and planned.warmup > planned.updates:
            return planned
    return None


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
