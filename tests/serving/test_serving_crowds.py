"""Many clients at once."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from velollm_core.serving.server import serve as serve_until_stopped
from velollm_core.serving.service import Service

Serve = Callable[..., None]
SYSTEM_BOUND = Path("/proc/sys/net/core/somaxconn")
CROWD = 400


@pytest.mark.skipif(not SYSTEM_BOUND.exists() or int(SYSTEM_BOUND.read_text()) < CROWD, reason="fewer may wait here")
def test_a_crowd_that_comes_while_the_server_is_busy_finds_room(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        address = ("127.0.0.1", int(served.url.rsplit(":", 1)[1]))
        with ExitStack() as crowd:
            # The event loop takes none of them meanwhile: it waits for this loop.
            for _ in range(CROWD):
                crowd.enter_context(socket.create_connection(address, timeout=0.5))
        assert (await served.ask("/v1/completions", {"prompt": "x", "max_tokens": 1}))[0] == 200

    serve(scenario)


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of that kind")
def test_a_server_may_have_as_many_connections_as_the_system_allows(serve: Serve) -> None:
    import resource

    seen: list[tuple[int, int]] = []

    def ready(_url: str) -> None:
        seen.append(resource.getrlimit(resource.RLIMIT_NOFILE))
        signal.raise_signal(signal.SIGTERM)

    async def scenario(served: Any) -> None:
        with _few_files(resource):
            service = Service(served.engine, served.model, 500)
            await asyncio.wait_for(serve_until_stopped(service, host="127.0.0.1", port=0, api_key=None, ready=ready), 5)

    serve(scenario)
    assert seen[0][0] >= min(seen[0][1], 4096)


@contextmanager
def _few_files(resource: Any) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
