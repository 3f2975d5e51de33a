"""The engine's side of a `ProcessEngine`: the loop, and the pipe that asks of it."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from attrs import define

from velollm_core.engine.loop import EngineLoop, RetiredStep
from velollm_core.engine.process_messages import Abort, Add, Answer, Ask, Failed, More, News, Ready, Refused, Request
from velollm_core.engine.sequence import Sequence
from velollm_core.engine.streams import EngineStopped, check_queue, unsent
from velollm_core.errors import VeloError

Opener = Callable[..., tuple[EngineLoop, object]]
GRACE_SECONDS = 10.0


def host(connection: Connection, max_waiting: int, opener: Opener, arguments: tuple[Any, ...]) -> None:
    """Open an engine and run it until ``connection`` is closed; the body of the process."""
    # Both reach the whole group, by Ctrl-C and by supervisors; they are the parent's to act on.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    inbox: SimpleQueue[Request | None] = SimpleQueue()
    threading.Thread(target=_listen, args=(connection, inbox), daemon=True).start()
    try:
        loop, facts = opener(*arguments)
        # What is there now stays: the collector need not walk through it between two steps.
        gc.collect()
        gc.freeze()
        connection.send(Ready(facts))
        try:
            EngineHost(loop, connection, inbox, max_waiting).run()
        finally:
            loop.executor.close()
    except VeloError as error:
        connection.send(Failed(error))
    except ConnectionError:
        pass  # whoever asked has gone, and the word of it is on its way
    except Exception:
        connection.send(Failed(EngineStopped("the engine broke down; its log says why")))
        raise


def _listen(connection: Connection, inbox: SimpleQueue[Request | None]) -> None:
    """Queue requests; with nobody left to ask, end this process soon, whatever it is in the middle of."""
    try:
        while True:
            inbox.put(connection.recv())
    except (EOFError, OSError):
        inbox.put(None)
    time.sleep(GRACE_SECONDS)
    os._exit(1)


@define(eq=False)
class _Track:
    """A sequence that somebody waits for, and how many of its tokens were sent."""

    number: int
    sent: int = 0


class EngineHost:
    """Steps a loop; takes requests from ``inbox`` between two steps, None to end; sends what each step gave."""

    def __init__(
        self, loop: EngineLoop, connection: Connection, inbox: SimpleQueue[Request | None], max_waiting: int
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._inbox = inbox
        self._max_waiting = max_waiting
        self._sequences: dict[int, Sequence] = {}
        self._tracks: dict[Sequence, _Track] = {}

    def run(self) -> None:
        """Until nobody asks any more.

        Raises:
            VeloError: the engine cannot go on.
        """
        while True:
            while self._loop.is_idle or not self._inbox.empty():
                request = self._inbox.get()
                if request is None:
                    return
                self._take(request)
            retired = self._loop.step()
            if retired is not None:
                self._publish(retired)

    def _take(self, request: Request) -> None:
        scheduler = self._loop.scheduler
        try:
            match request:
                case Add():
                    self._add(request)
                case Abort(number):
                    if sequence := self._sequences.get(number):
                        self._forget(sequence)
                        scheduler.abort(sequence.id)
                case Ask(number, what):
                    value = scheduler.stats() if what == "stats" else scheduler.blocks.usage()
                    self._connection.send(Answer(number, value))
        except VeloError as error:
            self._connection.send(Refused(request.number, error))

    def _add(self, request: Add) -> None:
        if not request.taken and request.leader not in self._sequences:
            check_queue(self._loop.scheduler, self._max_waiting)
        parent = None if request.parent is None else self._sequences.get(request.parent)
        sequence = Sequence(
            request.id, request.token_ids, request.sampling, request.stop_ids, request.priority, parent,
            request.cache_salt, request.use_cache,
        )  # fmt: skip
        self._loop.scheduler.add(sequence)
        self._sequences[request.number] = sequence
        self._tracks[sequence] = _Track(request.number)

    def _publish(self, retired: RetiredStep) -> None:
        news = News([], [], [])
        for sequence in retired.output.sampled:
            track = self._tracks.get(sequence)
            if track is None:
                continue
            if len(sequence.token_ids) - sequence.num_prompt_tokens == track.sent + 1 and _is_plain(sequence):
                track.sent += 1
                news.numbers.append(track.number)
                news.tokens.append(sequence.token_ids[-1])
            else:
                self._tell_more(sequence, track, news)
        for sequence in retired.ended:
            self._forget(sequence)
        if news.numbers or news.more:
            self._connection.send(news)

    def _tell_more(self, sequence: Sequence, track: _Track, news: News) -> None:
        batch = unsent(sequence, track.sent, sequence.finish_reason)
        if batch.token_ids or batch.finish_reason:
            news.more.append(More(track.number, batch, sequence.num_cached))
            track.sent += len(batch.token_ids)

    def _forget(self, sequence: Sequence) -> None:
        track = self._tracks.pop(sequence, None)
        if track is not None:
            del self._sequences[track.number]


def _is_plain(sequence: Sequence) -> bool:
    return sequence.finish_reason is None and not sequence.sampling.logprobs
