"""Running the server until it is told to end."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from velollm_core.connections import allow_connections
from velollm_core.errors import VeloError
from velollm_core.serving.app import make_app
from velollm_core.serving.service import FAREWELL_SECONDS, Service

GRACE_SECONDS = 5.0
MOST_ARRIVALS = 2048
"""Connections that may wait to be taken, where the system's own bound allows it. Whoever is one too many tries again a
second later, then after two more, then four: a crowd must find room while the server is at something else."""
THEIRS = (HttpProcessingError, web.RequestPayloadError)
LOG = logging.getLogger("velollm.serving")


def _is_ours(record: logging.LogRecord) -> bool:
    """What a client sends that is no HTTP is answered with 400; a traceback would call it a failure of ours."""
    return not (record.exc_info and isinstance(record.exc_info[1], THEIRS))


LOG.addFilter(_is_ours)


@asynccontextmanager
async def running(
    service: Service, *, host: str = "127.0.0.1", port: int = 0, api_key: str | None = None
) -> AsyncGenerator[str, None]:
    """Serve while the context is open; gives the server's URL. ``port`` 0 takes a free one.

    Raises:
        VeloError: the address cannot be had.
    """
    # A client that goes away cancels its handler, which ends its sequences.
    runner = web.AppRunner(
        make_app(service, api_key=api_key),
        handler_cancellation=True, shutdown_timeout=GRACE_SECONDS + 2 * FAREWELL_SECONDS, access_log=None, logger=LOG,
    )  # fmt: skip
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=MOST_ARRIVALS)
        try:
            await site.start()
        except OSError as error:
            raise VeloError(f"cannot listen on {host}:{port}: {error.strerror or error}; try another --port") from error
        address = runner.addresses[0]
        name = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
        yield f"http://{name}:{address[1]}"
    finally:
        # Left to aiohttp, requests would have its time twice, and be cut off without a word.
        service.end_within(GRACE_SECONDS)
        await runner.cleanup()


async def serve(service: Service, *, host: str, port: int, api_key: str | None, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, or until the engine fails; ``ready`` is told the URL.

    Raises:
        VeloError: the address cannot be had, or the engine failed; the text says why.
    """
    allow_connections()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(service, host=host, port=port, api_key=api_key) as url:
        ready(url)
        while not stop.is_set() and service.engine.failure is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.5)
    if service.engine.failure is not None and not stop.is_set():
        raise service.engine.failure
