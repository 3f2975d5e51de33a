"""Sending a load: a closed loop of users who wait, or an open one that does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import define, field

from velollm_core.benchmark.arrivals import arrival_times
from velollm_core.benchmark.session import Planned

if TYPE_CHECKING:
    from velollm_core.benchmark.asking import Ask, Asking
    from velollm_core.benchmark.load import Load
    from velollm_core.benchmark.sample import Sample
    from velollm_core.benchmark.session import Session


SOON = 1e-6


@define
class Loop:
    """One load on one session; ``began`` is when it began, in the session's seconds."""

    session: Session
    load: Load
    asking: Asking
    began: float = 0.0
    sent: int = 0
    texts: list[str] = field(factory=list)

    async def run(self) -> None:
        """Send everything, and wait for what is still running at the end."""
        self.began = self.session.now()
        if self.load.arrivals is not None:
            await self._open()
            return
        users = range(self.session.workload.concurrency)
        await asyncio.gather(*(self._user() for _ in users))

    async def _open(self) -> None:
        assert self.load.arrivals is not None, "run() has looked"
        times = arrival_times(self.load.arrivals, self.load.seconds, self.session.workload.seed)[: self.load.requests]
        running: set[asyncio.Task[Sample]] = set()
        try:
            for time in times:
                if self.session.dead:
                    break
                intended = self.began + time
                # Prompts are made before their time comes: the send must not wait for them.
                ask = self.asking.next()
                await _until(intended, self.session.now)
                task = asyncio.create_task(self._send(ask, intended=intended))
                running.add(task)
                task.add_done_callback(running.discard)
            await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()

    async def _user(self) -> None:
        while self._goes_on():
            if self.load.turns > 1:
                await self._converse()
            else:
                await self._send(self.asking.next())
                await self._think()

    async def _converse(self) -> None:
        conversation = self.asking.conversation()
        for _ in range(self.load.turns):
            if not self._goes_on():
                return
            said: list[str] = []
            sample = await self._send(conversation.next(), hear=said.append)
            if sample.timing.failure:
                return
            conversation.answer("".join(said))
            await self._think()

    async def _send(
        self, ask: Ask, *, intended: float | None = None, hear: Callable[[str], None] | None = None
    ) -> Sample:
        number = self.sent
        self.sent += 1
        return await self.session.send(Planned(ask.task, number, ask.request), intended=intended, hear=hear)

    async def _think(self) -> None:
        if self.load.think:
            await asyncio.sleep(self.load.think)

    def _goes_on(self) -> bool:
        if self.session.dead or (self.load.requests is not None and self.sent >= self.load.requests):
            return False
        return self.session.now() - self.began < self.load.seconds


async def _until(moment: float, now: Callable[[], float]) -> None:
    while (left := moment - now()) > SOON:
        await asyncio.sleep(left)
