"""The loop in a thread of its own, with a face for asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from velollm_core.engine.blocks import BlockUsage
from velollm_core.engine.loop import EngineLoop, RetiredStep
from velollm_core.engine.scheduling import SchedulerStats
from velollm_core.engine.sequence import Sequence
from velollm_core.engine.streams import EngineStopped, Reader, TokenBatch, check_queue, wake
from velollm_core.errors import VeloError


class AsyncEngine:
    """Implements `StreamingEngine`: runs an `EngineLoop` in its own thread and streams tokens to any event loop.

    Only that thread touches scheduler and executor: everything else is asked of it between two steps. A step crosses
    over once for each event loop, however many sequences it holds.
    """

    def __init__(self, loop: EngineLoop, *, max_waiting: int = 1024) -> None:
        self._loop = loop
        self._max_waiting = max_waiting
        self._questions: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._streams: dict[str, Reader] = {}
        self._lock = threading.Lock()
        self._closing = False
        self._broken: VeloError | None = None
        self._failure: VeloError | None = None
        self._thread = threading.Thread(target=self._run, name="velollm-engine", daemon=True)
        self._thread.start()

    async def stream(self, sequence: Sequence, leader: Sequence | None = None) -> AsyncGenerator[TokenBatch, None]:
        """See `StreamingEngine`."""
        stream = Reader(sequence, asyncio.get_running_loop())
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
        """See `StreamingEngine`."""
        answer: SchedulerStats = await asyncio.wrap_future(self._ask(self._loop.scheduler.stats))
        return answer

    async def usage(self) -> BlockUsage:
        """See `StreamingEngine`."""
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

    def _add(self, stream: Reader, leader: Sequence | None) -> None:
        taken = leader is not None and (leader.is_finished or leader.id in self._streams)
        if not taken:
            check_queue(self._loop.scheduler, self._max_waiting)
        self._loop.scheduler.add(stream.sequence)
        self._streams[stream.sequence.id] = stream

    def _abort(self, stream: Reader) -> None:
        # One that was refused because its id is taken must leave the other alone.
        if self._streams.get(stream.sequence.id) is stream:
            del self._streams[stream.sequence.id]
            self._loop.scheduler.abort(stream.sequence.id)

    def _stop(self, reason: VeloError | None = None) -> None:
        self._closing, self._broken = True, reason

    def _publish(self, retired: RetiredStep) -> None:
        streams = self._streams
        self._wake([stream for sequence in retired.output.sampled if (stream := streams.get(sequence.id))])
        for sequence in retired.ended:
            self._streams.pop(sequence.id, None)

    def _wake(self, readers: list[Reader]) -> None:
        for orphan in wake(readers):
            self._abort(orphan)

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
