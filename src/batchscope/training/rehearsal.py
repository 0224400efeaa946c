"""Training that nobody keeps, to see how fast it is and what memory it takes."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from batchscope.records import StagePace, Trial
from batchscope.schedule import StageSchedule
from batchscope.training.memory_use import MemoryMeter
from batchscope.training.trial import Trainer

__all__ = ["examples_per_second", "rehearse", "time_blocks"]

_MEASURED_BATCHES = 4
_BLOCKS = 20
_FEWEST_BLOCKS = 3


def examples_per_second(trainer: Trainer, seconds: float) -> float:
    """Trains on nothing for a while, to see how fast that goes here and now.

    Args:
        trainer: Of the study.
        seconds: How long, about; evenly spent on the stages.

    Returns:
        Examples per second over a whole trial of the smallest batch size, without what is done once
        for all trials.
    """
    stages = trainer.stages(Trial(min(trainer.batch_sizes), replicate=1))
    times = [_seconds_per_example(trainer, planned, seconds / len(stages)) for planned in stages]
    examples = [_presented(planned) for planned in stages]
    return sum(examples) / sum(count * each for count, each in zip(examples, times, strict=True))


def _seconds_per_example(trainer: Trainer, planned: StageSchedule, seconds: float) -> float:
    program = trainer.enter(planned)
    source, batch_size = program.blank(_MEASURED_BATCHES * planned.forward_batch), planned.forward_batch
    order, done, start = np.arange(len(source)), 0, time.perf_counter()
    while done == 0 or time.perf_counter() - start < seconds:
        program.loop.train(source, order, batch_size)
        done += len(source)
    return (time.perf_counter() - start) / done


def rehearse(trainer: Trainer, trial: Trial, seconds: float, meter: MemoryMeter) -> tuple[StagePace, ...]:
    """Trains each stage for a while and ends it as a trial does, with validation and probes.

    A stage that computes the whole network is shown the images as its first epoch shows them. Of one with
    ready features these are zeros, for a run makes them ready once for all trials, off its clock.

    Args:
        trainer: Of a study with the trial.
        trial: To train.
        seconds: How long to train each stage, about, once it is warm.
        meter: Of memory; made when nothing was trained yet.

    Returns:
        One for each stage, in their order.
    """
    trainer.begin(trial)
    return tuple(_rehearsed(trainer, trial, planned, seconds, meter) for planned in trainer.stages(trial))


def _rehearsed(
    trainer: Trainer, trial: Trial, planned: StageSchedule, seconds: float, meter: MemoryMeter
) -> StagePace:
    program, source = trainer.enter(planned), trainer.shown(planned)
    # In the order of an epoch, which is no order: neighbours on disk would be read faster.
    order = np.random.default_rng(0).permutation(len(source))

    def train(updates: int) -> None:
        program.loop.train(source, order[: updates * planned.batch_size], planned.forward_batch)

    meter.reset()
    block, times = time_blocks(train, len(source) // planned.batch_size, seconds)
    trainer.end_stage(planned, trial, source)
    return StagePace(planned.stage.name, _presented(planned), block, times, meter.uses())


def time_blocks(
    train: Callable[[int], None],
    most: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[int, tuple[float, ...]]:
    """Times blocks of updates, of as many as make the clock's and Python's own share small.

    The number is doubled until a block takes a twentieth of the time; those blocks warm up and do not count.

    Args:
        train: Does so many updates.
        most: Updates of a block at most; at least 1.
        seconds: To time for, about; there are at least three blocks.
        clock: In seconds.

    Returns:
        Updates of a block, and the mean seconds of an update in each block.
    """

    def timed(updates: int) -> float:
        start = clock()
        train(updates)
        return clock() - start

    timed(1)  # takes the memory of a batch for the first time
    block = 1
    while timed(block) < seconds / _BLOCKS and block < most:
        block = min(2 * block, most)
    times: list[float] = []
    spent = 0.0
    while spent < seconds or len(times) < _FEWEST_BLOCKS:
        took = timed(block)
        spent += took
        times.append(took / block)
    return block, tuple(times)


def _presented(planned: StageSchedule) -> int:
    """Examples of the stage; of one whose length is not known ahead, of an epoch."""
    return planned.examples or planned.examples_per_epoch
