"""The fake keeps to what was recorded of the real one."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from velollm_ollama.backend import OllamaBackend
from velollm_ollama.log import read_log
from velollm_ollama.testing import FakeOllama, tiny_model

from velollm_core.backends.request import Chunk, Request, SamplingParams
from velollm_core.errors import BackendError
from velollm_core.testing import Answer, BackendContract, FakeServer, read_http

SAMPLING = SamplingParams(max_tokens=8)
CHANGING = {"created_at", "modified_at", "expires_at", "digest", "details", "size", "name", "model"}


EMPTY: dict[str, Answer] = {}


class TestContract(BackendContract):
    backend = OllamaBackend
    routes = EMPTY

    @pytest.fixture
    def server(self) -> Any:
        """The fake itself, in place of a script."""
        with FakeOllama() as fake:
            fake.models["any:latest"] = tiny_model()
            yield fake

    def stream_route(self, server: FakeServer, backend: Any) -> Any:
        """The recorded stream in place of the fake's own, to be cut and broken."""
        path = Path(__file__).parent / "recordings" / "api" / "generate_stream.http"
        whole = read_http(path).reply()
        server.routes["POST /api/generate"] = whole
        return "POST /api/generate", whole


def exchange(fake: FakeOllama, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    request = urllib.request.Request(fake.url + path, data=body or None, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def run(fake: FakeOllama, request: Request) -> list[Chunk]:
    async def once() -> list[Chunk]:
        backend = OllamaBackend(fake.url)
        try:
            return [chunk async for chunk in backend.stream(request)]
        finally:
            await backend.close()

    return asyncio.run(once())


SAME = """
version status root tags ps_empty generate chat load unload create_params create_bad_param create_unknown_param copy
delete_missing err_missing_model err_option_type err_not_found err_method err_empty_body keep_alive_bad
blob_head_missing create_no_model
"""


@pytest.mark.parametrize("name", SAME.split())
def test_it_answers_as_the_real_one_did(recordings: Path, name: str) -> None:
    recorded = read_http(recordings / "api" / f"{name}.http")
    with FakeOllama() as fake:
        status, body = exchange(fake, recorded.method, recorded.path, recorded.sent)
    assert status == recorded.status
    if not body.startswith(b"{"):
        assert body == recorded.body
        return
    ours, theirs = json.loads(body), recorded.document
    assert ours.keys() - CHANGING == theirs.keys() - CHANGING
    if "error" in theirs:
        assert ours == theirs


def test_chunks_are_lines_and_the_last_one_counts() -> None:
    with FakeOllama() as fake:
        chunks = run(fake, Request("tiny", "Once", sampling=SAMPLING))
    assert "".join(chunk.text for chunk in chunks) == "One chunk is not a token.One"
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (2, 8, None)


def test_an_end_of_its_own_counts_the_stop_token() -> None:
    with FakeOllama() as fake:
        fake.models["tiny:latest"].stops_after = 3
        chunks = run(fake, Request("tiny", "Once", sampling=SAMPLING))
    assert chunks[-1].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4


@pytest.mark.parametrize(("version", "cached"), [("0.24.0", None), ("0.33.0", None), ("0.33.3", 0), ("0.0.0", 0)])
def test_cached_tokens_by_version(version: str, cached: int | None) -> None:
    with FakeOllama(version) as fake:
        first = run(fake, Request("tiny", "Once upon a time", sampling=SAMPLING))[-1].usage
        again = run(fake, Request("tiny", "Once upon a time", sampling=SAMPLING))[-1].usage
    assert first is not None
    assert again is not None
    assert first.cached_tokens in (cached, None)
    assert (again.cached_tokens or 0) == (0 if cached is None else 4)
    assert (again.prefill_seconds or 1) < (first.prefill_seconds or 0)


@pytest.mark.parametrize("stream", [True, False])
def test_a_model_that_repeats_itself_never_ends(stream: bool) -> None:
    with FakeOllama() as fake:
        fake.models["constant:latest"] = tiny_model()
        fake.models["constant:latest"].words = ("&",)
        body = {"model": "constant", "prompt": "x", "stream": stream, "options": {"num_predict": 100}}
        _, answer = exchange(fake, "POST", "/api/generate", json.dumps(body).encode())
        assert answer.count(b"&") == 31
        assert b'"done": true' not in answer
        with pytest.raises(BackendError, match="before its end"):
            run(fake, Request("constant", "x", sampling=SamplingParams(max_tokens=100)))


def test_no_prompt_is_cut_without_a_word() -> None:
    with FakeOllama() as fake:
        with pytest.raises(BackendError, match="exceeds the available context size"):
            run(fake, Request("tiny", "word " * 4000, sampling=SAMPLING))
        body = {"model": "tiny", "prompt": "word " * 4000, "stream": False, "options": {"num_predict": 2}}
        _, answer = exchange(fake, "POST", "/api/generate", json.dumps(body).encode())
        assert json.loads(answer)["prompt_eval_count"] == 1026


def test_load_options_reload_and_others_do_not() -> None:
    def options(**values: object) -> bytes:
        return json.dumps(
            {"model": "tiny", "prompt": "x", "stream": False, "options": {"num_predict": 1, **values}}
        ).encode()

    with FakeOllama() as fake:
        for body in (options(), options(seed=3), options(num_ctx=512), options(num_ctx=512, temperature=1), options()):
            assert exchange(fake, "POST", "/api/generate", body)[0] == 200
        assert fake.loads == 3


def test_a_benchmark_does_not_reload() -> None:
    with FakeOllama() as fake:
        for seed in range(3):
            run(fake, Request("tiny", "x", sampling=SamplingParams(max_tokens=2, seed=seed)))
        assert fake.loads == 1


def test_requests_that_wait_for_a_load_fill_the_queue() -> None:
    async def together(url: str) -> list[str]:
        backend = OllamaBackend(url)

        async def one(index: int) -> str:
            try:
                async for _ in backend.stream(Request("tiny", str(index), sampling=SAMPLING)):
                    pass
            except BackendError as error:
                return f"{error.status} {error.kind}"
            return "done"

        try:
            return await asyncio.gather(*(one(index) for index in range(6)))
        finally:
            await backend.close()

    with FakeOllama(environment={"OLLAMA_MAX_QUEUE": "1"}) as fake:
        fake.load_seconds = 0.3
        outcomes = asyncio.run(together(fake.url))
    assert sorted(set(outcomes)) == ["503 busy", "done"]
    assert outcomes.count("503 busy") == 4


def test_an_answer_that_breaks_off() -> None:
    with FakeOllama() as fake:
        fake.break_after = 3
        with pytest.raises(BackendError, match="unexpected EOF"):
            run(fake, Request("tiny", "x", sampling=SAMPLING))
        assert run(fake, Request("tiny", "x", sampling=SAMPLING))


def test_a_load_that_fails() -> None:
    with FakeOllama() as fake:
        fake.refuses = "llama-server process has terminated: exit status 1"
        with pytest.raises(BackendError, match="exit status 1"):
            run(fake, Request("tiny", "x", sampling=SAMPLING))


@pytest.mark.parametrize("version", ["0.24.0", "0.30.0", "0.33.0"])
def test_its_log_reads_as_its_settings(version: str) -> None:
    environment = {"OLLAMA_NUM_PARALLEL": "2x", "OLLAMA_FLASH_ATTENTION": "off", "OLLAMA_MAX_QUEUE": "9"}
    with FakeOllama(version, environment) as fake:
        log = read_log(fake.log())
        assert str(log.version) == version
        assert log.values["OLLAMA_FLASH_ATTENTION"] == "true"
        assert log.values["OLLAMA_MAX_QUEUE"] == "9"
        assert [warning.name for warning in log.warnings] == ["OLLAMA_NUM_PARALLEL"]
        assert log.values["OLLAMA_HOST"] == fake.url
