"""The kit for plugin authors: the fake server does what its script says, and a contract fails whoever breaks it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

import pytest

from velollm_core.hardware.machine import Hardware
from velollm_core.testing import (
    Answer,
    FakeServer,
    Outcome,
    document,
    events,
    install_plugin,
    json_lines,
    openai_routes,
    read_body,
    read_http,
    run_cli,
    text,
)

pytest_plugins = ["velollm_core.testing"]
WIRE = Path(__file__).parent / "recordings" / "wire"
BACKEND = """
class Backend{number}(Good):
    {broken}

class TestBackend{number}(BackendContract):
    backend = Backend{number}
    routes = openai_routes()
"""
BACKENDS = """
from velollm_core.backends.openai import OpenAIBackend
from velollm_core.backends.request import Chunk
from velollm_core.backends.status import Status
from velollm_core.testing import BackendContract, openai_routes

class Good(OpenAIBackend):
    name = "good"
"""
BROKEN_BACKENDS = {
    "name = 'Good '": "test_it_is_a_backend",
    "async def status(self): raise OSError('gone')": "test_models_are_reported",
    "async def models(self): return ()": "test_models_are_reported",
    "def usage(self, event): return None": "test_the_server_counts_tokens",
    "def chunk(self, event): return Chunk('x')": "test_text_streams",
    "def chunk(self, event): return None": "test_chat_streams",
    "def chunk(self, event): raise ZeroDivisionError": "test_text_streams",
    "async def look(self): return Status(True, None, ('m',), running=True)": "test_a_strange_server_is_a_status",
    "async def stream(self, request): yield Chunk('x')": "test_a_broken_stream_is_a_backend_error",
    "async def close(self): raise RuntimeError": "test_close_is_idempotent",
}
PLUGIN = """
import judged_plugin_{number}

class TestPlugin{number}(PluginContract):
    plugin = judged_plugin_{number}
"""
PLUGINS = "from velollm_core.testing import PluginContract\n"
HOOK = "from velollm_core.hookspecs import hookimpl\n@hookimpl\n"
BROKEN_PLUGINS = {
    "x = 1": "test_every_hook_is_known",
    HOOK + "def detekt(): return []": "test_every_hook_is_known",
    HOOK + "def detect(hardware=None): return []": "test_no_hook_argument_has_a_default",
    HOOK + "async def detect(): return []": "test_hooks_are_synchronous",
    HOOK + "def detect():\n    import socket\n    socket.create_connection(('127.0.0.1', 9))": (
        "test_detect_offers_backends_without_io"
    ),
    HOOK + "def detect(): return [7]": "test_detect_offers_backends_without_io",
    HOOK + "def benchmark(backend, workload): return 1": "test_a_strangers_backend_is_left_alone",
    "import aiohttp\n" + HOOK + "def detect(): return []": "test_importing_it_is_cheap",
}


def failing(folder: Path, source: str, tests: list[str]) -> set[str]:
    """Those of ``tests`` that fail when pytest judges ``source``."""
    (folder / "test_judged.py").write_text(source)
    options = ["-q", "-rf", "-p", "no:cacheprovider", "--tb=no", "--rootdir", str(folder)]
    places = [f"test_judged.py::{test}" for test in tests]
    command = [sys.executable, "-m", "pytest", *options, *places]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert " failed" in done.stdout, done.stdout
    return {
        line.removeprefix("FAILED test_judged.py::").split(" ")[0].split("[")[0] for line in done.stdout.splitlines()
    }


def test_every_broken_backend_is_found(tmp_path: Path) -> None:
    numbered = dict(enumerate(BROKEN_BACKENDS))
    source = BACKENDS + "".join(BACKEND.format(number=number, broken=broken) for number, broken in numbered.items())
    tests = [f"TestBackend{number}::{BROKEN_BACKENDS[broken]}" for number, broken in numbered.items()]
    assert set(tests) <= failing(tmp_path, source, tests)


def test_every_broken_plugin_is_found(tmp_path: Path) -> None:
    numbered = dict(enumerate(BROKEN_PLUGINS))
    for number, source in numbered.items():
        (tmp_path / f"judged_plugin_{number}.py").write_text(source)
    tests = [f"TestPlugin{number}::{BROKEN_PLUGINS[source]}" for number, source in numbered.items()]
    found = failing(tmp_path, PLUGINS + "".join(PLUGIN.format(number=number) for number in numbered), tests)
    assert set(tests) <= found


def fetch(url: str, body: object = None) -> tuple[int, bytes]:
    data = json.dumps(body).encode() if body is not None else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, data), timeout=20) as response:
            return response.status, response.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()


def test_routes_and_what_was_seen() -> None:
    routes: dict[str, Answer] = {
        "GET /one": document({"a": 1}),
        "GET /turns": [text("first"), text("then", 503)],
        "POST /echo": lambda seen: document(seen.document),
    }
    with FakeServer(routes) as server:
        assert fetch(f"{server.url}/one?x=2") == (200, b'{"a": 1}')
        assert [fetch(f"{server.url}/turns") for _ in range(3)] == [(200, b"first"), (503, b"then"), (503, b"then")]
        assert fetch(f"{server.url}/echo", {"b": 2}) == (200, b'{"b": 2}')
        assert fetch(f"{server.url}/none")[0] == 404
        assert server.requests[0].path == "/one?x=2"
        assert [seen.body for seen in server.seen("POST /echo")] == [b'{"b": 2}']


@pytest.mark.parametrize("end", ["close", "reset"])
def test_an_answer_that_is_cut(end: str) -> None:
    cut = json_lines({"a": 1}, {"b": 2}).cut(4, end=end)  # type: ignore[arg-type]
    with FakeServer({"GET /x": cut}) as server, pytest.raises((http.client.HTTPException, OSError)):
        fetch(f"{server.url}/x")


def test_the_schedule_is_recorded() -> None:
    with FakeServer({"GET /x": events(1, 2, 3, gap=0.01)}) as server:
        assert fetch(f"{server.url}/x")[1].endswith(b"[DONE]\n\n")
        written = server.requests[0].written
    assert len(written) == 4
    assert all(before < after for before, after in pairwise(written))


def test_openai_routes_obey_max_tokens() -> None:
    with FakeServer(openai_routes(words=["a", "b", "c"], tokens=5)) as server:
        _, stream = fetch(f"{server.url}/v1/completions", {"max_tokens": 2})
    assert b'"a"' in stream
    assert b'"c"' not in stream
    assert b'"completion_tokens": 2' in stream


def test_a_server_ends_with_its_clients_connected() -> None:
    with FakeServer(openai_routes()) as server:
        place = urlsplit(server.url)
        connections = [http.client.HTTPConnection(place.hostname or "", place.port) for _ in range(3)]
        for connection in connections:
            connection.connect()
    for connection in connections:
        connection.close()


def test_recordings_of_both_kinds(tmp_path: Path) -> None:
    recording = read_http(WIRE / "v1_chat_stream.http")
    assert (recording.method, recording.path, recording.status) == ("POST", "/v1/chat/completions", 200)
    assert json.loads(recording.sent)["stream"] is True
    assert recording.headers["content-type"] == "text/event-stream"
    assert recording.body.startswith(b"data: {")
    meta = {"request": {"method": "GET", "path": "/v", "body": None}, "status": 404, "headers": {"X-A": "b"}}
    (tmp_path / "v.meta.json").write_text(json.dumps(meta))
    (tmp_path / "v.body").write_bytes(b'{"detail": "no"}')
    other = read_body(tmp_path / "v.body")
    assert (other.method, other.status, other.headers) == ("GET", 404, {"x-a": "b"})
    assert other.document == {"detail": "no"}
    assert other.reply().status == 404


def test_a_plugin_made_on_the_fly(tmp_path: Path) -> None:
    source = "import click\n@click.command()\ndef hello(): click.echo('hello from afar')\n"
    install_plugin(tmp_path, "afar", source, version="3.1", summary="From afar.", commands={"hello": "hello"})
    assert "From afar." in run_cli("--help", plugins=[tmp_path]).stdout
    assert run_cli("hello", plugins=[tmp_path]) == Outcome("hello from afar\n", "", 0)


def test_the_fixtures(
    fake_server: Callable[[Mapping[str, Answer]], FakeServer], velollm: Callable[..., Outcome], hardware: Hardware
) -> None:
    assert fetch(fake_server(openai_routes("m")).url + "/v1/models")[0] == 200
    assert velollm("--version").stdout.startswith("velollm")
    assert hardware.cpu.usable_cores == 4


def test_the_kit_costs_nothing_until_used() -> None:
    script = (
        "import sys, velollm_core.testing\n"
        "print(*{'aiohttp', 'pytest', 'pluggy', 'attrs', 'numpy', 'gguf'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []
