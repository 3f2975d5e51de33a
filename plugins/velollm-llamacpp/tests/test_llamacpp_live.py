"""The backend against a real llama.cpp, embedded in a process of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from velollm_llamacpp.backend import LlamaCppBackend

from velollm_core.backends.backend import Backend
from velollm_core.backends.request import Chunk, Request, SamplingParams
from velollm_core.errors import BackendError
from velollm_core.testing import AnyBackendContract, unused_url


class TestRealServer(AnyBackendContract):
    @pytest.fixture
    def running(self, real_url: str) -> Backend:
        return LlamaCppBackend(real_url)

    @pytest.fixture
    def absent(self) -> Backend:
        return LlamaCppBackend(unused_url())


def asked(text: str, tokens: int = 16) -> Request:
    return Request("m", text, sampling=SamplingParams(max_tokens=tokens), cache_prompt=False)


async def read(backend: LlamaCppBackend, request: Request) -> list[Chunk]:
    return [chunk async for chunk in backend.stream(request)]


def test_counts_agree_with_each_other(real_url: str) -> None:
    async def use() -> None:
        backend = LlamaCppBackend(real_url)
        try:
            chunks = await read(backend, asked("The quick brown fox"))
            usage = chunks[-1].usage
            assert usage is not None
            assert usage.prompt_tokens == await backend.count_tokens("m", "The quick brown fox")
            assert usage.completion_tokens == sum(chunk.num_tokens or 0 for chunk in chunks) == 16
            assert usage.cached_tokens == 0
            assert (usage.prefill_seconds or 0) > 0
            assert (await backend.server_metrics())["llamacpp:tokens_predicted_total"] >= 16
        finally:
            await backend.close()

    asyncio.run(use())


def test_four_slots_answer_side_by_side_as_they_do_alone(real_url: str) -> None:
    async def use() -> None:
        backend = LlamaCppBackend(real_url)
        try:
            prompts = [f"{number} little pigs went to" for number in range(8)]
            alone = [await read(backend, asked(prompt)) for prompt in prompts]
            together = await asyncio.gather(*(read(backend, asked(prompt)) for prompt in prompts))
        finally:
            await backend.close()
        for chunks in (*alone, *together):
            assert sum(chunk.num_tokens or 0 for chunk in chunks) == 16
        same = [one for one, other in zip(alone, together, strict=True) if said(one) == said(other)]
        # Another batch shape rounds otherwise: where two logits are close, a text may go another way.
        assert len(same) >= len(prompts) // 2

    asyncio.run(use())


def said(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def test_the_servers_file_is_resolved(real_url: str, model: Path) -> None:
    async def use() -> None:
        backend = LlamaCppBackend(real_url)
        try:
            name = (await backend.status()).models[0]
            spec = await backend.resolve(name)
        finally:
            await backend.close()
        assert (spec.name, spec.source, spec.architecture) == (name, str(model), "llama")

    asyncio.run(use())


def test_a_prompt_beyond_the_context_is_one_clear_line(real_url: str) -> None:
    with pytest.raises(BackendError, match="exceeds the available context size") as raised:
        asyncio.run(read(LlamaCppBackend(real_url), asked("a " * 3000)))
    assert "\n" not in str(raised.value)


def test_a_server_that_is_not_ours_is_left_alone(real_url: str, model: Path) -> None:
    from velollm_core.models.files import read_model

    async def use() -> None:
        backend = LlamaCppBackend(real_url)
        try:
            with pytest.raises(BackendError, match="was not started by VeloLLM and is left alone") as raised:
                await backend.apply(read_model(model), ())
            assert raised.value.kind == "foreign"
            assert (await backend.status()).running
        finally:
            await backend.close()

    asyncio.run(use())
