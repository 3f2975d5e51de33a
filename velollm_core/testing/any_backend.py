"""What every backend must do, whatever it is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

import pytest

from velollm_core.backends.backend import Backend
from velollm_core.backends.request import Chunk, Message, Request, SamplingParams
from velollm_core.backends.status import Status
from velollm_core.benchmark.workload import Task, Workload
from velollm_core.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
# Only so that a contract broken by silence ends: nothing here is a measurement.
PATIENCE = 30.0
CONCURRENCY = 8


class AnyBackendContract:
    """Judge a backend by two fixtures of the subclass: ``running`` works now, ``absent`` has nothing behind it.

    `BackendContract` makes both for a backend over HTTP.
    """

    max_tokens = 8

    @pytest.fixture
    def running(self) -> Iterator[Backend]:
        """A backend that can answer."""
        raise NotImplementedError("give the fixture `running`, or derive from BackendContract")

    @pytest.fixture
    def absent(self) -> Backend:
        """The same backend where its server or library is not there."""
        raise NotImplementedError("give the fixture `absent`, or derive from BackendContract")

    def test_it_is_a_backend(self, running: Backend) -> None:
        assert isinstance(running, Backend)
        assert running.name
        assert running.name == running.name.lower().strip()

    def test_models_are_reported(self, running: Backend) -> None:
        status = once(running, running.status)
        assert status.reachable, status.reason
        assert status.running
        assert status.models
        assert all(isinstance(model, str) and model for model in status.models)
        assert status.location

    def test_text_streams(self, running: Backend) -> None:
        chunks = once(running, lambda: answer(running, self.request))
        assert "".join(chunk.text or chunk.reasoning for chunk in chunks)
        reasons = [chunk.finish_reason for chunk in chunks if chunk.finish_reason]
        assert len(reasons) == 1, f"one finish_reason a stream, found {reasons}"

    def test_chat_streams(self, running: Backend) -> None:
        def ask(model: str) -> Request:
            return Request(model, messages=(Message("user", "hello"),), sampling=self.sampling)

        chunks = once(running, lambda: answer(running, ask))
        assert "".join(chunk.text or chunk.reasoning for chunk in chunks)

    def test_the_server_counts_tokens(self, running: Backend) -> None:
        chunks = once(running, lambda: answer(running, self.request))
        usages = [chunk.usage for chunk in chunks if chunk.usage]
        assert usages, "no chunk carries usage: ask the server for it"
        assert usages[-1].completion_tokens, "completion_tokens must be the server's own count"
        assert usages[-1].prompt_tokens

    def test_many_streams_at_once(self, running: Backend) -> None:
        async def together() -> list[list[Chunk]]:
            return await asyncio.gather(*(answer(running, self.request) for _ in range(CONCURRENCY)))

        answers = once(running, together)
        assert all(any(chunk.text or chunk.reasoning for chunk in chunks) for chunks in answers)

    def test_it_outlives_an_event_loop(self, running: Backend) -> None:
        for _ in range(3):
            assert once(running, lambda: answer(running, self.request))

    def test_a_stream_can_be_left(self, running: Backend) -> None:
        async def leave() -> Chunk:
            status = await running.status()
            async with aclosing(running.stream(self.request(status.models[0]))) as chunks:  # type: ignore[type-var]
                return await anext(chunks)

        assert once(running, leave)
        assert once(running, lambda: answer(running, self.request))

    def test_close_is_idempotent(self, running: Backend) -> None:
        async def twice() -> None:
            await running.close()
            await running.status()
            await running.close()

        once(running, twice)

    def test_an_absent_server_is_a_status(self, absent: Backend) -> None:
        status = once(absent, absent.status)
        assert isinstance(status, Status)
        assert not status.reachable
        assert is_one_line(status.reason)

    def test_an_absent_server_is_a_backend_error(self, absent: Backend) -> None:
        with pytest.raises(BackendError) as raised:
            once(absent, lambda: read(absent, self.request("any")))
        assert is_one_line(str(raised.value))

    def test_it_can_be_benchmarked(self, running: Backend) -> None:
        from velollm_core.benchmark.runner import run

        model = once(running, running.status).models[0]
        task = Task("contract", "Say something.", max_tokens=self.max_tokens, repeats=2)
        assert once(running, lambda: _awaited(run(running, Workload("contract", model, (task,)))))

    @property
    def sampling(self) -> SamplingParams:
        """Greedy, and short."""
        return SamplingParams(max_tokens=self.max_tokens)

    def request(self, model: str) -> Request:
        """A text prompt for ``model``."""
        return Request(model, "The quick brown fox", sampling=self.sampling)


def once(backend: Backend, call: Callable[[], Awaitable[T]]) -> T:
    """``call()`` in an event loop of its own, the backend closed at its end."""

    async def use() -> T:
        try:
            async with asyncio.timeout(PATIENCE):
                return await call()
        finally:
            await backend.close()

    return asyncio.run(use())


async def answer(backend: Backend, ask: Callable[[str], Request]) -> list[Chunk]:
    """All chunks of the answer to ``ask(model)``, for the first model that the backend reports."""
    status = await backend.status()
    return await read(backend, ask(status.models[0]))


async def read(backend: Backend, request: Request) -> list[Chunk]:
    """All chunks of the answer to ``request``."""
    return [chunk async for chunk in backend.stream(request)]


def is_one_line(text: str | None) -> bool:
    """Whether ``text`` is fit for one line on stderr."""
    return bool(text) and len(str(text).splitlines()) == 1 and len(str(text)) < 600


async def _awaited(value: Awaitable[T]) -> T:
    return await value
