"""The client of every backend: addresses, keys, proxies, and sessions that end with their event loop."""

from __future__ import annotations

import asyncio
import errno
import gc
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from attrs import evolve

from velollm_core.backends.client import Address
from velollm_core.backends.failures import nobody_there
from velollm_core.backends.openai import OpenAIBackend
from velollm_core.backends.request import Chunk, Request
from velollm_core.errors import BackendError, BackendUnreachable
from velollm_core.testing import FakeServer, document, events, openai_routes, unused_url

ROUTE = "POST /v1/completions"
WORDS = events({"choices": [{"text": "one"}]}, {"choices": [{"text": " two", "finish_reason": "stop"}]})
REQUEST = Request("m", "hello")


class Parrot(OpenAIBackend):
    """A backend with nothing of its own."""

    name = "parrot"


def use(backend: Parrot, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        try:
            async with asyncio.timeout(20):
                return await work()
        finally:
            await backend.close()

    return asyncio.run(run())


def say(backend: Parrot) -> str:
    async def read() -> str:
        return "".join([chunk.text async for chunk in backend.stream(REQUEST)])

    return str(use(backend, read))


def test_nobody_there() -> None:
    with pytest.raises(BackendUnreachable, match=r"Connection refused.*start it, or set VELOLLM_PARROT_URL"):
        say(Parrot(unused_url()))


def test_our_own_limit_of_connections_is_not_blamed_on_the_server() -> None:
    error = nobody_there("vllm at http://x", "vllm", OSError(errno.EMFILE, "Too many open files"))
    assert error.kind == "client"
    assert "raise `ulimit -n`" in str(error)


@pytest.mark.parametrize("url", ["", "ftp://x", "http://[::1", "http://127.0.0.1:99999", "a b", "http://"])
def test_a_bad_url_is_one_line(url: str) -> None:
    with pytest.raises(BackendUnreachable, match="VELOLLM_PARROT_URL") as raised:
        say(Parrot(url))
    assert len(str(raised.value).splitlines()) == 1
    backend = Parrot(url)
    status = use(backend, backend.status)
    assert not status.reachable
    assert status.reason


def test_connections_are_used_again() -> None:
    async def three_times() -> None:
        for _ in range(3):
            assert [chunk async for chunk in backend.stream(REQUEST)]

    with FakeServer({ROUTE: WORDS}) as server:
        backend = Parrot(server.url)
        use(backend, three_times)
        assert server.connections == 1


def test_no_limit_on_concurrency() -> None:
    async def many() -> None:
        async def one() -> None:
            assert [chunk async for chunk in backend.stream(REQUEST)]

        await asyncio.gather(*(one() for _ in range(150)))

    with FakeServer({ROUTE: evolve(WORDS, gap=0.02)}) as server:
        backend = Parrot(server.url)
        use(backend, many)
        assert len(server.requests) == 150


def test_a_loop_that_ends_takes_its_session_along() -> None:
    """Without `close()`, twice: an unclosed session or transport would be a warning, and so an error here."""

    async def read() -> list[Chunk]:
        return [chunk async for chunk in backend.stream(REQUEST)]

    with FakeServer({ROUTE: WORDS}) as server:
        backend = Parrot(server.url)
        for _ in range(2):
            assert asyncio.run(read())
            gc.collect()
        assert len(backend.client._sessions) == 1


def test_closing_from_another_loop() -> None:
    async def meet() -> None:
        assert [chunk async for chunk in backend.stream(REQUEST)]
        await asyncio.to_thread(asyncio.run, backend.close())
        assert not backend.client._sessions
        assert [chunk async for chunk in backend.stream(REQUEST)]

    with FakeServer({ROUTE: WORDS}) as server:
        backend = Parrot(server.url)
        use(backend, meet)


def test_the_key_is_sent_and_never_shown() -> None:
    with FakeServer({ROUTE: [document({"error": "no"}, 401), WORDS]}) as server:
        backend = Parrot(server.url, " sk-secret\n")
        with pytest.raises(BackendError) as raised:
            say(backend)
        say(backend)
        assert {seen.headers["authorization"] for seen in server.requests} == {"Bearer sk-secret"}
    assert "secret" not in f"{raised.value}{backend!r}{backend.client!r}{backend.client}"


def test_a_password_in_the_url_is_never_shown() -> None:
    backend = Parrot(unused_url().replace("http://", "http://me:secret@"))
    status = use(backend, backend.status)
    assert "secret" not in f"{status}{backend.url}{backend.client}"
    assert status.reason


def test_a_key_that_cannot_be_sent_is_one_line() -> None:
    with FakeServer(openai_routes()) as server, pytest.raises(BackendError, match="could not be sent"):
        say(Parrot(server.url, api_key="one\r\nX-Two: three"))


def test_a_proxy_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, unused_url())
    with FakeServer({ROUTE: WORDS}) as server:
        assert say(Parrot(server.url)) == "one two"


def test_a_proxy_is_asked_for_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeServer({"POST http://far.invalid/v1/completions": WORDS}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert say(Parrot("http://far.invalid")) == "one two"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("localhost:8080", "http://localhost:8080"),
        (" http://host/ ", "http://host"),
        ("http://host:1/v1/", "http://host:1"),
        ("https://host/api/v1", "https://host/api"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_addresses_as_people_write_them(written: str, meant: str) -> None:
    assert Address(written).url == meant


def test_what_is_this_machine() -> None:
    assert all(Address(url).is_loopback for url in ("localhost", "127.0.0.1:1", "http://[::1]:9"))
    assert not any(Address(url).is_loopback for url in ("gpu-box", "http://10.0.0.1", "http://localhost.evil"))


def test_looking_where_nobody_is_imports_no_client() -> None:
    script = (
        "import asyncio, sys\nfrom velollm_core.backends.openai import OpenAIBackend\n"
        f"print(asyncio.run(OpenAIBackend({unused_url()!r}).status()).reachable, 'aiohttp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "False"]
