"""One model behind one engine, as HTTP handlers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from itertools import chain
from uuid import uuid4

from aiohttp import web
from attrs import define, field

from velollm_core.engine.streams import StreamingEngine
from velollm_core.errors import VeloError
from velollm_core.serving.answers import Piece, answer_all, make_sequences
from velollm_core.serving.asked import Ability, Asked, read_chat, read_completion
from velollm_core.serving.documents import Documents, Json
from velollm_core.serving.events import DONE, Events, event
from velollm_core.serving.fields import Fields, parse
from velollm_core.serving.health import Health
from velollm_core.serving.metrics import CONTENT_TYPE, ServingMetrics
from velollm_core.serving.refusals import Refusal
from velollm_core.serving.text_model import TextModel

MOST_SECONDS = 600.0
"""From a request to the end of its answer: as long as OpenAI's own clients wait."""
FAREWELL_SECONDS = 1.0
Read = Callable[[Fields, frozenset[Ability]], Asked]


@define(eq=False)
class Service:
    """Answers requests; ``max_length`` bounds prompt and answer together, in tokens, ``most_seconds`` their time.

    ``abilities`` name what the engine can beyond choosing tokens; requests that need others are refused. ``defaults``
    are fields that a request has unless it says otherwise: how the model's authors sample. ``owner`` tells the engine
    from others in the list of models, ``root`` where the model came from.
    """

    engine: StreamingEngine
    model: TextModel
    max_length: int
    abilities: frozenset[Ability] = frozenset()
    defaults: Fields = field(factory=dict)
    most_seconds: float = MOST_SECONDS
    owner: str = "velollm"
    root: str | None = None
    created: int = field(factory=lambda: int(time.time()))
    counted: ServingMetrics = field(init=False, factory=ServingMetrics)
    watched: Health = field(init=False)
    _limits: set[asyncio.Timeout] = field(init=False, factory=set)
    _ends_at: float = field(init=False, default=math.inf)

    def __attrs_post_init__(self) -> None:
        self.watched = Health(self.engine)

    async def health(self, _request: web.Request) -> web.Response:
        """Whether requests would be served; told at once, also while a step takes long."""
        return web.json_response({"status": "ok", **await self.watched.look()})

    async def metrics(self, _request: web.Request) -> web.Response:
        """The counters, for Prometheus."""
        page = self.counted.page(self.model.name, await self.engine.stats(), await self.engine.usage())
        return web.Response(body=page.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def models(self, _request: web.Request) -> web.Response:
        """The one model, in a list."""
        return web.json_response({"object": "list", "data": [self._card()]})

    async def named_model(self, request: web.Request) -> web.Response:
        """The model by its name."""
        self._check_name(request.match_info["name"])
        return web.json_response(self._card())

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """An answer to text as it is."""
        return await self._bounded(request, read_completion)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """An answer to messages, through the model's template."""
        return await self._bounded(request, read_chat)

    def end_within(self, seconds: float) -> None:
        """Let no request go on for longer than ``seconds`` from now; to those that would it is said."""
        self._ends_at = asyncio.get_running_loop().time() + seconds
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(min(limit.when() or math.inf, self._ends_at))

    async def _bounded(self, request: web.Request, read: Read) -> web.StreamResponse:
        """The answer in time, whatever it is that takes so long: the body, the queue, the engine or the reader."""
        begun: list[web.StreamResponse] = []
        limit = asyncio.timeout_at(min(asyncio.get_running_loop().time() + self.most_seconds, self._ends_at))
        self._limits.add(limit)
        try:
            async with limit:
                given = {name: value for name, value in parse(await request.read()).items() if value is not None}
                return await self._answer(request, read({**self.defaults, **given}, self.abilities), begun)
        except TimeoutError as error:
            if not limit.expired():
                raise
            refusal = self._too_late(limit)
            if not begun:
                raise refusal from error
            await _say_goodbye(request, begun[0], refusal)
            return begun[0]
        finally:
            self._limits.discard(limit)

    def _too_late(self, limit: asyncio.Timeout) -> Refusal:
        if limit.when() == self._ends_at:
            return Refusal("the server is ending", status=503, kind="unavailable_error")
        message = f"the request has taken {self.most_seconds:g} s, as long as it may"
        return Refusal(message, status=504, kind="timeout_error", code="request_timeout")

    async def _answer(self, request: web.Request, asked: Asked, begun: list[web.StreamResponse]) -> web.StreamResponse:
        """The answer whole, or as a stream, which is put into ``begun`` before its first event."""
        if asked.model:
            self._check_name(asked.model)
        name = f"{'chatcmpl' if asked.is_chat else 'cmpl'}-{uuid4().hex}"
        families = await make_sequences(asked, name, self.model, self.max_length)
        prompt_tokens = sum(family[0].num_prompt_tokens for family in families)
        documents = Documents(
            name, self.model.name, int(time.time()), asked.is_chat, prompt_tokens, asked.sampling.logprobs,
            asked.sampling.top_logprobs > 0,
        )  # fmt: skip
        answers = answer_all(self.engine, families, self.model)
        async with aclosing(self.counted.observed(chain.from_iterable(families), answers)) as pieces:
            if not asked.stream:
                return web.json_response(documents.whole([piece async for piece in pieces]))
            # What is refused still gets a status of its own: the stream begins with the first piece.
            first = await anext(pieces)
            choices = len(families) * asked.n
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
            # Who leaves while something is written ends the request like who leaves while nothing is.
            with suppress(ConnectionError):
                await response.prepare(request)
                begun.append(response)
                # A task wakes through all that it waits in: with each token, were it the one that calls all of this.
                await asyncio.create_task(
                    _stream(response, Events(documents), first, pieces, choices, usage=asked.include_usage)
                )
            return response

    def _check_name(self, name: str) -> None:
        if name != self.model.name:
            message = f"there is no model {name!r} here, only {self.model.name!r}"
            raise Refusal(message, status=404, param="model", code="model_not_found")

    def _card(self) -> Json:
        return {
            "id": self.model.name, "object": "model", "created": self.created, "owned_by": self.owner,
            "max_model_len": self.max_length, "root": self.root or self.model.name,
        }  # fmt: skip


async def _stream(
    response: web.StreamResponse,
    events: Events,
    first: Piece,
    rest: AsyncGenerator[Piece, None],
    choices: int,
    *,
    usage: bool,
) -> None:
    refusal, unsent = None, events.opening(choices)
    try:
        await response.write(unsent + events.of(first))
        unsent = b""
        async for piece in rest:
            unsent += events.of(piece)
            if not piece.more:
                await response.write(unsent)
                unsent = b""
        if usage:
            unsent += events.closing()
    except VeloError as error:
        refusal = Refusal.of(error, is_chat=events.documents.is_chat)
    await _end(response, refusal, unsent)


async def _say_goodbye(request: web.Request, response: web.StreamResponse, refusal: Refusal) -> None:
    """End a stream that took too long; who does not read what there is will not read this either."""
    try:
        async with asyncio.timeout(FAREWELL_SECONDS):
            await _end(response, refusal)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()


async def _end(response: web.StreamResponse, refusal: Refusal | None, last: bytes = b"") -> None:
    await response.write_eof(last + (event(refusal.body) if refusal else b"") + DONE)
