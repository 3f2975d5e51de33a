"""A model's shape from the server's own metadata."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from velollm_ollama.backend import OllamaBackend
from velollm_ollama.show import blob_path, show_spec

from velollm_core.errors import BackendError, ModelFileError
from velollm_core.models.load import LoadSettings
from velollm_core.models.memory import memory
from velollm_core.models.spec import ModelSpec
from velollm_core.testing import FakeServer, read_http


def show(recordings: Path, name: str = "show") -> dict[str, Any]:
    return read_http(recordings / "api" / f"{name}.http").document


def test_the_recorded_model(recordings: Path) -> None:
    spec = show_spec("tiny", show(recordings))
    assert (spec.name, spec.architecture, spec.format, spec.source) == ("tiny", "llama", "ollama", "ollama:tiny")
    assert (spec.block_count, spec.context_length, spec.vocab_size) == (4, 2048, 300)
    assert spec.quantization == "F16"
    assert spec.layers[0].kv_heads == 2


def test_its_bytes_are_those_that_the_server_logged(recordings: Path) -> None:
    """6.30 + 4.00 MiB of weights and cache, as the child printed them."""
    spec = show_spec("tiny", show(recordings))
    found = memory(spec, LoadSettings(2048, parallel=1, kv_unified=False, batch=512, ubatch=512, mmap=False))
    [host] = found.devices
    assert round(host.weights.value / 2**20, 2) == 6.30
    assert host.kv.value == 4 * 2**20


def test_four_slots_of_8_bit_cache_as_logged(recordings: Path) -> None:
    spec = show_spec("tiny", show(recordings))
    load = LoadSettings(4096, parallel=4, kv_unified=False, type_k="q8_0", type_v="q8_0", flash_attn="on", mmap=False)
    assert memory(spec, load).devices[0].kv.value == int(4.25 * 2**20)


def test_resolve_asks_the_server(recordings: Path) -> None:
    async def resolve(url: str) -> ModelSpec:
        backend = OllamaBackend(url)
        try:
            return await backend.resolve("tiny")
        finally:
            await backend.close()

    routes = {
        "POST /api/show": read_http(recordings / "api/show.http").reply(),
        "GET /api/tags": read_http(recordings / "api/tags.http").reply(),
    }
    with FakeServer(routes) as server:
        assert asyncio.run(resolve(server.url)).file_bytes == 6616342
    missing = {"POST /api/show": read_http(recordings / "api/err_missing_model.http").reply()}
    with FakeServer(missing) as server, pytest.raises(BackendError, match="ollama pull tiny"):
        asyncio.run(resolve(server.url))


def test_the_blob_behind_the_name(recordings: Path) -> None:
    path = blob_path(show(recordings))
    assert path is not None
    assert path.startswith("/models/blobs/sha256-")
    assert blob_path({"modelfile": "FROM llama3\n"}) is None
    assert blob_path({}) is None


def test_a_model_of_the_cloud_is_refused() -> None:
    with pytest.raises(BackendError, match="not on this machine"):
        show_spec("big", {"remote_host": "https://example.com:443", "model_info": {"a": 1}})


@pytest.mark.parametrize("info", [None, {}, []])
def test_an_answer_without_a_shape_is_refused(info: object) -> None:
    with pytest.raises(BackendError, match="shape"):
        show_spec("x", {"model_info": info})


def test_a_missing_key_is_named(recordings: Path) -> None:
    answer = show(recordings)
    del answer["model_info"]["llama.block_count"]
    with pytest.raises(ModelFileError, match=r"llama\.block_count"):
        show_spec("x", answer)
