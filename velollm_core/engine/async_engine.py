"""The loop in a thread of its own, with a face for asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from itertools import chain
from queue import SimpleQueue
from typing import Any

from attrs import define, field, frozen

from velollm_core.engine.blocks import BlockUsage
from velollm_core.engine.loop import EngineLoop, RetiredStep
from velollm_core.engine.scheduling import SchedulerStats
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


@define(eq=False)
class _Stream:
    """One sequence and who waits for it. ``signalled`` while the reader was told of news that it has not read yet."""

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
        start = self.sequence.num_prompt_tokens + self.sent
        # A token is there before its log probability; while more may come, both are read or neither.
        whole = self.sequence.sampling.logprobs and reason is None
        end = self.sequence.num_prompt_tokens + len(self.sequence.logprobs) if whole else None
        token_ids = tuple(self.sequence.token_ids[start:end])
        logprobs = tuple(self.sequence.logprobs[self.sent : self.sent + len(token_ids)])
        alternatives = tuple(self.sequence.alternatives[self.sent : self.sent + len(token_ids)])
        self.sent += len(token_ids)
        return TokenBatch(token_ids, reason, logprobs, alternatives)


class AsyncEngine:
    """Runs an `EngineLoop` in its own thread and streams tokens to any event loop.

    Only that thread touches scheduler and executor: everything else is asked of it between two steps. A step crosses
    over once for each event loop, however many sequences it holds.
    """

    def __init__(self, loop: EngineLoop, *, max_waiting: int = 1024) -> None:
        self._loop = loop
        self._max_waiting = max_waiting
        self._questions: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._streams: dict[str, _Stream] = {}
        self._lock = threading.Lock()
        self._closing = False
        self._broken: VeloError | None = None
        self._failure: VeloError | None = None
        self._thread = threading.Thread(target=self._run, name="velollm-engine", daemon=True)
        self._thread.start()

    async def stream(self, sequence: Sequence, leader: Sequence | None = None) -> AsyncGenerator[TokenBatch, None]:
        """Produce the tokens of ``sequence`` as they come; closing the generator early aborts it.

        ``leader`` is the first sequence of a request that has several: where that was taken, all are, so that a
        request is never turned away in part.

        Raises:
            OutOfBlocks: it can never fit.
            EngineBusy: too many wait already.
            EngineStopped: the engine ended before it did.
        """
        stream = _Stream(sequence, asyncio.get_running_loop())
        try:
            await asyncio.wrap_future(self._ask(lambda: self._add(stream, leader)))
            while True:
                batch = await stream.read()
                yield batch
                if batch.finish_reason:
                    return
        finally:
            if not sequence.is_finished and self._failure is None:
                self._ask(lambda: self._abort(stream))

    async def stats(self) -> SchedulerStats:
        """The scheduler's counters.

        Raises:
            EngineStopped: there is no engine any more.
        """
        answer: SchedulerStats = await asyncio.wrap_future(self._ask(self._loop.scheduler.stats))
        return answer

    async def usage(self) -> BlockUsage:
        """The cache's counters.

        Raises:
            EngineStopped: there is no engine any more.
        """
        answer: BlockUsage = await asyncio.wrap_future(self._ask(self._loop.scheduler.blocks.usage))
        return answer

    @property
    def failure(self) -> VeloError | None:
        """Why the engine no longer runs; None while it does."""
        return self._failure

    def fail(self, reason: VeloError) -> None:
        """End the engine for ``reason``, something noticed outside of its steps; open streams raise it. Any thread."""
        self._ask(lambda: self._stop(reason))

    def close(self) -> None:
        """End the thread after the step it is in, and let go of the executor; open streams raise."""
        if self._failure is None:
            self._ask(self._stop)
        self._thread.join()

    def _ask(self, question: Callable[[], Any]) -> Future[Any]:
        answer: Future[Any] = Future()
        with self._lock:
            if self._failure is None:
                self._questions.put((question, answer))
            else:
                answer.set_exception(self._failure)
        return answer

    def _run(self) -> None:
        reason: VeloError = EngineStopped("the engine broke down; its log says why")
        try:
            self._serve()
            reason = self._broken or EngineStopped("the engine was closed")
        except VeloError as error:
            reason = error
        finally:
            self._fail(reason)
            self._loop.executor.close()

    def _serve(self) -> None:
        while not self._closing:
            if self._loop.is_idle or not self._questions.empty():
                self._answer(*self._questions.get())
            elif (retired := self._loop.step()) is not None:
                self._publish(retired)

    def _answer(self, question: Callable[[], Any], answer: Future[Any]) -> None:
        if not answer.set_running_or_notify_cancel():
            return
        try:
            answer.set_result(question())
        except BaseException as error:
            answer.set_exception(error)
            if not isinstance(error, VeloError):
                raise

    def _add(self, stream: _Stream, leader: Sequence | None) -> None:
        taken = leader is not None and (leader.is_finished or leader.id in self._streams)
        waiting = 0 if taken else self._loop.scheduler.stats().waiting
        if waiting >= self._max_waiting:
            raise EngineBusy(f"{waiting} requests wait already, as many as may: try again later")
        self._loop.scheduler.add(stream.sequence)
        self._streams[stream.sequence.id] = stream

    def _abort(self, stream: _Stream) -> None:
        if self._streams.pop(stream.sequence.id, None) is stream:
            self._loop.scheduler.abort(stream.sequence.id)

    def _stop(self, reason: VeloError | None = None) -> None:
        self._closing, self._broken = True, reason

    def _publish(self, retired: RetiredStep) -> None:
        sampled = (chunk.sequence for chunk in retired.output.chunks if chunk.samples)
        news = []
        for sequence in chain(retired.output.decodes, sampled):
            stream = self._streams.get(sequence.id)
            if stream is None:
                continue
            if not stream.signalled:
                news.append(stream)
            elif stream.loop.is_closed():
                self._abort(stream)
        self._wake(news)
        for sequence in retired.ended:
            self._streams.pop(sequence.id, None)

    def _wake(self, streams: list[_Stream]) -> None:
        readers: dict[asyncio.AbstractEventLoop, list[_Stream]] = {}
        for stream in streams:
            stream.signalled = True
            readers.setdefault(stream.loop, []).append(stream)
        for loop, group in readers.items():
            try:
                loop.call_soon_threadsafe(_tell, group)
            except RuntimeError:  # the event loop was closed with its readers
                for stream in group:
                    self._abort(stream)

    def _fail(self, reason: VeloError) -> None:
        with self._lock:
            self._failure = reason
        while not self._questions.empty():
            _, answer = self._questions.get()
            if answer.set_running_or_notify_cancel():
                answer.set_exception(reason)
        for stream in self._streams.values():
            stream.failure = reason
        self._wake(list(self._streams.values()))
        self._streams.clear()


def _tell(streams: list[_Stream]) -> None:
    for stream in streams:
        stream.news.set()
