"""What is told of an epoch while it is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from batchscope.records import BatchProgress
from batchscope.training.loops import Figures, OnStep
from batchscope.training.parts import together

__all__ = ["OnBatch", "counting_on", "reporter"]

OnBatch = Callable[[BatchProgress], None]


def reporter(stage: str, epoch: int, total: int, on_batch: OnBatch, trained: float) -> OnStep:
    """Tells where the epoch stands, from a part of it on that begins now.

    Args:
        stage: The stage's name.
        epoch: Counted on through the stages.
        total: Examples of the epoch.
        on_batch: Told.
        trained: Seconds of training in the parts before this one.
    """
    start = time.perf_counter()

    def on_step(examples: int, accuracy: float) -> None:
        seconds = trained + time.perf_counter() - start
        on_batch(BatchProgress(stage, epoch, examples, total, accuracy, seconds))

    return on_step


def counting_on(on_step: OnStep, parts: Sequence[tuple[int, Figures]]) -> OnStep:
    """Tells of a part as of the whole epoch, given the parts before it."""
    if not parts:
        return on_step
    before, so_far = sum(count for count, _ in parts), together(parts)

    def told(examples: int, accuracy: float) -> None:
        right = before * so_far.accuracy + examples * accuracy
        on_step(before + examples, right / (before + examples))

    return told
