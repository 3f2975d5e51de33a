"""Settings set on a real llama.cpp, read back from it, and rolled back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from attrs import evolve
from velollm_llamacpp.backend import LlamaCppBackend

from velollm_core.backends.request import Request, SamplingParams
from velollm_core.backends.setting import Setting, Value
from velollm_core.errors import BackendError
from velollm_core.models.files import read_model

pytestmark = pytest.mark.usefixtures("library", "nothing_left")

PLANNED: dict[str, Value] = {
    "--ctx-size": 1024,
    "--parallel": 2,
    "--kv-unified": False,
    "--cache-type-k": "q8_0",
    "--cache-type-v": "q8_0",
    "--flash-attn": "on",
    "--batch-size": 512,
    "--ubatch-size": 128,
    "--threads": 1,
    "--threads-batch": 1,
    "--load-mode": "none",
    "--cache-ram": 64,
}


def settings(values: dict[str, Value]) -> list[Setting]:
    return [Setting(name, value, "flag", "a test", "rule") for name, value in values.items()]


def use(call: Callable[[LlamaCppBackend], Awaitable[None]]) -> None:
    async def run() -> None:
        backend = LlamaCppBackend(binary="embedded")
        try:
            await call(backend)
        finally:
            await backend.close()

    asyncio.run(run())


def test_every_setting_reads_back_as_it_was_set(model: Path) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        assert not (await backend.status()).running
        await backend.apply(read_model(model), settings({**PLANNED, "--fit": "off", "--swa-full": True}))
        assert await backend.read_back() == PLANNED
        status = await backend.status()
        assert status.running
        assert status.models == (str(model),)
        assert "xllamacpp" in str(status.version)

    use(call)


def test_what_is_not_set_is_llama_servers_own_choice(model: Path) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        await backend.apply(read_model(model), ())
        found = await backend.read_back()
        assert (found["--parallel"], found["--kv-unified"], found["--ctx-size"]) == (4, True, 2048)

    use(call)


def test_users_variables_do_not_leak_in(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "512")

    async def call(backend: LlamaCppBackend) -> None:
        await backend.apply(read_model(model), ())
        assert (await backend.read_back())["--ctx-size"] == 2048

    use(call)


def test_roll_back_returns_to_what_ran_before(model: Path) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        await backend.roll_back()
        await backend.apply(read_model(model), settings({"--ctx-size": 512}))
        await backend.apply(read_model(model), settings({"--ctx-size": 1024}))
        assert (await backend.read_back())["--ctx-size"] == 1024
        await backend.roll_back()
        assert (await backend.read_back())["--ctx-size"] == 512
        await backend.roll_back()
        assert (await backend.read_back())["--ctx-size"] == 512

    use(call)


def test_rolling_back_the_first_leaves_nothing_running(model: Path) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        await backend.apply(read_model(model), ())
        await backend.roll_back()
        assert not (await backend.status()).running

    use(call)


def test_settings_that_do_not_load_leave_the_ones_before_in_force(model: Path) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        await backend.apply(read_model(model), settings({"--ctx-size": 512, "--threads": 1}))
        broken = settings({"--spec-type": "draft-simple", "--spec-draft-model": "/nowhere/draft.gguf"})
        with pytest.raises(BackendError, match=r"failed to open GGUF file .*; the settings before are in force again"):
            await backend.apply(read_model(model), broken)
        assert (await backend.read_back())["--ctx-size"] == 512
        chunks = [chunk async for chunk in backend.stream(Request("m", "Once", sampling=SamplingParams(max_tokens=3)))]
        assert chunks[-1].usage is not None

    use(call)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"--cache-type-v": "q8_0", "--flash-attn": "off"}, "needs flash attention"),
        ({"--num-ctx": 5}, "no setting of llama-server"),
        ({"--ctx-sice": 5}, "did you mean --ctx-size"),
        ({"--ctx-size": "many"}, "takes a whole number"),
        ({"--flash-attn": True}, "takes one of auto, on, off"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_stopped(
    model: Path, values: dict[str, Value], reason: str
) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        with pytest.raises(BackendError, match=reason) as raised:
            await backend.apply(read_model(model), settings(values))
        assert "\n" not in str(raised.value)
        assert not (await backend.status()).running

    use(call)


def test_a_bad_model_file_is_one_line_with_the_servers_reason(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model.read_bytes()[:-1000])

    async def call(backend: LlamaCppBackend) -> None:
        with pytest.raises(BackendError, match="data is not within the file bounds") as raised:
            await backend.apply(evolve(read_model(model), source=str(broken)), ())
        assert "\n" not in str(raised.value)

    use(call)


@pytest.mark.parametrize("source", ["hf:org/repo/model.gguf", "/nowhere/model.gguf"])
def test_a_model_that_is_not_here_must_be_downloaded_first(model: Path, source: str) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        with pytest.raises(BackendError, match="download it first"):
            await backend.apply(evolve(read_model(model), source=source), ())

    use(call)


def test_a_draft_model_drafts(model: Path, draft: Path) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        values: dict[str, Value] = {
            "--spec-type": "draft-simple",
            "--spec-draft-model": str(draft),
            "--spec-draft-n-max": 4,
            "--ctx-size": 1024,
            "--parallel": 1,
            "--threads": 1,
        }
        await backend.apply(read_model(model), settings(values))
        assert (await backend.read_back())["--ctx-size"] == 1024
        request = Request("m", "The quick brown fox", sampling=SamplingParams(max_tokens=64))
        usage = [chunk async for chunk in backend.stream(request)][-1].usage
        assert usage is not None
        assert 0 < (usage.accepted_tokens or 0) <= (usage.draft_tokens or 0)

    use(call)


def test_requests_in_flight_are_not_cut_off(model: Path) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        await backend.apply(read_model(model), settings({"--ctx-size": 2048, "--parallel": 1, "--threads": 1}))
        long = Request("m", "Once", sampling=SamplingParams(max_tokens=1900, ignore_eos=True))
        stream = backend.stream(long)
        await anext(stream)
        with pytest.raises(BackendError, match="1 requests in flight") as raised:
            await backend.apply(read_model(model), ())
        assert raised.value.kind == "busy"
        assert (await anext(stream)).num_tokens
        await stream.aclose()

    use(call)
