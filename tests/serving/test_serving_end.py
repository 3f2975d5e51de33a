"""What becomes of requests when the server ends."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from velollm_core.serving import server, service
from velollm_core.serving.server import running
from velollm_core.serving.service import Service

Serve = Callable[..., None]
COMPLETIONS = "/v1/completions"
GRACE, FAREWELL = 0.6, 0.2
LONG = {"prompt": "x", "max_tokens": 450}


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "GRACE_SECONDS", GRACE)
    for module in (server, service):
        monkeypatch.setattr(module, "FAREWELL_SECONDS", FAREWELL)


async def ask(url: str, body: dict[str, object]) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.post(url + COMPLETIONS, json=body) as response:
        return response.status, await response.text()


async def end_under(served: Any, *bodies: dict[str, object]) -> tuple[list[tuple[int, str]], float]:
    """Answers to ``bodies`` from a server that is told to end once all of them run, and how long it took to."""
    async with running(Service(served.engine, served.model, 500)) as url:
        asking = [asyncio.create_task(ask(url, body)) for body in bodies]
        while (await served.engine.stats()).running < len(bodies):
            await asyncio.sleep(0.001)
        began = time.monotonic()
    took = time.monotonic() - began
    return await asyncio.gather(*asking), took


def test_what_is_not_done_in_time_is_told_why(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        (whole, streamed), took = await end_under(served, LONG, LONG | {"stream": True})
        assert whole[0] == 503
        assert json.loads(whole[1])["error"]["message"] == "the server is ending"
        *_, last, done, end = streamed[1].split("\n\n")
        assert json.loads(last.removeprefix("data: "))["error"]["message"] == "the server is ending"
        assert (streamed[0], done, end) == (200, "data: [DONE]", "")
        assert GRACE * 0.9 < took < GRACE * 1.8

    serve(scenario, pause=0.02)


def test_what_is_done_in_time_is_answered_whole(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        [(status, answer)], took = await end_under(served, {"prompt": [1], "max_tokens": 10, "seed": 0})
        assert (status, json.loads(answer)["choices"][0]["text"]) == (200, served.expect([1], 10))
        assert took < GRACE

    serve(scenario, pause=0.005)


def test_who_does_not_read_holds_up_no_end(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        body = json.dumps({"prompt": "x", "max_tokens": 450, "n": 128, "stream": True}).encode()
        head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with socket.socket() as silent:
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            async with running(Service(served.engine, served.model, 500)) as url:
                silent.connect(("127.0.0.1", int(url.rsplit(":", 1)[1])))
                silent.sendall(head + body)
                while not (await served.engine.stats()).running:
                    await asyncio.sleep(0.001)
                began = time.monotonic()
            assert time.monotonic() - began < GRACE * 1.8

    serve(scenario, pause=0.002)
