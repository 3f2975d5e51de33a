"""OpenAI's interface: what is sent, and what llama.cpp really answers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.backends.http import HttpBackend
from velollm_core.backends.openai import OpenAIBackend
from velollm_core.backends.request import Chunk, Message, Request, SamplingParams, Usage
from velollm_core.errors import BackendError
from velollm_core.testing import BackendContract, FakeServer, document, openai_routes, read_http

RECORDINGS = Path(__file__).parent / "recordings" / "wire"


class Strict(OpenAIBackend):
    """A server that knows OpenAI's fields only."""

    name = "strict"


class Lenient(OpenAIBackend):
    """A server that takes everything there is."""

    name = "lenient"
    extras: ClassVar[frozenset[str]] = frozenset({"ignore_eos", "min_tokens", "cache_prompt", "top_k", "min_p"})


class TestOpenAI(BackendContract):
    backend = Strict
    routes = openai_routes()


def replay(name: str, request: Request) -> list[Chunk]:
    async def read(url: str) -> list[Chunk]:
        backend = Strict(url)
        try:
            return [chunk async for chunk in backend.stream(request)]
        finally:
            await backend.close()

    recording = read_http(RECORDINGS / f"{name}.http")
    with FakeServer({f"{recording.method} {recording.path}": recording.reply()}) as server:
        return asyncio.run(read(server.url))


def test_a_strict_server_sees_known_fields_only() -> None:
    sampling = SamplingParams(
        max_tokens=5, temperature=0.5, top_p=0.9, top_k=40, min_p=0.1, min_tokens=5, ignore_eos=True
    )
    assert Strict("x").payload(Request("m", "hello", sampling=sampling, cache_prompt=False)) == {
        "model": "m",
        "prompt": "hello",
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_lenient_server_sees_the_rest() -> None:
    sampling = SamplingParams(top_k=40, min_p=0.1, min_tokens=5, ignore_eos=True, seed=None, stop=("\n",))
    body = Lenient("x").payload(Request("m", "hello", sampling=sampling, cache_prompt=False))
    extras = {"top_k": 40, "min_p": 0.1, "min_tokens": 5, "ignore_eos": True, "cache_prompt": False}
    assert extras.items() <= body.items()
    assert body["stop"] == ["\n"]
    assert "seed" not in body


def test_messages_go_to_chat() -> None:
    request = Request("m", messages=(Message("system", "be brief"), Message("user", "hi")))
    assert Strict("x").path(request) == "/v1/chat/completions"
    body = Strict("x").payload(request)
    assert body["messages"] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    assert "prompt" not in body


def test_a_recorded_chat() -> None:
    chunks = replay("v1_chat_stream", Request("x", messages=(Message("user", "hello there"),)))
    assert "".join(chunk.text for chunk in chunks) == "Ebl[ c c8den bD\\ p3 tO"
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["length"]
    assert chunks[0].text == "E", "the role alone is no chunk: it would be taken for the first token"
    usage = Usage(39, 16, 38, prefill_seconds=0.606 / 1000, decode_seconds=8.163 / 1000)
    assert [chunk.usage for chunk in chunks if chunk.usage] == [usage]


def test_a_recorded_completion_counts_in_its_last_event() -> None:
    chunks = replay("v1_completions_stream", Request("x", "hello"))
    assert chunks[-1].finish_reason == "length"
    assert chunks[-1].usage == Usage(39, 16, 38, prefill_seconds=0.639 / 1000, decode_seconds=8.285 / 1000)
    assert len(chunks) != 16, "a chunk is not a token"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("err_bad_json", "HTTP 500: .*parse error"),
        ("health_during_load", "HTTP 503: Loading model"),
    ],
)
def test_recorded_errors(name: str, says: str) -> None:
    reply = read_http(RECORDINGS / f"{name}.http").reply()

    async def read(url: str) -> None:
        backend = Strict(url)
        try:
            async for _ in backend.stream(Request("x", "hello")):
                pass
        finally:
            await backend.close()

    with FakeServer({"POST /v1/completions": reply}) as server, pytest.raises(BackendError, match=says):
        asyncio.run(read(server.url))


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"choices": [{"delta": {"reasoning_content": "hm"}}]}, Chunk(reasoning="hm")),
        ({"choices": [{"delta": {"reasoning": "hm", "role": "assistant"}}]}, Chunk(reasoning="hm")),
        ({"choices": [{"delta": {"role": "assistant", "content": ""}}]}, None),
        ({"choices": [{"delta": {"role": "assistant", "content": "A"}}]}, Chunk("A")),
        ({"choices": [{"delta": {"content": None}}]}, Chunk("")),
        ({"choices": [{"text": ""}]}, Chunk("")),
        ({"choices": [{"text": "A", "finish_reason": "stop"}]}, Chunk("A", finish_reason="stop")),
        ({"choices": []}, None),
        ({"object": "ping"}, None),
        ({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}, Chunk(usage=Usage(1, 2))),
        ({"choices": [], "usage": {"prompt_tokens_details": None}}, Chunk(usage=Usage())),
        (
            {"choices": [], "timings": {"predicted_n": 9, "cache_n": 3, "draft_n": 8, "draft_n_accepted": 5}},
            Chunk(usage=Usage(None, 9, 3, draft_tokens=8, accepted_tokens=5)),
        ),
    ],
)
def test_events(event: dict[str, Any], expected: Chunk | None) -> None:
    assert Strict("x").chunk(event) == expected


KEYS = st.sampled_from(["text", "delta", "content", "finish_reason", "prompt_tokens", "completion_tokens", "prompt_ms"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["choices", "usage", "timings", "error", "object"]), JSON))
def test_any_event_is_a_chunk_or_a_backend_error(event: dict[str, Any]) -> None:
    backend: HttpBackend = Strict("x")
    try:
        chunk = backend._chunk(json.dumps(event).encode(), at_end=False)
    except BackendError:
        return
    if chunk is not None:
        texts = (chunk.text, chunk.reasoning, chunk.finish_reason or "")
        assert all(isinstance(text, str) for text in texts)
        usage = chunk.usage or Usage()
        assert all(count is None or isinstance(count, int) for count in (usage.prompt_tokens, usage.completion_tokens))


@pytest.mark.parametrize("models", [{"data": None}, {}, [], {"data": {"id": "m"}}])
def test_a_list_of_models_that_is_none(models: Any) -> None:
    with FakeServer({"GET /v1/models": document(models)}) as server:
        status = asyncio.run(Strict(server.url).status())
    assert not status.reachable
    assert status.reason
    assert "without a list of models" in status.reason


def test_models_without_a_name_are_left_out() -> None:
    with FakeServer({"GET /v1/models": document({"data": [{"id": "a"}, {"id": 7}, "b", {}]})}) as server:
        assert asyncio.run(Strict(server.url).status()).models == ("a",)
