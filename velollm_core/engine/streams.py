"""Streams of tokens from an engine, wherever that runs, to whoever waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Protocol

from attrs import define, field, frozen

from velollm_core.engine.blocks import BlockUsage
from velollm_core.engine.scheduling import Scheduler, SchedulerStats
from velollm_core.engine.sequence import FinishReason, Ranking, Sequence
from velollm_core.errors import VeloError


class EngineBusy(VeloError):
    """Too many requests wait already; the text says how many."""


class EngineStopped(VeloError):
    """The engine ended, or broke down, before the request did; the text says why."""


@frozen
class TokenBatch:
    """Tokens of one sequence since the last batch; ``finish_reason`` comes with the last of them."""

    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    logprobs: tuple[float, ...] = ()
    alternatives: tuple[Ranking, ...] = ()


class StreamingEngine(Protocol):
    """An engine that runs by itself, as a server asks it. Any event loop may ask."""

    @property
    def failure(self) -> VeloError | None:
        """Why the engine no longer runs; None while it does."""

    def stream(self, sequence: Sequence, leader: Sequence | None = None) -> AsyncGenerator[TokenBatch, None]:
        """Produce the tokens of ``sequence`` as they come; closing the generator early aborts it.

        ``leader`` is the first sequence of a request that has several: where that was taken, all are, so that a
        request is never turned away in part.

        Raises:
            OutOfBlocks: it can never fit.
            EngineBusy: too many wait already.
            EngineStopped: the engine ended before it did.
        """

    async def stats(self) -> SchedulerStats:
        """The scheduler's counters.

        Raises:
            EngineStopped: there is no engine any more.
        """

    async def usage(self) -> BlockUsage:
        """The cache's counters.

        Raises:
            EngineStopped: there is no engine any more.
        """

    def close(self) -> None:
        """End the engine after the step it is in; open streams raise."""


@define(eq=False)
class Reader:
    """One sequence and who waits for it. ``signalled`` while the reader was told of news that it has not read yet.

    Another thread lets the sequence grow; it sets ``finish_reason`` last.
    """

    sequence: Sequence
    loop: asyncio.AbstractEventLoop
    news: asyncio.Event = field(factory=asyncio.Event)
    signalled: bool = False
    failure: VeloError | None = None
    sent: int = 0

    async def read(self) -> TokenBatch:
        """Wait for news; a slow reader finds several steps' tokens at once."""
        await self.news.wait()
        self.news.clear()
        self.signalled = False
        if self.failure:
            raise self.failure
        # The reason first: once it is there, no token follows.
        reason = self.sequence.finish_reason
        batch = unsent(self.sequence, self.sent, reason)
        self.sent += len(batch.token_ids)
        return batch


def check_queue(scheduler: Scheduler, max_waiting: int) -> None:
    """Refuse one more request where ``max_waiting`` wait.

    Raises:
        EngineBusy: they do.
    """
    waiting = scheduler.stats().waiting
    if waiting >= max_waiting:
        raise EngineBusy(f"{waiting} requests wait already, as many as may: try again later")


def unsent(sequence: Sequence, sent: int, reason: FinishReason | None) -> TokenBatch:
    """What ``sequence`` has beyond its first ``sent`` tokens; ``reason`` is why no more will come, if none will."""
    start = sequence.num_prompt_tokens + sent
    if not sequence.sampling.logprobs:
        return TokenBatch(tuple(sequence.token_ids[start:]), reason)
    # A token is there before its log probability; while more may come, both are read or neither.
    end = sequence.num_prompt_tokens + len(sequence.logprobs) if reason is None else None
    token_ids = tuple(sequence.token_ids[start:end])
    logprobs = tuple(sequence.logprobs[sent : sent + len(token_ids)])
    return TokenBatch(token_ids, reason, logprobs, tuple(sequence.alternatives[sent : sent + len(token_ids)]))


def wake(readers: Iterable[Reader]) -> list[Reader]:
    """Tell those of ``readers`` who do not know it yet that there is news, each event loop once.

    Those whose event loop was closed come back.
    """
    orphans: list[Reader] = []
    groups: dict[asyncio.AbstractEventLoop, list[Reader]] = {}
    for reader in readers:
        if not reader.signalled:
            reader.signalled = True
            groups.setdefault(reader.loop, []).append(reader)
        elif reader.loop.is_closed():
            orphans.append(reader)
    for loop, group in groups.items():
        try:
            loop.call_soon_threadsafe(_tell, group)
        except RuntimeError:
            orphans += group
    return orphans


def _tell(readers: list[Reader]) -> None:
    for reader in readers:
        reader.news.set()
