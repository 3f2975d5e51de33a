"""vLLM as it was recorded: identity, counts, refusals and metrics."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from velollm_vllm.backend import VllmBackend

from velollm_core.backends.backend import ReadsServerMetrics
from velollm_core.backends.request import Chunk, Message, Request, SamplingParams
from velollm_core.backends.status import Status
from velollm_core.errors import BackendError
from velollm_core.testing import Answer, BackendContract, FakeServer, document, openai_routes, read_body

RECORDINGS = Path(__file__).parent / "recordings"
TEXT, CHAT = "POST /v1/completions", "POST /v1/chat/completions"


def recorded(name: str) -> Answer:
    return read_body(RECORDINGS / f"{name}.body").reply()


IDENTITY: dict[str, Answer] = {"GET /version": recorded("version"), "GET /v1/models": recorded("models")}
MADE: dict[str, Answer] = {**openai_routes("tiny"), **IDENTITY}
ROUTES: dict[str, Answer] = {
    **IDENTITY,
    TEXT: recorded("completion_stream"),
    CHAT: recorded("chat_stream"),
    "GET /metrics": recorded("metrics"),
}


class TestVllm(BackendContract):
    """The recorded model writes hardly any text, so the streams here are made ones."""

    backend = VllmBackend
    routes = MADE


async def everything(server: FakeServer, request: Request) -> list[Chunk]:
    backend = VllmBackend(server.url)
    try:
        return [chunk async for chunk in backend.stream(request)]
    finally:
        await backend.close()


async def look(url: str) -> Status:
    backend = VllmBackend(url)
    try:
        return await backend.status()
    finally:
        await backend.close()


def test_status_as_recorded() -> None:
    with FakeServer(ROUTES) as server:
        assert asyncio.run(look(server.url)) == Status(
            reachable=True, version="0.32.0", models=("tiny",), location=server.url, running=True
        )


def test_what_is_sent() -> None:
    with FakeServer(ROUTES) as server:
        sampling = SamplingParams(max_tokens=8, ignore_eos=True, min_tokens=8, stop=("\n",))
        asyncio.run(everything(server, Request("tiny", "Hello", sampling=sampling)))
        body = json.loads(server.seen(TEXT)[0].body)
    assert body["ignore_eos"] is True
    assert body["min_tokens"] == 8
    assert body["stop"] == ["\n"]
    assert body["stream_options"] == {"include_usage": True}
    assert "cache_prompt" not in body


def test_a_token_without_text_is_a_chunk() -> None:
    """None of the eight recorded tokens shows anything: counting text would find no token."""
    with FakeServer(ROUTES) as server:
        chunks = asyncio.run(everything(server, Request("tiny", "Hello, my name is")))
    assert len(chunks) == 9
    usage = chunks[-1].usage
    assert usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (5, 8)


def test_chat_begins_with_the_first_token() -> None:
    with FakeServer(ROUTES) as server:
        chunks = asyncio.run(everything(server, Request("tiny", messages=(Message("user", "hi"),))))
    assert "".join(chunk.text for chunk in chunks) == "ssss"
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["length"]
    assert chunks[0].finish_reason is None


def test_cached_tokens_where_the_server_tells() -> None:
    with FakeServer({TEXT: recorded("spec_dev/completion_stream")}) as server:
        usage = asyncio.run(everything(server, Request("tiny", "x")))[-1].usage
    assert usage
    assert usage.cached_tokens == 0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("error_model", "HTTP 404: The model `nope` does not exist"),
        ("error_toolong", "HTTP 400: This model's maximum context length is 2048 tokens"),
        ("error_badparam", "temperature must be non-negative"),
        ("error_404", "HTTP 404: Not Found"),
    ],
)
def test_errors_as_recorded(name: str, says: str) -> None:
    with FakeServer({TEXT: recorded(name)}) as server, pytest.raises(BackendError, match=says):
        asyncio.run(everything(server, Request("tiny", "x")))


@pytest.mark.parametrize(
    "routes",
    [
        openai_routes(),
        {**openai_routes(), "GET /version": document({"version": "v4.9.0"})},
        {**openai_routes(), "GET /version": document([1])},
    ],
)
def test_another_server_is_not_vllm(routes: dict[str, Answer]) -> None:
    with FakeServer(routes) as other:
        status = asyncio.run(look(other.url))
    assert not status.reachable
    assert status.reason
    assert "it is not vllm" in status.reason


def test_metrics_as_recorded() -> None:
    async def read(url: str) -> dict[str, float]:
        backend = VllmBackend(url)
        assert isinstance(backend, ReadsServerMetrics)
        try:
            return await backend.server_metrics()
        finally:
            await backend.close()

    with FakeServer(ROUTES) as server:
        metrics = asyncio.run(read(server.url))
    assert metrics["vllm:prompt_tokens_total"] == 90
    assert metrics["vllm:generation_tokens_total"] == 65
    assert metrics["vllm:request_success_total"] == 7
    assert metrics["vllm:kv_cache_usage_perc"] == 0
