"""Sending a load: a closed loop of users who wait, or an open one that does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from attrs import define, field

from velollm_core.benchmark.arrivals import arrival_times
from velollm_core.benchmark.asking import LOAD
from velollm_core.benchmark.session import Planned

if TYPE_CHECKING:
    from velollm_core.benchmark.asking import Ask, Asking
    from velollm_core.benchmark.load import Load
    from velollm_core.benchmark.sample import Sample
    from velollm_core.benchmark.session import Session


SOON = 1e-6
# An event loop's timers wake up to a millisecond late; what is left after them is waited for turn by turn.
TIMER = 1.2e-3
# A user who was refused or cut off does not ask again at once: that would measure refusals.
PAUSE = 0.5


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
        load, seed = self.load, self.session.workload.seed
        if load.arrivals is not None:
            await self._open(arrival_times(load.arrivals, load.seconds, seed, load.requests))
            return
        self.session.phase(LOAD, load.requests or 0)
        self.began = self.session.now()
        users = range(self.session.workload.concurrency)
        await asyncio.gather(*(self._user() for _ in users))

    async def _open(self, times: Sequence[float]) -> None:
        self.session.phase(LOAD, len(times))
        self.began = self.session.now()
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
                await self._think(await self._send(self.asking.next()))

    async def _converse(self) -> None:
        conversation = self.asking.conversation()
        for _ in range(self.load.turns):
            if not self._goes_on():
                return
            said: list[str] = []
            sample = await self._send(conversation.next(), hear=said.append)
            await self._think(sample)
            if sample.timing.failure:
                return
            conversation.answer("".join(said))

    async def _send(
        self, ask: Ask, *, intended: float | None = None, hear: Callable[[str], None] | None = None
    ) -> Sample:
        number = self.sent
        self.sent += 1
        return await self.session.send(Planned(ask.task, number, ask.request), intended=intended, hear=hear)

    async def _think(self, sample: Sample) -> None:
        if pause := max(self.load.think, PAUSE if sample.timing.failure else 0.0):
            await asyncio.sleep(pause)

    def _goes_on(self) -> bool:
        if self.session.dead or (self.load.requests is not None and self.sent >= self.load.requests):
            return False
        return self.session.now() - self.began < self.load.seconds


async def _until(moment: float, now: Callable[[], float]) -> None:
    while (left := moment - (before := now())) > SOON:
        await asyncio.sleep(left - TIMER if left > TIMER else 0.0)
        if now() == before:
            # A clock that moves only while it is waited for.
            await asyncio.sleep(left)
