"""The loop in a process of its own, with a face for asyncio.

A step of an engine, and the many small things that a server does for each token, would wait for one another's turn at
one interpreter: apart, each has its own.
"""

from __future__ import annotations

import asyncio
import atexit
import signal
import threading
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from itertools import count
from multiprocessing import get_context, resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any, cast

from velollm_core.engine.blocks import BlockUsage
from velollm_core.engine.process_host import GRACE_SECONDS, Opener, host
from velollm_core.engine.process_messages import (
    Abort,
    Add,
    Answer,
    Ask,
    Counter,
    Failed,
    More,
    News,
    Ready,
    Refused,
    Request,
)
from velollm_core.engine.scheduling import SchedulerStats
from velollm_core.engine.sequence import FinishReason, Sequence, SequenceStatus
from velollm_core.engine.streams import EngineStopped, Reader, TokenBatch, wake
from velollm_core.errors import VeloError


class ProcessEngine:
    """Implements `StreamingEngine` over a child process, which ends with this one, however this ends.

    ``opener(*arguments)`` runs there and gives the loop, and facts about it for `ready`; both must be picklable. More
    than ``max_waiting`` sequences in the queue are turned away.
    """

    def __init__(self, opener: Opener, *arguments: Any, max_waiting: int = 1024) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=host, args=(theirs, max_waiting, opener, arguments), name="velollm-engine", daemon=True
        )
        with _no_interrupts():
            self._process.start()
        theirs.close()
        self._numbers = count()
        self._readers: dict[int, Reader] = {}
        self._known: dict[Sequence, int] = {}
        self._questions: dict[int, Future[Any]] = {}
        self._writing, self._ending = threading.Lock(), threading.Lock()
        self._failure: VeloError | None = None
        self._thread: threading.Thread | None = None
        # Left to multiprocessing, it would be told to end by a signal that it does not heed, and waited for.
        atexit.register(self.close)

    def ready(self) -> object:
        """Wait until the engine is open; what its opener says of it.

        Raises:
            VeloError: it cannot be opened; the text says why.
        """
        try:
            reply = self._connection.recv()
        except (EOFError, OSError):
            reply = Failed(self._cause())
        except BaseException:
            self.close()
            raise
        if not isinstance(reply, Ready):
            self.close()
            raise reply.reason
        self._thread = threading.Thread(target=self._listen, name="velollm-engine-news", daemon=True)
        self._thread.start()
        return reply.facts

    async def stream(self, sequence: Sequence, leader: Sequence | None = None) -> AsyncGenerator[TokenBatch, None]:
        """See `StreamingEngine`."""
        number = next(self._numbers)
        reader = Reader(sequence, asyncio.get_running_loop())
        try:
            self._join(number, reader)
            self._send(_add(number, sequence, leader, self._known))
            while True:
                batch = await reader.read()
                yield batch
                if batch.finish_reason:
                    return
        finally:
            self._leave(number, reader)

    async def stats(self) -> SchedulerStats:
        """See `StreamingEngine`."""
        return cast(SchedulerStats, await self._ask("stats"))

    async def usage(self) -> BlockUsage:
        """See `StreamingEngine`."""
        return cast(BlockUsage, await self._ask("usage"))

    @property
    def failure(self) -> VeloError | None:
        """Why the engine no longer runs; None while it does."""
        return self._failure

    def close(self) -> None:
        """End the process after the step it is in; open streams raise. A second call does nothing."""
        atexit.unregister(self.close)
        if self._thread is None:
            self._process.kill()  # it is still opening the engine: nothing of that is worth waiting for
        self._fail(EngineStopped("the engine was closed"))
        with suppress(OSError), self._writing:
            self._connection.send(None)
        self._process.join(GRACE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        if self._thread is not None:
            self._thread.join()
        self._connection.close()

    def _send(self, request: Request) -> None:
        if self._failure is not None:
            raise self._failure
        # A pipe whose other end has gone: the thread that listens says why.
        with suppress(OSError), self._writing:
            self._connection.send(request)

    async def _ask(self, what: Counter) -> object:
        number, answer = next(self._numbers), Future[Any]()
        with self._ending:
            if self._failure is not None:
                raise self._failure
            self._questions[number] = answer
        self._send(Ask(number, what))
        return await asyncio.wrap_future(answer)

    def _join(self, number: int, reader: Reader) -> None:
        with self._ending:
            if self._failure is not None:
                raise self._failure
            self._readers[number] = reader
            self._known[reader.sequence] = number

    def _leave(self, number: int, reader: Reader) -> None:
        sequence = reader.sequence
        self._known.pop(sequence, None)
        if self._readers.pop(number, None) is None or sequence.is_finished or reader.failure:
            return
        _finish(sequence, "abort")
        with suppress(VeloError):
            self._send(Abort(number))

    def _listen(self) -> None:
        """Take in what the engine's process says, until it ends."""
        reason: VeloError | None = None
        try:
            while True:
                match self._connection.recv():
                    case News() as news:
                        self._deliver(news)
                    case Answer(number, value):
                        answer = self._questions.pop(number, None)
                        if answer and answer.set_running_or_notify_cancel():
                            answer.set_result(value)
                    case Refused(number, refusal):
                        self._refuse(number, refusal)
                    case Failed(failure):
                        reason = failure
        except (EOFError, OSError):
            reason = reason or self._cause()
        finally:
            self._fail(reason or EngineStopped("the engine's news could not be taken in; the log says why"))

    def _refuse(self, number: int, reason: VeloError) -> None:
        if reader := self._readers.get(number):
            reader.failure = reason
            self._wake([reader])
        elif (answer := self._questions.pop(number, None)) and answer.set_running_or_notify_cancel():
            answer.set_exception(reason)

    def _deliver(self, news: News) -> None:
        grown: list[Reader] = []
        readers = self._readers
        for number, token in zip(news.numbers, news.tokens, strict=True):
            if reader := readers.get(number):
                reader.sequence.token_ids.append(token)
                grown.append(reader)
        for more in news.more:
            if reader := readers.get(more.number):
                _grow(reader.sequence, more)
                grown.append(reader)
        self._wake(grown)

    def _wake(self, readers: Iterable[Reader]) -> None:
        for orphan in wake(readers):
            # Before its event loop was closed it may have left by itself.
            if (number := self._known.get(orphan.sequence)) is not None:
                self._leave(number, orphan)

    def _fail(self, reason: VeloError) -> None:
        with self._ending:
            if self._failure is not None:
                return
            self._failure = reason
            questions, readers = list(self._questions.values()), list(self._readers.values())
        # Whoever has not read yet that its answer is whole has it all the same.
        readers = [reader for reader in readers if not reader.sequence.is_finished]
        for answer in questions:
            if answer.set_running_or_notify_cancel():
                answer.set_exception(reason)
        for reader in readers:
            reader.failure = reason
        wake(readers)

    def _cause(self) -> VeloError:
        """Why the process ended without a word."""
        self._process.join(GRACE_SECONDS)
        code = self._process.exitcode
        if code is not None and code < 0:
            return EngineStopped(f"the engine's process died (signal {-code})")
        return EngineStopped("the engine's process ended; its log says why")


def _add(number: int, sequence: Sequence, leader: Sequence | None, known: Mapping[Sequence, int]) -> Add:
    return Add(
        number, sequence.id, sequence.token_ids, sequence.sampling, sequence.stop_ids, sequence.priority,
        known.get(sequence.parent) if sequence.parent else None, sequence.cache_salt, sequence.use_cache,
        known.get(leader) if leader else None, leader is not None and leader.is_finished,
    )  # fmt: skip


def _grow(sequence: Sequence, more: More) -> None:
    """Log probabilities come last of what a token has: `unsent` counts by them what is there."""
    sequence.token_ids += more.batch.token_ids
    sequence.alternatives += more.batch.alternatives
    sequence.logprobs += more.batch.logprobs
    sequence.num_cached = more.num_cached
    if more.batch.finish_reason:
        _finish(sequence, more.batch.finish_reason)


def _finish(sequence: Sequence, reason: FinishReason) -> None:
    """The reason last: whoever reads it takes all that came before."""
    sequence.status = SequenceStatus.ABORTED if reason == "abort" else SequenceStatus.FINISHED
    sequence.finish_reason = reason


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """A process that starts meanwhile never sees Ctrl-C: its parent does, and ends it in its own way."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it would let signals through again when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
