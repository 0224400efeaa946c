"""Which of several layouts trains the most examples a second, found by trying them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from batchscope.errors import TrainingError
from batchscope.running.layout import Layout, fastest
from batchscope.running.messages import Fatal, Measure, Measured, Message, Ready
from batchscope.running.pool import Heard, Pool, Worker

__all__ = ["SECONDS", "measure"]

SECONDS = 5.0

OnReady = Callable[[Mapping[str, str]], None]


class _DeathError(Exception):
    """A worker that was to answer is gone."""


def measure(
    layouts: Sequence[Layout], pool: Pool, on_ready: OnReady
) -> tuple[Mapping[Layout, float], Sequence[Worker]]:
    """Measures layouts one after the other; the workers of the fastest stay.

    The workers of a layout train at the same time, once all of them are set up, for `SECONDS`. The
    best so far waits, without using a core, while the next is measured.

    Args:
        layouts: Fewest workers first, and at least one.
        pool: Starts the workers.
        on_ready: Told what a worker knows when it is set up.

    Returns:
        Examples/s of each layout, all its workers together, 0 where one of them died; and the workers
        of the fastest, which are set up and have no job.

    Raises:
        BatchscopeError: A worker refuses the study, or one of the first layout dies: with more
            workers there is less room still.
    """
    rates: dict[Layout, float] = {}
    best: Sequence[Worker] = ()
    for layout in layouts:
        crew = [pool.start(layout.threads) for _ in range(layout.workers)]
        try:
            rates[layout] = _examples_per_second(crew, pool, on_ready)
        except _DeathError as death:
            if not best:
                raise TrainingError(str(death)) from death
            rates[layout] = 0.0
        if fastest(rates) == layout:
            best, crew = crew, list(best)
        pool.stop(crew)
    return rates, best


def _examples_per_second(crew: Sequence[Worker], pool: Pool, on_ready: OnReady) -> float:
    for answer in _answers(crew, pool, "set up"):
        if isinstance(answer, Ready):
            on_ready(answer.facts)
    for worker in crew:
        worker.tell(Measure(SECONDS))
    answers = _answers(crew, pool, "measured")
    return sum(answer.examples_per_second for answer in answers if isinstance(answer, Measured))


def _answers(crew: Sequence[Worker], pool: Pool, what: str) -> list[Message]:
    """The next message of each worker, in the order in which they come."""
    silent = set(crew)
    answers: list[Message] = []
    others: list[Heard] = []
    try:
        while silent:
            worker, message = pool.hear()
            if worker not in silent:
                others.append((worker, message))
                continue
            if message is None:
                raise _DeathError(f"a worker could not be {what}; {worker.obituary()}")
            if isinstance(message, Fatal):
                raise message.error
            silent.remove(worker)
            answers.append(message)
    finally:
        for heard in others:  # whoever else ended meanwhile is missed where it is needed
            pool.hear_again(heard)
    return answers
