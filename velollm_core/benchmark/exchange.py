"""One request sent and timed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from attrs import define, evolve, field

from velollm_core.benchmark.timing import UNCOUNTED, Failure, RequestTiming
from velollm_core.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from velollm_core.backends.backend import Backend
    from velollm_core.backends.request import Chunk, Request, Usage

Clock = Callable[[], float]

REQUEST_SECONDS = 600.0
# More than any template or system prompt of a server's own adds; a token holds a byte at least, or little less.
TEMPLATE_TOKENS = 16_384


async def exchange(
    backend: Backend,
    request: Request,
    clock: Clock,
    *,
    intended: float | None = None,
    limit: float = REQUEST_SECONDS,
    hear: Callable[[str], None] | None = None,
) -> RequestTiming:
    """Send ``request`` now and time what comes back; whatever goes wrong is in the timing's `Failure`.

    ``clock`` gives seconds since the run began; ``intended`` defaults to now. After ``limit`` seconds the request is
    given up. ``hear`` is told the text of the answer piece by piece.
    """
    sent = clock()
    answer = _Answer(sent if intended is None else intended, sent, hear)
    failure: Failure | None = None
    try:
        async with asyncio.timeout(limit):
            await _receive(backend, request, clock, answer)
    except TimeoutError:
        failure = Failure("timeout", f"no end of the answer within {limit:g} s")
    except BackendError as error:
        failure = Failure(f"http_{error.status}" if error.status else error.kind, str(error))
    except Exception as error:
        if os.environ.get("VELOLLM_RAISE"):
            raise
        # A stranger's backend may raise anything; it costs this request, not the run.
        failure = Failure("exception", f"{type(error).__name__}: {error}")
    return answer.timing(clock(), failure, request)


async def _receive(backend: Backend, request: Request, clock: Clock, answer: _Answer) -> None:
    stream = backend.stream(request)
    if not hasattr(stream, "aclose"):
        async for chunk in stream:
            answer.add(chunk, clock())
        return
    closable: AsyncGenerator[Chunk] = stream  # type: ignore[assignment]
    async with aclosing(closable):
        async for chunk in closable:
            answer.add(chunk, clock())


@define
class _Answer:
    intended: float
    sent: float
    hear: Callable[[str], None] | None = None
    arrivals: list[float] = field(factory=list)
    tokens: list[int | None] = field(factory=list)
    first_output: float | None = None
    usage: Usage = UNCOUNTED
    finish_reason: str | None = None

    def add(self, chunk: Chunk, now: float) -> None:
        if chunk.text or chunk.reasoning:
            self.arrivals.append(now)
            self.tokens.append(chunk.num_tokens)
            if chunk.text and self.first_output is None:
                self.first_output = now
            if self.hear is not None:
                self.hear(chunk.text)
        if chunk.usage is not None:
            self.usage = chunk.usage
        self.finish_reason = chunk.finish_reason or self.finish_reason

    def timing(self, ended: float, failure: Failure | None, request: Request) -> RequestTiming:
        counted = tuple(number for number in self.tokens if number is not None)
        timing = RequestTiming(
            intended=self.intended,
            sent=self.sent,
            ended=ended,
            arrivals=tuple(self.arrivals),
            chunk_tokens=counted if counted and len(counted) == len(self.tokens) else None,
            first_output=self.first_output,
            usage=self.usage,
            finish_reason=self.finish_reason,
            failure=failure,
        )
        return timing if failure else evolve(timing, failure=_doubt(timing, request))


def _doubt(timing: RequestTiming, request: Request) -> Failure | None:
    if not timing.arrivals:
        return Failure("empty", "the answer ended without any text")
    text = _prompt_doubt(timing.usage, request) or _answer_doubt(timing, request.sampling.max_tokens)
    return Failure("miscounted", text) if text else None


def _prompt_doubt(usage: Usage, request: Request) -> str | None:
    prompt, cached = usage.prompt_tokens, usage.cached_tokens
    if (prompt or 0) < 0 or (cached or 0) < 0:
        return f"the server counts {prompt} prompt tokens, {cached} of them cached"
    if prompt is None:
        return None
    sent = sum(len(text.encode()) for text in (request.prompt, *(message.content for message in request.messages)))
    if prompt > 2 * sent + TEMPLATE_TOKENS:
        return f"the server counts {prompt} tokens in a prompt of {sent} bytes"
    return None


def _answer_doubt(timing: RequestTiming, max_tokens: int) -> str | None:
    produced, chunks = timing.completion_tokens, len(timing.arrivals)
    if produced is None:
        return None
    if produced > max_tokens:
        return f"the server counts {produced} tokens where {max_tokens} were allowed"
    # A chunk holds a token at least; one or two may be the flush of text that was held back.
    if produced < 0.9 * chunks - 2:
        return f"the server counts {produced} tokens in {chunks} chunks"
    return None
