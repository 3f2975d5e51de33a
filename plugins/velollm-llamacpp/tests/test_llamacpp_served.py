"""`velollm llamacpp serve` as a backend: told from llama-server and from strangers, asked in its own words."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from velollm_llamacpp import backend as module
from velollm_llamacpp.backend import LlamaCppBackend

from velollm_core.backends.request import Request, SamplingParams
from velollm_core.errors import BackendError
from velollm_core.testing import Answer, BackendContract, FakeServer, document, openai_routes, unused_url

OURS = {"id": "model", "object": "model", "owned_by": "velollm-llamacpp", "root": "/models/model.gguf"}
LLAMA_SERVER: dict[str, Answer] = {
    "GET /props": document({"default_generation_settings": {}, "build_info": "b11434", "model_path": "/a/m.gguf"}),
    "GET /v1/models": document({"data": [{"id": "theirs", "owned_by": "llamacpp"}]}),
}


def routes(**card: object) -> dict[str, Answer]:
    return {**openai_routes("model"), "GET /v1/models": document({"data": [{**OURS, **card}]})}


class TestOurs(BackendContract):
    backend = LlamaCppBackend
    routes = routes()


async def once(backend: LlamaCppBackend, method: str, *arguments: Any) -> Any:
    try:
        return await getattr(backend, method)(*arguments)
    finally:
        await backend.close()


def streamed(backend: LlamaCppBackend, request: Request) -> str:
    async def use() -> str:
        try:
            return "".join([chunk.text async for chunk in backend.stream(request)])
        finally:
            await backend.close()

    return asyncio.run(use())


def test_its_model_says_whose_it_is() -> None:
    with FakeServer(routes()) as server:
        status = asyncio.run(once(LlamaCppBackend(server.url), "status"))
    assert (status.reachable, status.running, status.models) == (True, True, ("model",))
    assert status.version == "velollm llamacpp serve"


@pytest.mark.parametrize("owner", ["velollm-cuda", "vllm", None])
def test_other_engines_are_left_alone(owner: str | None) -> None:
    with FakeServer(routes(owned_by=owner)) as server:
        status = asyncio.run(once(LlamaCppBackend(server.url), "status"))
    assert not status.reachable


def test_it_is_asked_at_openais_endpoint_without_a_look_before() -> None:
    sampling = SamplingParams(max_tokens=3, ignore_eos=True, top_k=40)
    with FakeServer(routes()) as server:
        text = streamed(LlamaCppBackend(server.url), Request("model", "The", sampling=sampling, cache_prompt=False))
        sent = server.seen("POST /v1/completions")[0].document
        assert not server.seen("POST /completion")
    assert text == "One chunk is not"
    assert isinstance(sent, dict)
    expected = {"prompt": "The", "max_tokens": 3, "ignore_eos": True, "top_k": 40, "cache_prompt": False}
    assert sent.items() >= expected.items()


def at(monkeypatch: pytest.MonkeyPatch, theirs: str, ours: str) -> LlamaCppBackend:
    """A backend of which nobody said where it is; llama-server would listen at ``theirs``."""
    monkeypatch.setenv("LLAMA_ARG_PORT", theirs.rpartition(":")[2])
    monkeypatch.setattr(module, "OWN_URL", ours)
    return LlamaCppBackend()


def test_it_is_found_where_it_listens_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeServer(routes()) as server:
        backend = at(monkeypatch, unused_url(), server.url)
        status = asyncio.run(once(backend, "status"))
        # What was found is remembered: commands look first, and close what they looked with.
        text = streamed(backend, Request("model", "The"))
        assert len(server.seen("GET /props")) == 1, "a request's time holds no look at who answers"
    assert (status.location, backend.url) == (server.url, server.url)
    assert text == "One chunk is not a token"
    assert not asyncio.run(once(backend, "status")).running, "it has gone"
    assert backend.url != server.url


def test_a_llama_server_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeServer(LLAMA_SERVER) as theirs, FakeServer(routes()) as ours:
        status = asyncio.run(once(at(monkeypatch, theirs.url, ours.url), "status"))
        assert not ours.requests
    assert (status.version, status.models) == ("b11434", ("theirs",))


def test_it_is_looked_for_nowhere_else_once_somebody_said_where(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeServer(routes()) as ours:
        monkeypatch.setattr(module, "OWN_URL", ours.url)
        status = asyncio.run(once(LlamaCppBackend(unused_url()), "status"))
        assert not ours.requests
    assert not status.reachable


def test_without_it_what_can_be_started_is_offered_as_before(monkeypatch: pytest.MonkeyPatch, library: Path) -> None:
    backend = at(monkeypatch, theirs := unused_url(), unused_url())
    status = asyncio.run(once(backend, "status"))
    assert (status.reachable, status.running) == (True, False)
    assert backend.url == theirs


def test_its_file_gives_the_models_shape(model: Path) -> None:
    with FakeServer(routes(root=str(model))) as server:
        spec = asyncio.run(once(LlamaCppBackend(server.url), "resolve", "model"))
    assert (spec.name, spec.source) == ("model", str(model))


@pytest.mark.parametrize("card", [{}, {"root": None}, {"root": "/no/such.gguf"}])
def test_a_file_that_is_not_here_is_one_line(card: Mapping[str, object]) -> None:
    with FakeServer(routes(**card)) as server, pytest.raises(BackendError, match="give the model's own file"):
        asyncio.run(once(LlamaCppBackend(server.url), "resolve", "model"))


def test_it_is_not_restarted(model: Path) -> None:
    from velollm_core.models.files import read_model

    with FakeServer(routes()) as server, pytest.raises(BackendError, match="was not started by VeloLLM"):
        asyncio.run(once(LlamaCppBackend(server.url), "apply", read_model(model), ()))
