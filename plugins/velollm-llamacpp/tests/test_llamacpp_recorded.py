"""The backend against a recorded llama-server, and against one that fails in every way."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from velollm_llamacpp import completion, plugin
from velollm_llamacpp.addresses import default_url
from velollm_llamacpp.backend import LlamaCppBackend

from velollm_core.backends.backend import (
    AltersAnswers,
    Applies,
    CountsTokens,
    Emits,
    MeasuresMemory,
    ReadsServerMetrics,
    Resolves,
)
from velollm_core.backends.request import Chunk, Request, SamplingParams
from velollm_core.errors import BackendError
from velollm_core.testing import (
    Answer,
    BackendContract,
    FakeServer,
    PluginContract,
    Reply,
    Seen,
    document,
    events,
    openai_routes,
    read_http,
)

RECORDINGS = Path(__file__).parent / "recordings"


def as_many_as_asked(seen: Seen) -> Reply:
    """The recorded stream, but no more tokens of it than the request allows: the core checks the server's counts."""
    asked = seen.document
    assert isinstance(asked, dict)
    reply = read_http(RECORDINGS / "completion_stream.http").reply()
    lines = [line for line in b"".join(reply.pieces).split(b"\n\n") if line.strip()]
    *said, last = (json.loads(line.removeprefix(b"data: ")) for line in lines)
    progress = [event for event in said if "prompt_progress" in event]
    tokens = [event for event in said if "prompt_progress" not in event][: asked["n_predict"]]
    return events(*progress, *tokens, last | {"tokens_predicted": len(tokens)}, done=False)


ROUTES: dict[str, Answer] = {
    "GET /props": read_http(RECORDINGS / "props.http").reply(),
    "GET /slots": read_http(RECORDINGS / "slots_idle.http").reply(),
    "GET /v1/models": read_http(RECORDINGS / "v1_models.http").reply(),
    "GET /metrics": read_http(RECORDINGS / "metrics_after.http").reply(),
    "POST /completion": as_many_as_asked,
    "POST /v1/chat/completions": read_http(RECORDINGS / "v1_chat_stream.http").reply(),
    "POST /tokenize": read_http(RECORDINGS / "tokenize.http").reply(),
}


class TestBackend(BackendContract):
    backend = LlamaCppBackend
    routes = ROUTES


class TestPlugin(PluginContract):
    plugin = plugin


def read(url: str, request: Request) -> list[Chunk]:
    async def use() -> list[Chunk]:
        backend = LlamaCppBackend(url)
        try:
            return [chunk async for chunk in backend.stream(request)]
        finally:
            await backend.close()

    return asyncio.run(use())


def test_it_offers_everything_that_can_be_asked() -> None:
    backend = LlamaCppBackend()
    for face in (Resolves, MeasuresMemory, Applies, AltersAnswers, Emits, CountsTokens, ReadsServerMetrics):
        assert isinstance(backend, face)


def test_tokens_are_counted_piece_by_piece_and_timed_by_the_server() -> None:
    with FakeServer(ROUTES) as server:
        chunks = read(server.url, Request("m", "The quick", cache_prompt=False))
        sent = server.seen("POST /completion")[0].document
    assert sum(chunk.num_tokens or 0 for chunk in chunks) == 16
    last = chunks[-1]
    assert last.finish_reason == "length"
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.cached_tokens, last.usage.completion_tokens) == (39, 38, 16)
    assert last.usage.decode_seconds == pytest.approx(0.014781)
    assert isinstance(sent, dict)
    assert (sent["cache_prompt"], sent["n_predict"], sent["stream"], sent["seed"]) == (False, 128, True, 0)


def test_every_sampling_value_is_spelled_out() -> None:
    sampling = SamplingParams(5, 0.7, 0.9, 40, 0.05, None, 0, True, ("x",))
    with FakeServer(ROUTES) as server:
        read(server.url, Request("m", "The quick", sampling=sampling))
        sent = server.requests[-1].document
    assert isinstance(sent, dict)
    expected = {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "seed": -1, "stop": ["x"]}
    assert sent.items() >= {**expected, "ignore_eos": True, "n_predict": 5}.items()


def test_the_lead_of_the_likeliest_token_is_told_where_it_is_asked_for() -> None:
    likeliest = [{"id": 103, "logprob": -1.4186}, {"id": 58, "logprob": -1.6352}]
    told = {"content": "g", "tokens": [103], "completion_probabilities": [{"id": 103, "top_logprobs": likeliest}]}
    for event, margin in ((told, pytest.approx(0.2166)), ({"content": "g", "tokens": [103]}, None)):
        chunk = completion.chunk(event)
        assert chunk is not None
        assert chunk.margin == margin
    assert completion.payload(Request("m", "x", sampling=SamplingParams(logprobs=True)))["n_probs"] == 2
    assert "n_probs" not in completion.payload(Request("m", "x"))


def test_a_draft_is_reported() -> None:
    route = read_http(RECORDINGS / "completion_stream_draft.http").reply()
    with FakeServer({**ROUTES, "POST /completion": route}) as server:
        usage = read(server.url, Request("m", "The quick"))[-1].usage
    assert usage is not None
    assert (usage.draft_tokens or 0) >= (usage.accepted_tokens or 0) > 0


@pytest.mark.parametrize("name", ["completion", "slots"])
def test_connections_are_not_kept(name: str) -> None:
    with FakeServer(ROUTES) as server:
        read(server.url, Request("m", "The quick"))
        assert server.requests[-1].headers["connection"] == "close"


def test_context_overflow_is_told_as_the_server_tells_it() -> None:
    refusal = read_http(RECORDINGS / "err_context_overflow_completion.http").reply()
    with (
        FakeServer({**ROUTES, "POST /completion": refusal}) as server,
        pytest.raises(BackendError, match=r"16001 tokens\) exceeds the available context size \(1024 tokens\)"),
    ):
        read(server.url, Request("m", "The quick"))


def test_another_openai_server_is_not_taken_for_llamacpp() -> None:
    with FakeServer(openai_routes()) as server:
        status = asyncio.run(closing(LlamaCppBackend(server.url), "status"))
    assert not status.reachable
    pretending = {**openai_routes(), "GET /props": document({"vllm": True})}
    with FakeServer(pretending) as server:
        status = asyncio.run(closing(LlamaCppBackend(server.url), "status"))
    assert not status.reachable
    assert "not llama-server" in str(status.reason)


def test_a_server_that_loads_is_not_reachable_yet() -> None:
    loading = read_http(RECORDINGS / "health_during_load.http").reply()
    with FakeServer(dict.fromkeys(ROUTES, loading)) as server:
        status = asyncio.run(closing(LlamaCppBackend(server.url), "status"))
    assert not status.reachable
    assert "Loading model" in str(status.reason)


def test_what_a_strangers_server_says_of_itself() -> None:
    with FakeServer(ROUTES) as server:
        found = asyncio.run(closing(LlamaCppBackend(server.url), "read_back"))
    assert found == {"--parallel": 4}


def test_a_file_that_only_the_server_has_cannot_be_resolved() -> None:
    with FakeServer(ROUTES) as server, pytest.raises(BackendError, match="not a file here"):
        asyncio.run(closing(LlamaCppBackend(server.url), "resolve", "models/tiny-f16.gguf"))


def test_metrics_and_tokens() -> None:
    with FakeServer(ROUTES) as server:
        metrics = asyncio.run(closing(LlamaCppBackend(server.url), "server_metrics"))
        tokens = asyncio.run(closing(LlamaCppBackend(server.url), "count_tokens", "m", "text"))
    assert metrics["llamacpp:tokens_predicted_total"] > 0
    assert tokens == 39


@pytest.mark.parametrize("answer", [{}, [], {"tokens": 3}])
def test_tokens_that_are_none_are_an_error(answer: object) -> None:
    with (
        FakeServer({**ROUTES, "POST /tokenize": document(answer)}) as server,
        pytest.raises(BackendError, match="without tokens"),
    ):
        asyncio.run(closing(LlamaCppBackend(server.url), "count_tokens", "m", "text"))


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({"LLAMA_ARG_HOST": "0.0.0.0", "LLAMA_ARG_PORT": "9000"}, "http://127.0.0.1:9000"),
        ({"LLAMA_ARG_HOST": "::1"}, "http://[::1]:8080"),
        ({"LLAMA_ARG_HOST": "gpu-box,127.0.0.1"}, "http://gpu-box:8080"),
    ],
)
def test_the_servers_own_variables_say_where_it_is(environment: dict[str, str], url: str) -> None:
    assert default_url(environment) == url


async def closing(backend: LlamaCppBackend, method: str, *arguments: str) -> Any:
    try:
        return await getattr(backend, method)(*arguments)
    finally:
        await backend.close()
