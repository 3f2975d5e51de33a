"""Ollama as it was recorded, through the real client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from velollm_ollama import wire
from velollm_ollama.backend import OllamaBackend

from velollm_core.backends.backend import Backend
from velollm_core.backends.request import Chunk, Message, Request, SamplingParams, Usage
from velollm_core.backends.status import Status
from velollm_core.errors import BackendError
from velollm_core.testing import Answer, BackendContract, FakeServer, Reply, document, read_http, silence, text

RECORDINGS = Path(__file__).parent / "recordings"
GENERATE, CHAT = "POST /api/generate", "POST /api/chat"


def recorded(name: str) -> Reply:
    return read_http(RECORDINGS / f"{name}.http").reply()


ROUTES: dict[str, Answer] = {
    "GET /api/version": recorded("api/version"),
    "GET /api/tags": recorded("api/tags"),
    "GET /api/ps": recorded("api/ps_loaded"),
    "POST /api/show": recorded("api/show"),
    GENERATE: recorded("api/generate_stream"),
    CHAT: recorded("api/chat_stream"),
}


class TestOllama(BackendContract):
    backend = OllamaBackend
    routes = ROUTES
    max_tokens = 24

    def stream_route(self, server: FakeServer, backend: Backend) -> tuple[str, Reply]:
        """Not the last request: that one gives the keep-alive back."""
        return GENERATE, recorded("api/generate_stream")


def ask(routes: Mapping[str, Answer], request: Request) -> list[Chunk]:
    async def everything(url: str) -> list[Chunk]:
        backend = OllamaBackend(url)
        try:
            return [chunk async for chunk in backend.stream(request)]
        finally:
            await backend.close()

    with FakeServer({**ROUTES, **routes}) as server:
        return asyncio.run(everything(server.url))


def look(routes: Mapping[str, Answer]) -> Status:
    async def once(url: str) -> Status:
        backend = OllamaBackend(url)
        try:
            return await backend.status()
        finally:
            await backend.close()

    with FakeServer(routes) as server:
        return asyncio.run(once(server.url))


def test_status_as_recorded() -> None:
    status = look(ROUTES)
    assert (status.version, status.running) == ("0.33.0", True)
    assert status.models == ("tiny:latest", "tiny-8k:latest", "tiny-bad:latest", "tiny-unk:latest")


@pytest.mark.parametrize("version", ["0.24.0", "0.29.1", "0.30.0-rc2", "0.33.4", "0.0.0", "1.2.3"])
def test_every_range_of_versions_is_reached(version: str) -> None:
    status = look({**ROUTES, "GET /api/version": document({"version": version})})
    assert (status.reachable, status.version) == (True, version)


def test_localai_plays_ollama_and_is_not_taken_for_it() -> None:
    page = document({"version": "v4.9.0", "endpoint_groups": {}})
    status = look({**ROUTES, "GET /.well-known/localai.json": page})
    assert not status.reachable
    assert "is LocalAI" in (status.reason or "")


def test_a_server_that_only_starts_up_is_told_from_one_that_is_gone() -> None:
    status = look({**ROUTES, "GET /.well-known/localai.json": silence(), "GET /api/version": silence()})
    assert not status.reachable
    assert "looking for GPUs" in (status.reason or "")


def test_another_server_is_not_ollama() -> None:
    status = look({"GET /api/version": document({"edition": 2})})
    assert "not Ollama" in (status.reason or "")


def test_models_that_run_elsewhere_are_not_this_machines() -> None:
    entries = [{"name": "here:latest"}, {"name": "big:cloud", "remote_host": "https://example.com:443"}]
    assert look({**ROUTES, "GET /api/tags": document({"models": entries})}).models == ("here:latest",)


def test_the_request_avoids_every_trap() -> None:
    sampling = SamplingParams(max_tokens=24, seed=7, stop=("\n",), ignore_eos=True)
    with FakeServer(ROUTES) as server:

        async def once() -> None:
            backend = OllamaBackend(server.url)
            async for _ in backend.stream(Request("tiny", "Once", sampling=sampling)):
                pass
            await backend.close()

        asyncio.run(once())
        body = json.loads(server.seen(GENERATE)[0].body)
    assert (body["raw"], body["think"], body["truncate"], body["keep_alive"]) == (True, False, False, "30m")
    assert body["options"] == {
        "num_predict": 24,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "seed": 7,
        "stop": ["\n"],
    }


def test_a_chat_goes_to_chat() -> None:
    chunks = ask({}, Request("tiny", messages=(Message("user", "hi"),), sampling=SamplingParams(max_tokens=12)))
    assert "".join(chunk.text for chunk in chunks) == "llImtll3 t(DE andle"
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (35, 12)


def test_counts_and_clock_as_recorded() -> None:
    chunks = ask({}, Request("tiny", "Other words entirely"))
    assert chunks[-1].finish_reason == "length"
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (14, 24, None)
    assert usage.prefill_seconds == pytest.approx(0.001434)
    assert usage.decode_seconds == pytest.approx(0.010645)
    assert usage.load_seconds == pytest.approx(0.00072244)
    assert wire.decode_rate(usage) == pytest.approx(23 / 0.010645)


def test_one_token_has_no_rate() -> None:
    event = read_http(RECORDINGS / "api/generate_1_token.http").document
    assert wire.decode_rate(wire.usage(event)) is None


def test_only_the_duration_shows_the_cache() -> None:
    first, again = (
        wire.usage(read_http(RECORDINGS / f"api/{name}.http").document)
        for name in ("generate", "generate_again_cached")
    )
    assert first.prompt_tokens == again.prompt_tokens == 20
    assert first.prefill_seconds is not None
    assert again.prefill_seconds is not None
    assert again.prefill_seconds < first.prefill_seconds / 4


@pytest.mark.parametrize(
    ("name", "words", "status"),
    [
        ("api/err_missing_model", "model 'nope' not found", 404),
        ("api/err_option_type", "must be of type integer", 500),
        ("api/ctx_overflow_no_truncate", r"request \(9001 tokens\) exceeds the available context size", 400),
        ("queue_full/par_3", "server busy", 503),
        ("env_fa_0_kv_q8/generate", "quantized V cache requires flash_attn", 500),
        ("env_kv_bogus/generate", "exit status 1", 500),
        ("faults/bad_ctx_model", "must be of type integer", 500),
    ],
)
def test_refusals_as_recorded(name: str, words: str, status: int) -> None:
    with pytest.raises(BackendError, match=words) as caught:
        ask({GENERATE: recorded(name)}, Request("tiny", "x"))
    assert caught.value.status == status
    assert '{"error"' not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("repeats/repeat_stream", "before its end"),
        ("repeats/repeat_nonstream", "before its end"),
        ("faults/child_killed_mid_stream", "unexpected EOF|not understood"),
    ],
)
def test_a_200_is_not_yet_an_answer(name: str, words: str) -> None:
    with pytest.raises(BackendError, match=words):
        ask({GENERATE: recorded(name)}, Request("tiny", "x"))


def test_an_error_inside_a_stream_that_began_well() -> None:
    lines = (b'{"response":"a","done":false}\n', b'{"error":"an error was encountered: unexpected EOF"}\n')
    with pytest.raises(BackendError, match="unexpected EOF"):
        ask({GENERATE: Reply(lines, content_type="application/x-ndjson")}, Request("tiny", "x"))


def test_a_prompt_that_was_cut_is_an_error() -> None:
    with pytest.raises(BackendError, match="1026 tokens") as caught:
        ask({GENERATE: recorded("api/ctx_overflow")}, Request("tiny", "word " * 9000))
    assert caught.value.kind == "truncated"


def test_no_tokens_is_never_sent() -> None:
    with FakeServer(ROUTES) as server:

        async def once() -> None:
            backend = OllamaBackend(server.url)
            try:
                async for _ in backend.stream(Request("tiny", "x", sampling=SamplingParams(max_tokens=0))):
                    pass
            finally:
                await backend.close()

        with pytest.raises(BackendError, match="no end at all"):
            asyncio.run(once())
        assert not server.seen(GENERATE)


def test_zeros_that_were_left_out_are_zeros() -> None:
    last = Reply((b'{"response":"","done":true,"done_reason":"stop"}\n',), content_type="application/x-ndjson")
    [chunk] = ask({GENERATE: last}, Request("tiny", "x"))
    assert chunk.usage == Usage(0, 0, None, 0.0, 0.0, 0.0)


def test_cached_tokens_are_told_from_0_33_3_on() -> None:
    line = b'{"response":"","done":true,"done_reason":"stop","prompt_eval_count":9,"prompt_eval_cached_count":4}\n'
    [chunk] = ask({GENERATE: Reply((line,), content_type="application/x-ndjson")}, Request("tiny", "x"))
    assert chunk.usage is not None
    assert (chunk.usage.prompt_tokens, chunk.usage.cached_tokens) == (9, 4)


def test_plain_text_refusals() -> None:
    with pytest.raises(BackendError, match="404 page not found"):
        ask({GENERATE: text("404 page not found", 404)}, Request("tiny", "x"))


class TestKeepAlive:
    """Requests pin it; `close` gives it back."""

    def run(self, ps: Answer) -> list[object]:
        with FakeServer({**ROUTES, "GET /api/ps": ps}) as server:

            async def once() -> None:
                backend = OllamaBackend(server.url)
                async for _ in backend.stream(Request("tiny", "x")):
                    pass
                await backend.close()
                await backend.close()

            asyncio.run(once())
            return [json.loads(seen.body)["keep_alive"] for seen in server.seen(GENERATE)]

    def test_for_ever_stays_for_ever(self) -> None:
        assert self.run(recorded("api/ps_forever")) == ["30m", -1]

    def test_an_expiry_that_has_passed_is_not_zero_which_would_unload(self) -> None:
        past = {"name": "tiny:latest", "size": 1, "expires_at": "2020-01-01T00:00:00Z"}
        assert self.run(document({"models": [past]})) == ["30m", 1]

    def test_a_model_that_was_not_loaded_gets_ollamas_default(self) -> None:
        turns = [document({"models": []}), document({"models": [{"name": "tiny:latest"}]})]
        assert self.run(turns) == ["30m", 300]

    def test_a_model_that_is_gone_is_left_alone(self) -> None:
        assert self.run(document({"models": []})) == ["30m"]


def test_a_server_that_is_slow_to_start_is_waited_for() -> None:
    turns = [document({"error": "starting"}, 503), recorded("api/version")]

    async def once(url: str) -> Status:
        backend = OllamaBackend(url)
        try:
            return await backend.wait_ready(10)
        finally:
            await backend.close()

    with FakeServer({**ROUTES, "GET /api/version": turns}) as server:
        assert asyncio.run(once(server.url)).version == "0.33.0"


def test_waiting_has_an_end() -> None:
    async def once() -> None:
        backend = OllamaBackend("http://127.0.0.1:9")
        try:
            await backend.wait_ready(0.1)
        finally:
            await backend.close()

    with pytest.raises(BackendError, match=r"waited 0\.1 s"):
        asyncio.run(once())


def test_the_lead_of_the_likeliest_token_is_told_where_it_is_asked_for() -> None:
    whole = read_http(RECORDINGS / "api/generate_logprobs.http").document
    assert isinstance(whole, dict)
    pieces = [{"response": entry["token"], "logprobs": [entry]} for entry in whole["logprobs"]]
    chunks = [wire.chunk(piece) for piece in pieces]
    assert [chunk.margin for chunk in chunks if chunk] == pytest.approx([2.874223, 1.581639, 0.514977], abs=1e-5)
    alone = {"response": "5", "logprobs": [{"token": "5", "logprob": -0.2}]}
    for piece in (alone, {"response": "5"}):
        chunk = wire.chunk(piece)
        assert chunk is not None
        assert chunk.margin is None
    asked = wire.payload(Request("tiny", "x", sampling=SamplingParams(logprobs=True)))
    assert (asked["logprobs"], asked["top_logprobs"]) == (True, 2)
    assert "logprobs" not in wire.payload(Request("tiny", "x"))
