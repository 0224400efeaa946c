"""Where tasks leave letters for the driver, and wait for its answers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping

from batchscope.running.cluster.letters import Letter, Told
from batchscope.running.messages import Message

__all__ = ["Desk"]


class Desk:
    """An actor beside the driver. All of its methods run in one thread, none while another does."""

    def __init__(self) -> None:
        self._letters: list[Letter] = []
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._tickets = itertools.count()
        self._some = asyncio.Event()

    async def put(self, attempt: int, message: Told) -> None:
        """Leaves a letter."""
        self._letters.append(Letter(attempt, message))
        self._some.set()

    async def ask(self, attempt: int, message: Told) -> Message:
        """Leaves a letter and waits for the answer."""
        ticket = next(self._tickets)
        answer = self._answers[ticket] = asyncio.get_running_loop().create_future()
        self._letters.append(Letter(attempt, message, ticket))
        self._some.set()
        given: Message = await answer
        return given

    async def closed(self) -> None:
        """Never returns: whoever waits for it learns when the desk is no more."""
        await asyncio.Event().wait()

    async def exchange(self, answers: Mapping[int, Message]) -> list[Letter]:
        """Hands out the driver's answers, by ticket, and waits for letters to give it."""
        for ticket, answer in answers.items():
            self._answers.pop(ticket).set_result(answer)
        await self._some.wait()
        self._some.clear()
        letters, self._letters = self._letters, []
        return letters
