"""LocalAI as it was recorded: identity, counts, clock, and errors in every place it puts them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from attrs import evolve
from velollm_localai.backend import IDENTITY, LocalAIBackend

from velollm_core.backends.request import Chunk, Message, Request, SamplingParams, Usage
from velollm_core.backends.status import Status
from velollm_core.errors import BackendError
from velollm_core.testing import Answer, BackendContract, FakeServer, document, openai_routes, read_http

RECORDINGS = Path(__file__).parent / "recordings"
CHAT = "POST /v1/chat/completions"


def recorded(name: str) -> Answer:
    return read_http(RECORDINGS / f"{name}.http").reply()


ROUTES: dict[str, Answer] = {
    f"GET {IDENTITY}": recorded("well_known"),
    "GET /v1/models": recorded("v1_models"),
    CHAT: recorded("chat_stream_usage_extra"),
}


class TestLocalAI(BackendContract):
    backend = LocalAIBackend
    routes = ROUTES
    max_tokens = 24


async def everything(server: FakeServer, request: Request, api_key: str | None = None) -> list[Chunk]:
    backend = LocalAIBackend(server.url, api_key)
    try:
        return [chunk async for chunk in backend.stream(request)]
    finally:
        await backend.close()


async def look(url: str, api_key: str | None = None) -> Status:
    backend = LocalAIBackend(url, api_key)
    try:
        return await backend.status()
    finally:
        await backend.close()


def test_status_as_recorded() -> None:
    with FakeServer(ROUTES) as server:
        status = asyncio.run(look(server.url, "sk-test"))
        assert status.version == "v4.9.0-22-g82c191afa"
        assert set(status.models) >= {"tiny", "auto", "pair-a"}
        assert server.requests[-1].headers["authorization"] == "Bearer sk-test"


def test_a_prompt_becomes_one_message() -> None:
    with FakeServer(ROUTES) as server:
        sampling = SamplingParams(max_tokens=24, ignore_eos=True)
        asyncio.run(everything(server, Request("tiny", "Once", sampling=sampling, cache_prompt=False)))
        seen = server.seen(CHAT)[0]
    body = json.loads(seen.body)
    assert body["messages"] == [{"role": "user", "content": "Once"}]
    assert body["ignore_eos"] is True
    assert "prompt" not in body
    assert "cache_prompt" not in body
    assert seen.headers["extra-usage"] == "1"


def test_counts_and_clock_as_recorded() -> None:
    with FakeServer(ROUTES) as server:
        chunks = asyncio.run(everything(server, Request("tiny", messages=(Message("user", "hi"),))))
    usage = chunks[-1].usage
    assert usage
    assert evolve(usage, prefill_seconds=None, decode_seconds=None) == Usage(prompt_tokens=40, completion_tokens=24)
    assert usage.prefill_seconds == pytest.approx(0.003731)
    assert usage.decode_seconds == pytest.approx(0.01364)
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["length"]
    assert "".join(chunk.text for chunk in chunks).endswith("Baren in9")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("err_context_overflow_stream", "exceeds the available context size"),
        ("err_failed_load_cooldown_stream", "cooldown after a recent failure"),
        ("mock_stream_err_mid", "simulated mid-stream failure"),
        ("capacity_503_stream", "inference capacity reached"),
        ("err_unknown_model", "HTTP 404"),
        ("err_failed_load_cooldown", "HTTP 503"),
    ],
)
def test_errors_as_recorded(name: str, says: str) -> None:
    with FakeServer({CHAT: recorded(name)}) as server, pytest.raises(BackendError, match=says):
        asyncio.run(everything(server, Request("tiny", "x")))


def test_a_missing_key_is_said() -> None:
    with FakeServer({**ROUTES, "GET /v1/models": recorded("no_key_v1_models")}) as server:
        status = asyncio.run(look(server.url))
    assert not status.reachable
    assert status.running
    assert status.version
    assert status.reason
    assert "An authentication key is required; is the API key right?" in status.reason


@pytest.mark.parametrize("page", [document({"version": "0.9.0"}), document({"error": "no"}, 404)])
def test_another_server_on_its_port_is_not_localai(page: Answer) -> None:
    with FakeServer(
        {**openai_routes(), f"GET {IDENTITY}": page, "GET /api/version": recorded("ollama_version")}
    ) as other:
        status = asyncio.run(look(other.url))
    assert not status.reachable
    assert status.reason
    assert "it is not localai" in status.reason
