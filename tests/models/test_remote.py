"""Headers over the network: from a stand-in of the hub that answers ranges, ignores them, redirects, refuses."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from attrs import define, field

from velollm_core.errors import ModelFileError
from velollm_core.models import gguf as gguf_module
from velollm_core.models import ranged
from velollm_core.models.gguf import read_header
from velollm_core.models.hub import parse_reference, pick_gguf
from velollm_core.models.remote import read_remote
from velollm_core.models.source import load_spec

HUGE = 400 << 30
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@define
class Hub:
    """A hub of one machine: ``files`` by path, ``mode`` is how it misbehaves; ``seen`` and ``sent`` are counted."""

    files: dict[str, bytes] = field(factory=dict)
    mode: str = "ranges"
    size: int | None = None
    url: str = ""
    seen: list[web.Request] = field(factory=list)
    sent: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        if self.mode in ("401", "403", "404", "500"):
            return web.Response(status=int(self.mode))
        listing = re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", request.path)
        if listing:
            return web.json_response({"siblings": [{"rfilename": name} for name in self.files]})
        name = request.path.rsplit("/", 1)[-1]
        if self.mode == "redirect" and "/cdn/" not in request.path:
            raise web.HTTPFound(f"{self.url.replace('127.0.0.1', 'localhost')}/cdn/{name}")
        if name not in self.files:
            return web.Response(status=404)
        return await self.send(request, self.files[name])

    async def send(self, request: web.Request, data: bytes) -> web.StreamResponse:
        size = self.size or len(data)
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        if match and self.mode != "no ranges":
            first, last = int(match[1]), min(int(match[2]), size - 1)
            body = data[first : last + 1].ljust(max(0, min(last + 1, size) - first), b"\0")
            shown = {"wrong range": f"bytes 5-9/{size}", "no size": f"bytes {first}-{last}/*"}
            self.sent += len(body)
            header = shown.get(self.mode, f"bytes {first}-{last}/{size}")
            return web.Response(status=206, body=body, headers={"Content-Range": header})
        response = web.StreamResponse(headers={"Content-Length": str(size)})
        await response.prepare(request)
        try:
            await response.write(data)
            self.sent += len(data)
            while self.sent < size:
                await response.write(bytes(1 << 20))
                self.sent += 1 << 20
        except (ConnectionError, asyncio.CancelledError):
            pass
        return response


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A running hub that the environment points to, with caches of its own."""
    found = Hub()
    started = threading.Event()
    loop = asyncio.new_event_loop()

    async def start() -> web.AppRunner:
        application = web.Application()
        application.router.add_get("/{tail:.*}", found.answer)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        found.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
        started.set()
        return runner

    def serve() -> None:
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    started.wait(10)
    monkeypatch.setenv("HF_ENDPOINT", found.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield found
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@pytest.fixture
def big(hub: Hub, gguf: Callable[..., bytes], llama: dict[str, Any]) -> Hub:
    """A hub with one model of 400 GiB, of which only the header is real."""
    tensors = [("token_embd.weight", "f16", (64, 3)), ("blk.0.ffn_up.weight", "f16", (1 << 20, 200 << 10))]
    llama["tokenizer.ggml.tokens"] = [f"token {number}" for number in range(1000)]
    hub.files["big-Q4_K_M.gguf"] = gguf(llama, tensors, data=False)
    hub.size = HUGE + (1 << 20)
    return hub


@pytest.fixture(autouse=True)
def little_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranged, "FIRST_REQUEST", 1000)


def test_a_file_of_the_hub_by_ranges(big: Hub) -> None:
    spec = load_spec("hf:org/repo/big-Q4_K_M.gguf")
    header = big.files["big-Q4_K_M.gguf"]
    assert spec.tensor_bytes == 384 + (1 << 20) * (200 << 10) * 2
    assert spec.file_bytes == big.size
    assert spec.source == "hf:org/repo/big-Q4_K_M.gguf"
    assert not spec.data_present
    assert [request.headers["Authorization"] for request in big.seen] == ["Bearer hf_secret"] * len(big.seen)
    assert len(big.seen) > 1
    assert big.sent <= 4 * len(header)
    assert spec.header is not None
    kept = read_header(Path(spec.header))
    assert not kept.data_present
    assert kept.tensors == spec.tensors


def test_a_server_that_ignores_ranges_is_left_early(big: Hub) -> None:
    big.mode = "no ranges"
    assert load_spec("hf:org/repo/big-Q4_K_M.gguf").file_bytes == big.size
    assert len(big.seen) == 1
    assert big.sent < 64 << 20


def test_a_redirect_elsewhere_does_not_take_the_token_along(big: Hub) -> None:
    big.mode = "redirect"
    assert load_spec("hf:org/repo/big-Q4_K_M.gguf").vocab_size == 1000
    assert {"Authorization" in request.headers for request in big.seen if "/cdn/" in request.path} == {False}


def test_a_plain_url_gets_no_token(big: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    spec = read_remote(f"{big.url}/some/where/big-Q4_K_M.gguf?download=true")
    assert spec.file_bytes == big.size
    assert spec.source.startswith(big.url)
    assert {"Authorization" in request.headers for request in big.seen} == {False}


def test_a_server_that_does_not_say_the_size(big: Hub) -> None:
    big.mode = "no size"
    spec = load_spec("hf:org/repo/big-Q4_K_M.gguf")
    assert spec.file_bytes is not None
    assert spec.file_bytes >= spec.tensor_bytes


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("401", "access refused .401.: a gated model|access refused .401.; if the model is gated"),
        ("403", "HF_TOKEN"),
        ("404", "no such file"),
        ("500", "the server answered 500"),
        ("wrong range", "another range"),
    ],
)
def test_what_a_server_may_say(big: Hub, mode: str, says: str) -> None:
    big.mode = mode
    with pytest.raises(ModelFileError, match=says) as caught:
        load_spec("hf:org/repo/big-Q4_K_M.gguf")
    assert str(caught.value).isprintable()
    assert "hf_secret" not in str(caught.value)


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ModelFileError, match="cannot be reached"):
        load_spec("hf:org/repo/file.gguf")


def test_rubbish_and_endless_headers(hub: Hub, writer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_module, "MAX_HEADER", 4 << 20)
    hub.files = {"rubbish.gguf": b"<html>no model</html>" * 100, "short.gguf": b"GGUF\x03"}
    with pytest.raises(ModelFileError, match="not a GGUF"):
        load_spec("hf:org/repo/rubbish.gguf")
    with pytest.raises(ModelFileError, match="truncated"):
        load_spec("hf:org/repo/short.gguf")
    make = writer()
    endless = make.text("tokens") + make.pack("IIQ", 9, 8, HUGE // 16)
    hub.files["endless.gguf"] = b"GGUF" + make.pack("IQQ", 3, 0, 1) + endless
    hub.size = HUGE
    with pytest.raises(ModelFileError, match="not a sound GGUF"):
        load_spec("hf:org/repo/endless.gguf")
    assert hub.sent < 8 << 20


def test_a_header_is_kept_for_a_day_and_for_offline(big: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_spec("hf:org/repo/big-Q4_K_M.gguf")
    asked = len(big.seen)
    assert load_spec("hf:org/repo/big-Q4_K_M.gguf") == spec
    assert len(big.seen) == asked
    assert spec.header is not None
    os.utime(spec.header, (time.time() - 90000,) * 2)
    assert load_spec("hf:org/repo/big-Q4_K_M.gguf") == spec
    assert len(big.seen) > asked
    os.utime(spec.header, (time.time() - 90000,) * 2)
    asked = len(big.seen)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert load_spec("hf:org/repo/big-Q4_K_M.gguf") == spec
    assert len(big.seen) == asked
    with pytest.raises(ModelFileError, match="HF_HUB_OFFLINE"):
        load_spec("hf:org/repo/other.gguf")
    with pytest.raises(ModelFileError, match="HF_HUB_OFFLINE"):
        load_spec("hf:org/repo:Q4_K_M")


def test_an_unreachable_hub_leaves_the_kept_header(big: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{big.url}/org/repo/resolve/main/big-Q4_K_M.gguf"
    spec = load_spec(url)
    assert spec.header is not None
    os.utime(spec.header, (time.time() - 90000,) * 2)
    big.mode = "500"
    with pytest.raises(ModelFileError, match="500"):
        load_spec(url)
    broken = Path(spec.header).with_suffix(".json")
    broken.write_text("{")
    big.mode = "ranges"
    assert load_spec(url) == spec


def test_a_file_in_the_hubs_own_cache_is_read_there(hub: Hub, small: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "models--org--repo"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (folder / "snapshots" / ("0" * 40) / "here.gguf").write_bytes(small)
    spec = load_spec("hf:org/repo/here.gguf")
    assert spec.data_present
    assert spec.source.endswith("here.gguf")
    assert not hub.seen


def test_a_split_model(hub: Hub, gguf: Callable[..., bytes], llama: dict[str, Any], small_tensors: Any) -> None:
    for part in range(2):
        keys = {"split.no": part, "split.count": 2, "split.tensors.count": 4}
        data = gguf({**(llama if part == 0 else {}), **keys}, small_tensors[part * 2 : part * 2 + 2])
        hub.files[f"m-Q8_0-{part + 1:05}-of-00002.gguf"] = data
    spec = load_spec("hf:org/repo:q8_0@v1.0")
    assert len(spec.tensors) == 4
    assert spec.file_bytes == sum(len(data) for data in hub.files.values())
    assert spec.source == "hf:org/repo/m-Q8_0-00001-of-00002.gguf@v1.0"
    assert any("/resolve/v1.0/" in request.path for request in hub.seen)
    assert spec.header is not None
    assert Path(spec.header).with_name("m-Q8_0-00002-of-00002.gguf").exists()


def test_a_repository_of_safetensors(hub: Hub) -> None:
    table = {
        "model.embed_tokens.weight": {"dtype": "BF16", "shape": [100, 64], "data_offsets": [0, 12800]},
        "model.layers.0.mlp.up_proj.weight": {"dtype": "F8_E4M3", "shape": [8, 64], "data_offsets": [12800, 13312]},
    }
    text = json.dumps(table).encode()
    config = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    hub.files = {
        "README.md": b"",
        "config.json": json.dumps(config | {"tie_word_embeddings": True}).encode(),
        "model.safetensors": len(text).to_bytes(8, "little") + text + bytes(13312),
    }
    spec = load_spec("hf:org/repo")
    assert spec.format == "safetensors"
    assert (spec.embedding_bytes, spec.layers[0].dense_bytes) == (12800, 512)
    assert spec.head_bytes == 12800
    hub.files["config.json"] = b"[]"
    with pytest.raises(ModelFileError, match="not an object"):
        load_spec("hf:org/repo")
    del hub.files["config.json"]
    with pytest.raises(ModelFileError, match=r"neither a GGUF nor a config\.json"):
        load_spec("hf:org/repo")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hf:a/b", ("a/b", None, None, "main")),
        ("hf:a/b:Q4_K_M", ("a/b", None, "Q4_K_M", "main")),
        ("hf:a/b/c/d.gguf", ("a/b", "c/d.gguf", None, "main")),
        ("hf:a.b/c-d_e/f.gguf@refs/pr/1", ("a.b/c-d_e", "f.gguf", None, "refs/pr/1")),
    ],
)
def test_references(name: str, parts: tuple[str | None, ...]) -> None:
    found = parse_reference(name)
    assert (found.repo, found.file, found.quantization, found.revision) == parts


@pytest.mark.parametrize("name", ["hf:", "hf:a", "hf:a/b/c.safetensors", "hf:a/b:", "hf:../b@", "hf:a/b?x=1"])
def test_names_that_are_no_references(name: str) -> None:
    with pytest.raises(ModelFileError, match="expected hf:org/repo"):
        read_remote(name)
    with pytest.raises(ModelFileError, match=r"only URLs of \.gguf"):
        read_remote("https://example.invalid/model.bin")


def test_which_file_of_a_repository() -> None:
    files = ["mmproj-F16.gguf", "m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "BF16/m-BF16-00001-of-00002.gguf"]
    files += ["BF16/m-BF16-00002-of-00002.gguf", "README.md"]
    assert pick_gguf(parse_reference("hf:a/b"), files) == "m-Q4_K_M.gguf"
    assert pick_gguf(parse_reference("hf:a/b:bf16"), files) == "BF16/m-BF16-00001-of-00002.gguf"
    assert pick_gguf(parse_reference("hf:a/b"), ["x-Q6_K.gguf", "x-Q8_0.gguf"]) == "x-Q6_K.gguf"
    assert pick_gguf(parse_reference("hf:a/b"), ["README.md"]) is None
    with pytest.raises(ModelFileError, match=r"nothing called Q4_K; there is .*m-Q4_K_M\.gguf"):
        pick_gguf(parse_reference("hf:a/b:Q4_K"), files)
