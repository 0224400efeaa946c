"""What a worker carries trials out by: Keras, a function or a command; each tells its records alike."""

from __future__ import annotations

import math
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from batchscope.errors import HistoryError, TrainingError
from batchscope.records import PEAK_MEMORY, BatchProgress, EpochRecord
from batchscope.running.messages import (
    AnyOwnSetUp,
    BatchDone,
    CommandSetUp,
    Discarded,
    EpochDone,
    FunctionSetUp,
    Message,
    Refused,
    Rehearse,
    Rehearsed,
    RunTrial,
    TooLarge,
)
from batchscope.running.stopping import ASK_TO_END

if TYPE_CHECKING:
    from batchscope.own.command import CommandTrials
    from batchscope.own.function import TrainFunction
    from batchscope.own.handle import TrialValues
    from batchscope.own.ledger import Ledger
    from batchscope.training.trial import Trainer

__all__ = [
    "CommandRecipe",
    "FunctionRecipe",
    "KerasRecipe",
    "Line",
    "Recipe",
    "command_recipe",
    "function_recipe",
    "throttled",
]

_PROGRESS_SECONDS = 0.25


@dataclass(frozen=True)
class Line:
    """The worker's end of the line to the run.

    Attributes:
        say: Sends a message.
        answer: Waits for the next one.
    """

    say: Callable[[Message], None]
    answer: Callable[[], Message]

    def store(self, record: EpochRecord) -> None:
        """Sends a record, and returns when it is safe.

        Raises:
            HistoryError: The run refuses it.
        """
        self.say(EpochDone(record))
        answer = self.answer()
        if isinstance(answer, Refused):
            raise HistoryError(answer.reason)

    def discard(self, epoch: int, *, replaced: bool) -> None:
        """Has the trial's stored records from an epoch on given up, for others or for none."""
        self.say(Discarded(epoch, replaced))
        self.answer()


class Recipe(Protocol):
    """Carries out the trials of a study."""

    def carry_out(self, command: RunTrial, line: Line) -> None:
        """Trains a trial, going on where it stands, and tells each record."""

    def measure(self, seconds: float) -> float:
        """Trains for so many seconds, keeps nothing of it, and returns the examples/s."""


@dataclass(frozen=True)
class KerasRecipe:
    """A study of this program's own training."""

    trainer: Trainer

    def carry_out(self, command: RunTrial, line: Line) -> None:
        """Trains a trial; each record tells the most memory since the trial began in this process."""
        from batchscope.training.memory_use import peak_since_reset, reset_peaks

        tell, reset = throttled(line.say, _PROGRESS_SECONDS), reset_peaks()

        def on_batch(progress: BatchProgress) -> None:
            tell(BatchDone(progress))

        for record in self.trainer.run(command.trial, command.checkpoint, command.stored_epochs, on_batch):
            peak = peak_since_reset() if reset else None
            memory = {} if peak is None else {PEAK_MEMORY: float(peak)}
            line.store(replace(record, probes={**record.probes, **memory}))

    def measure(self, seconds: float) -> float:
        """Measures training at the study's smallest batch size."""
        from batchscope.training.rehearsal import examples_per_second

        return examples_per_second(self.trainer, seconds)

    def rehearse(self, command: Rehearse) -> Rehearsed | TooLarge:
        """Measures training, and the memory that it takes."""
        from batchscope.training.memory import shortage_of
        from batchscope.training.memory_use import MemoryMeter
        from batchscope.training.rehearsal import rehearse

        try:
            meter = MemoryMeter(command.memory)
            return Rehearsed(rehearse(self.trainer, command.trial, command.seconds, meter))
        except Exception as error:
            reason = shortage_of(error)
            if reason is None:
                raise
            return TooLarge(reason)


@dataclass(frozen=True)
class _OwnRecipe(ABC):
    """A study of somebody's own code.

    Attributes:
        seed: The study's.
        learning_rate: For trials that have none of a grid; None where the code has its own.
    """

    seed: int
    learning_rate: float | None

    def carry_out(self, command: RunTrial, line: Line) -> None:
        """Trains a trial.

        Raises:
            TrainingError: No epoch was reported.
        """
        # Not before: they bring pandas, which Keras' workers need not wait for.
        from batchscope.own.handle import trial_values
        from batchscope.own.ledger import Ledger, TrialOverError

        if command.stored and command.stored[-1].diverged:
            return
        begun = command.checkpoint.exists()
        command.checkpoint.mkdir(parents=True, exist_ok=True)
        rate = self.learning_rate if command.trial.learning_rate is None else command.trial.learning_rate
        values = trial_values(command.trial, self.seed, rate, command.checkpoint.absolute())
        ledger = Ledger(command.trial.batch_size, values.learning_rate, command.stored, line)
        try:
            self.train(values, ledger, begun=begun)
        except TrialOverError:
            return
        ledger.end()
        if not ledger.records:
            raise TrainingError("a trial must report at least one epoch, but ended without")

    @abstractmethod
    def train(self, values: TrialValues, ledger: Ledger, *, begun: bool) -> None:
        """Has the code train."""

    def measure(self, seconds: float) -> float:
        """Own code has no pace that could be measured without keeping what it does."""
        raise TrainingError(f"training code of one's own cannot be measured, not for {seconds} s")


@dataclass(frozen=True)
class FunctionRecipe(_OwnRecipe):
    """A study of a Python function."""

    function: TrainFunction

    def train(self, values: TrialValues, ledger: Ledger, *, begun: bool) -> None:  # noqa: ARG002
        """Calls the function."""
        from batchscope.own.handle import TrialHandle

        self.function(TrialHandle(values, ledger))


@dataclass(frozen=True)
class CommandRecipe(_OwnRecipe):
    """A study of a command."""

    trials: CommandTrials

    def train(self, values: TrialValues, ledger: Ledger, *, begun: bool) -> None:
        """Runs the command."""
        self.trials.run(values, ledger, begun=begun)


def function_recipe(set_up: FunctionSetUp) -> FunctionRecipe:
    """Makes a function ready to be called.

    Raises:
        TrainingError: Something that it needs cannot be had.
    """
    from batchscope.own.function import unpack

    function = unpack(set_up.function)
    _let_children_be_ended()
    return FunctionRecipe(set_up.study.seed, _learning_rate(set_up), function)


def command_recipe(set_up: CommandSetUp) -> CommandRecipe:
    """Makes a command ready to be run.

    Raises:
        TrainingError: Its program is not there.
    """
    from batchscope.own.command import CommandTrials, check_program
    from batchscope.own.leftovers import own_mark

    check_program(set_up.study)
    _let_children_be_ended()
    trials = CommandTrials(set_up.study, set_up.logs, own_mark())
    return CommandRecipe(set_up.study.seed, _learning_rate(set_up), trials)


def _learning_rate(set_up: AnyOwnSetUp) -> float | None:
    rates = set_up.study.learning_rates or []
    return rates[0] if len(rates) == 1 else None


def _let_children_be_ended() -> None:
    """Has signals end what own code starts, though this process heeds none.

    A signal that is ignored stays so in a program that is started; one that has a handler does not.
    In a process that is forked it has its default effect again, also if it comes at once.
    """
    for number in ASK_TO_END:
        signal.signal(number, lambda *_: None)
    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ASK_TO_END),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, ASK_TO_END),
        after_in_child=_heed_signals,
    )


def _heed_signals() -> None:
    for number in ASK_TO_END:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASK_TO_END)


def throttled(say: Callable[[BatchDone], None], seconds: float) -> Callable[[BatchDone], None]:
    """Passes on where an epoch stands once in so many seconds at most; what comes between is dropped."""
    said = -math.inf

    def now_and_then(message: BatchDone) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= seconds:
            said = now
            say(message)

    return now_and_then
