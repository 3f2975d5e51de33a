"""The engine as a backend: embedded on a CPU, behind its own server, or not there at all."""

from __future__ import annotations

import asyncio
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import velollm_cuda.plugin
from attrs import evolve
from velollm_cuda import backend as module
from velollm_cuda.backend import CudaBackend
from velollm_cuda.options import EngineOptions
from velollm_cuda.testing import write_tiny_model

from velollm_core.backends.backend import Backend, Resolves
from velollm_core.backends.request import Chunk, Message, Request, SamplingParams
from velollm_core.errors import BackendError
from velollm_core.hardware.gpu import Gpu
from velollm_core.testing import (
    AnyBackendContract,
    BackendContract,
    FakeServer,
    PluginContract,
    document,
    openai_routes,
    some_hardware,
    unused_url,
)

SMALL = EngineOptions(max_num_seqs=8, max_model_len=512, kv_cache_bytes=4 << 20)
H100 = Gpu(0, "nvidia", "NVIDIA H100 80GB HBM3", compute_capability="9.0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("backend") / "model")


def embedded(folder: Path | str | None = None, **more: Any) -> CudaBackend:
    model = str(folder) if folder else None
    return CudaBackend(some_hardware(), binary="embedded", model=model, options=SMALL, **more)


class TestEmbedded(AnyBackendContract):
    @pytest.fixture
    def running(self, folder: Path) -> Backend:
        return embedded(folder)

    @pytest.fixture
    def absent(self, monkeypatch: pytest.MonkeyPatch) -> Backend:
        """Torch is not installed."""
        monkeypatch.setattr(module, "version", no_such_distribution)
        return embedded()


class TestServed(BackendContract):
    def make(self, url: str) -> Backend:
        return CudaBackend(some_hardware(), url)

    routes = {  # noqa: RUF012 - the contract reads it from the class
        **openai_routes("tiny"),
        "GET /v1/models": document({"data": [{"id": "tiny", "object": "model", "owned_by": "velollm-cuda"}]}),
    }


class TestPlugin(PluginContract):
    plugin = velollm_cuda.plugin


def no_such_distribution(name: str) -> str:
    raise PackageNotFoundError(name)


def run(backend: CudaBackend, request: Request) -> tuple[str, Any]:
    """Text and last chunk; what was loaded is let go."""

    async def ask() -> tuple[str, Any]:
        try:
            chunks = [chunk async for chunk in backend.stream(request)]
            return "".join(chunk.text for chunk in chunks), chunks[-1]
        finally:
            await backend.close()

    return asyncio.run(ask())


def status_of(backend: CudaBackend) -> Any:
    async def look() -> Any:
        try:
            return await backend.status()
        finally:
            await backend.close()

    return asyncio.run(look())


def test_it_answers_like_the_library(folder: Path) -> None:
    from velollm_cuda import LLM
    from velollm_cuda import SamplingParams as Params

    with LLM(folder, max_model_len=512, kv_cache_bytes=4 << 20) as llm:
        (wanted,) = llm.generate("Hello", Params(max_tokens=12, ignore_eos=True))
        (chat,) = llm.chat([{"role": "user", "content": "Hi"}], Params(max_tokens=12, ignore_eos=True))
    sampling = SamplingParams(max_tokens=12, ignore_eos=True)
    text, last = run(embedded(), Request(str(folder), "Hello", sampling=sampling))
    assert text == wanted.text
    assert (last.finish_reason, last.usage.prompt_tokens, last.usage.completion_tokens) == ("length", 6, 12)
    text, _ = run(embedded(), Request(str(folder), messages=(Message("user", "Hi"),), sampling=sampling))
    assert text == chat.text


def test_the_lead_of_the_likeliest_token_is_told_where_it_is_asked_for(folder: Path) -> None:
    """As the engine itself says it: the guard tells a near tie from answers that differ by it."""
    from velollm_cuda import LLM
    from velollm_cuda import SamplingParams as Params

    async def ask(sampling: SamplingParams) -> list[Chunk]:
        backend = embedded()
        try:
            return [chunk async for chunk in backend.stream(Request(str(folder), "Hello", sampling=sampling))]
        finally:
            await backend.close()

    with LLM(folder, max_model_len=512, kv_cache_bytes=4 << 20) as llm:
        (wanted,) = llm.generate("Hello", Params(max_tokens=12, ignore_eos=True, logprobs=True, top_logprobs=2))
    leads = [first - second for first, second in (each.values() for each in wanted.outputs[0].top_logprobs)]
    chunks = asyncio.run(ask(SamplingParams(max_tokens=12, ignore_eos=True, logprobs=True)))
    assert "".join(chunk.text for chunk in chunks) == wanted.text
    found = [chunk.margin for chunk in chunks]
    # A chunk of several tokens, characters in pieces, has the lead of its first.
    assert found[0] == pytest.approx(leads[0], abs=1e-4)
    assert all(any(margin == pytest.approx(lead, abs=1e-4) for lead in leads) for margin in found)
    assert all(margin is not None and margin >= 0 for margin in found)
    silent = asyncio.run(ask(SamplingParams(max_tokens=12, ignore_eos=True)))
    assert {chunk.margin for chunk in silent} == {None}


def test_a_second_request_finds_its_prompt_in_the_cache(folder: Path) -> None:
    async def twice(use_cache: bool) -> int | None:
        backend = embedded(folder)
        request = Request(str(folder), "x" * 40, sampling=SamplingParams(max_tokens=2), cache_prompt=use_cache)
        try:
            _ = [chunk async for chunk in backend.stream(request)]
            last = [chunk async for chunk in backend.stream(request)][-1]
            return last.usage.cached_tokens if last.usage else None
        finally:
            await backend.close()

    assert asyncio.run(twice(True)) == 32
    assert asyncio.run(twice(False)) == 0


def test_another_model_takes_the_place_of_the_first(folder: Path, tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "other", seed=1)

    async def both() -> list[tuple[str, ...]]:
        backend = embedded()
        seen = [(await backend.status()).models]
        try:
            for model in (folder, other):
                request = Request(str(model), "Hello", sampling=SamplingParams(max_tokens=2))
                assert [chunk async for chunk in backend.stream(request)]
                seen.append((await backend.status()).models)
        finally:
            await backend.close()
        return [*seen, (await backend.status()).models]

    assert asyncio.run(both()) == [(), (str(folder),), (str(other),), ()]


def test_status_says_where_it_runs(folder: Path) -> None:
    status = status_of(embedded(folder))
    assert status.location == "embedded"
    assert "on the CPU, by plain torch" in status.version
    assert status.version.startswith("0.1.0, torch ")
    idle = status_of(embedded())
    assert idle.reachable
    assert not idle.running
    card = evolve(some_hardware(), gpus=(H100,))
    assert status_of(CudaBackend(card, binary="embedded")).version.endswith("on NVIDIA H100 80GB HBM3")


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        (None, "on the CPU, no NVIDIA card"),
        (H100, "on NVIDIA H100"),
        (Gpu(0, "nvidia", "Tesla P40", compute_capability="6.1"), "on the CPU"),
        (Gpu(0, "amd", "MI300X", compute_capability="gfx942"), "on the CPU"),
    ],
)
def test_without_a_server_it_says_how_to_start_one(
    gpu: Gpu | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = unused_url()
    monkeypatch.setattr(module, "PORT", int(url.rpartition(":")[2]))
    hardware = evolve(some_hardware(), gpus=(gpu,) if gpu else ())
    status = status_of(CudaBackend(hardware))
    assert not status.reachable
    assert "`velollm cuda serve MODEL` starts it" in status.reason
    assert words in status.reason
    assert len(status.reason.splitlines()) == 1


@pytest.mark.parametrize("owner", [None, "vllm", "velollm-llamacpp"])
def test_another_server_at_its_address_is_left_alone(owner: str | None) -> None:
    listed = document({"data": [{"id": "theirs", "owned_by": owner}]})
    with FakeServer({**openai_routes("theirs"), "GET /v1/models": listed}) as server:
        status = status_of(CudaBackend(some_hardware(), server.url))
    assert not status.reachable
    assert "not cuda" in status.reason


def test_a_binary_is_refused() -> None:
    status = status_of(CudaBackend(some_hardware(), binary="/usr/bin/vllm"))
    assert not status.reachable
    assert "has no program: give `embedded`" in status.reason


def test_what_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    for model, words in (
        (str(tmp_path / "missing"), "no such folder"),
        (str(write_tiny_model(tmp_path / "mamba", architectures=["MambaForCausalLM"])), "MambaForCausalLM"),
    ):
        with pytest.raises(BackendError, match=words) as raised:
            run(embedded(), Request(model, "Hello"))
        assert len(str(raised.value).splitlines()) == 1


def test_a_request_too_long_is_one_line(folder: Path) -> None:
    with pytest.raises(BackendError, match="more than the 512"):
        run(embedded(), Request(str(folder), "Hello", sampling=SamplingParams(max_tokens=600)))


def test_it_knows_the_shape_of_a_folder(folder: Path, tmp_path: Path) -> None:
    backend = embedded()
    assert isinstance(backend, Resolves)
    spec = asyncio.run(backend.resolve(str(folder)))
    assert (spec.block_count, spec.vocab_size, spec.context_length) == (2, 320, 512)
    weights = 320 * 32 + 2 * (2 * 32 * 8 * (4 + 2) + 3 * 32 * 64 + 2 * 32) + 32
    assert spec.tensor_bytes == 4 * weights
    with pytest.raises(BackendError, match="no such folder"):
        asyncio.run(backend.resolve(str(tmp_path / "missing")))


def test_the_configured_address(monkeypatch: pytest.MonkeyPatch) -> None:
    (backend,) = velollm_cuda.plugin.detect(some_hardware())
    assert isinstance(backend, CudaBackend)
    assert backend.url == "http://127.0.0.1:8090"
    monkeypatch.setenv("VELOLLM_CUDA_URL", "http://gpu-box:9000/v1")
    monkeypatch.setenv("VELOLLM_CUDA_BINARY", "embedded")
    (backend,) = velollm_cuda.plugin.detect(some_hardware())
    assert isinstance(backend, CudaBackend)
    assert backend.url == "http://gpu-box:9000"
    assert backend.embedded
