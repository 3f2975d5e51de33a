"""A model made, planned for, measured, applied, read back and cleaned up: on the fake, and on a real Ollama where one
answers at OLLAMA_HOST."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from velollm_ollama import gather
from velollm_ollama.backend import OllamaBackend
from velollm_ollama.facts import Facts
from velollm_ollama.host import parse_host
from velollm_ollama.testing import FakeOllama
from velollm_ollama.tuning import optimize

from velollm_core.backends.request import Request, SamplingParams
from velollm_core.benchmark.runner import run
from velollm_core.benchmark.workload import Task, Workload
from velollm_core.hardware.probe import detect_hardware
from velollm_core.testing.test_model import write_test_model

MODEL = "velollm-test"


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.real_server)])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the fake, or of a real one that answers."""
    if request.param == "fake":
        monkeypatch.setattr(gather, "find_server", lambda _port: None)
        with FakeOllama() as fake:
            yield fake.url
        return
    found = parse_host(os.environ.get("OLLAMA_HOST", "")).connectable.url
    if not asyncio.run(_answers(found)):
        pytest.skip(f"no Ollama answers at {found}")
    yield found


@pytest.fixture
def url(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The server's address with the seed-made model on it; the model is deleted afterwards."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = tmp_path / "model.gguf"
    write_test_model(path)
    asyncio.run(_create(server, path))
    yield server
    asyncio.run(_delete(server))


async def _answers(url: str) -> bool:
    backend = OllamaBackend(url)
    try:
        return (await backend.status()).reachable
    finally:
        await backend.close()


async def _create(url: str, path: Path) -> None:
    import aiohttp

    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    with path.open("rb") as file:
        size = {"Content-Length": str(path.stat().st_size)}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{url}/api/blobs/{digest}", data=file, headers=size) as answer,
        ):
            answer.raise_for_status()
    backend = OllamaBackend(url)
    try:
        await backend.call("POST", "/api/create", {"model": MODEL, "files": {"m.gguf": digest}, "stream": False})
    finally:
        await backend.close()


async def _delete(url: str) -> None:
    backend = OllamaBackend(url)
    try:
        await backend.roll_back()
        await backend.call("DELETE", "/api/delete", {"model": MODEL})
    finally:
        await backend.close()


def test_the_whole_way(url: str) -> None:
    async def way() -> None:
        backend = OllamaBackend(url)
        try:
            await backend.status()
            spec = await backend.resolve(MODEL)
            workload = Workload("real", MODEL, (Task("short", "Once upon a time", 16, 2),), context=1024)
            plan = optimize(spec, detect_hardware(probe_bandwidth=False), workload, backend.facts.get(MODEL, Facts()))
            parameters = tuple(setting for setting in plan.settings if setting.where == "model")
            await backend.apply(spec, parameters)
            assert (await backend.read_back())["num_ctx"] == 1024
            report = await run(backend, workload)
            assert report.samples
            chunks = [
                chunk async for chunk in backend.stream(Request(MODEL, "Once", sampling=SamplingParams(max_tokens=8)))
            ]
            assert chunks[-1].usage is not None
            await backend.roll_back()
            names = [str(entry["name"]) for entry in await backend.tags()]
            assert f"{MODEL}:latest" in names
            assert f"{MODEL}:velo" not in names
        finally:
            await backend.close()

    asyncio.run(way())
