"""Start one engine with one model and wait until it answers, or say why it does not."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from velollm_core.backends.client import HttpClient, Timeouts
from velollm_core.errors import BackendError, BackendUnreachable
from velollm_llamacpp.engines import HOST
from velollm_llamacpp.process import ServerProcess
from velollm_llamacpp.readback import reported

if TYPE_CHECKING:
    from velollm_core.backends.setting import Value
    from velollm_llamacpp.engines import Engine

NAME = "llamacpp"
LEAST_LOAD_SECONDS = 120.0
SLOWEST_DISK = 50e6
"""Bytes a second: a load slower than this is taken for a hang."""

PORT_TRIES = 3
POLL_SECONDS = 0.05
LOOK_SECONDS = 2.0


@frozen
class Launch:
    """What a server is started with: the model's path, and settings by their flags."""

    model: str
    values: Mapping[str, Value]


@frozen
class Server:
    """A server of our own that answers."""

    engine: Engine
    launch: Launch
    process: ServerProcess
    client: HttpClient

    async def report(self) -> dict[str, Value]:
        """The settings that it says it runs with."""
        return await report(self.client, self.process)

    async def busy_slots(self) -> int:
        """How many of its slots work on a request now."""
        slots = await self.client.read_json("GET", "/slots", seconds=LOOK_SECONDS)
        return sum(bool(slot.get("is_processing")) for slot in slots)

    async def stop(self) -> None:
        """End it and close the connections to it."""
        try:
            await self.client.close()
        finally:
            self.process.stop()


async def start(
    engine: Engine, launch: Launch, timeouts: Timeouts, headers: Mapping[str, str], seconds: float | None = None
) -> Server:
    """Start ``engine`` with ``launch``; returns once it is healthy.

    ``seconds`` bounds the load; by default as long as a slow disk would take for the model.

    Raises:
        BackendError: it refused, crashed or hung; the text has its own reason. Nothing is left running.
    """
    limit = seconds if seconds is not None else load_seconds(launch.model)
    for attempt in range(PORT_TRIES):
        port = free_port()
        command = engine.command(launch.model, launch.values, port)
        process = ServerProcess(command, engine.environment())
        client = HttpClient(NAME, f"http://{HOST}:{port}", None, timeouts, headers)
        server = Server(engine, launch, process, client)
        try:
            if await _healthy(server, limit):
                return server
        except BaseException:
            await server.stop()
            raise
        reason = process.reason
        await server.stop()
        if "bind" not in reason or attempt == PORT_TRIES - 1:
            break
    raise BackendError(f"{NAME}: {engine.location} did not start with {launch.model}: {reason}", kind="start")


async def report(client: HttpClient, process: ServerProcess | None) -> dict[str, Value]:
    """What the server behind ``client`` says; its log too where it is ours.

    Raises:
        BackendError: it does not answer as a llama-server does.
    """
    props = await client.read_json("GET", "/props", seconds=LOOK_SECONDS)
    try:
        slots: Any = await client.read_json("GET", "/slots", seconds=LOOK_SECONDS)
    except BackendUnreachable:
        raise
    except BackendError:
        slots = []  # --no-slots
    if not isinstance(props, dict) or not isinstance(slots, list):
        raise BackendError(f"{client} does not answer as a llama-server does", kind="malformed")
    return reported(props, slots, process.log if process else ())


def load_seconds(model: str) -> float:
    """How long a load may take."""
    try:
        size = Path(model).stat().st_size
    except OSError:
        size = 0
    return LEAST_LOAD_SECONDS + size / SLOWEST_DISK


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


async def _healthy(server: Server, limit: float) -> bool:
    """True once it answers; False when it has ended.

    Raises:
        BackendError: it runs, but does not answer within ``limit`` seconds.
    """
    deadline = time.monotonic() + limit
    while server.process.alive:
        try:
            await server.client.read("GET", "/health", seconds=min(LOOK_SECONDS, limit))
        except BackendError:
            pass
        else:
            return server.process.alive
        if time.monotonic() > deadline:
            raise BackendError(f"{NAME}: {server.launch.model} did not load within {limit:g} s", kind="timeout")
        await asyncio.sleep(POLL_SECONDS)
    return False
