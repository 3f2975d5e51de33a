"""A scripted HTTP server on the loopback, in a thread of its own, that can also fail in every way a real one does."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from velollm_core.testing.reply import Answer, Reply, Seen, document

START_SECONDS = 10.0


class FakeServer:
    """Answers ``"METHOD /path"`` as its script says, anything else with 404; keeps what it saw in ``requests``.

    Use it as a context manager. ``connections`` counts what was accepted, ``hang_ups`` the clients that left
    before their answer was whole.
    """

    def __init__(self, routes: Mapping[str, Answer]) -> None:
        """``routes`` maps ``"POST /v1/completions"`` to a `Reply`, several in turn, or a function of the request."""
        self.routes = dict(routes)
        self.requests: list[Seen] = []
        self.connections = 0
        self.hang_ups = 0
        self.url = ""
        self._turns: dict[str, int] = {}
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(START_SECONDS):
            raise RuntimeError("the fake server did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._loop and self._stop:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_SECONDS)

    def seen(self, route: str) -> list[Seen]:
        """The requests to ``"METHOD /path"`` so far."""
        return [each for each in self.requests if _route(each) == route]

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            task = asyncio.create_task(self._converse(reader, writer))
            tasks[task] = writer
            task.add_done_callback(tasks.pop)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        # Accept no more, then let those just accepted get there: asyncio loses them if the server closes meanwhile.
        self._loop.remove_reader(server.sockets[0].fileno())
        await _settle()
        server.close()
        for task, writer in tasks.items():
            # Both: a task that has not begun yet would not close its connection when cancelled.
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _settle()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ahead = b""
        try:
            while request := await _read_request(reader, ahead):
                self.requests.append(request)
                answer = asyncio.create_task(_write(writer, request, self._reply(request)))
                gone = asyncio.create_task(reader.read(1))
                both: set[asyncio.Task[Any]] = {answer, gone}
                try:
                    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                    if gone.done() and not answer.done() and not gone.result():
                        raise ConnectionAbortedError
                    if not await answer:
                        return
                finally:
                    await _end(*both)
                ahead = b"" if gone.cancelled() else gone.result()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.hang_ups += 1
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _reply(self, request: Seen) -> Reply:
        route = _route(request)
        answer = self.routes.get(route)
        if answer is None:
            return document({"error": {"message": f"no route {route}", "code": 404}}, 404)
        if isinstance(answer, Reply):
            return answer
        if callable(answer):
            return answer(request)
        turn = self._turns.get(route, 0)
        self._turns[route] = turn + 1
        return answer[min(turn, len(answer) - 1)]


def unused_url() -> str:
    """A loopback URL where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def _route(request: Seen) -> str:
    return f"{request.method} {request.path.partition('?')[0]}"


async def _read_request(reader: asyncio.StreamReader, ahead: bytes) -> Seen | None:
    """The next request of the connection, of which ``ahead`` was read already; None when the client is done."""
    try:
        head = ahead + await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial or ahead:
            raise
        return None
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    method, path, _ = first.split(" ", 2)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Seen(method, path, headers, body)


async def _write(writer: asyncio.StreamWriter, request: Seen, reply: Reply) -> bool:
    """Play ``reply``; True if the connection can serve again."""
    await _pause(reply.delay)
    if not reply.raw:
        writer.write(_head(reply))
    for piece in reply.pieces:
        if request.written:
            await _pause(reply.gap)
        writer.write(piece if reply.raw else b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b"")
        await writer.drain()
        request.written.append(time.monotonic())
    if reply.end == "hang":
        await _pause(math.inf)
    if reply.end == "reset":
        writer.transport.abort()
    elif reply.end == "whole" and not reply.raw:
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True
    return False


def _head(reply: Reply) -> bytes:
    lines = [
        f"HTTP/1.1 {reply.status} Scripted",
        f"Content-Type: {reply.content_type}",
        "Transfer-Encoding: chunked",
        *(f"{name}: {value}" for name, value in reply.headers),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def _pause(seconds: float) -> None:
    if math.isinf(seconds):
        await asyncio.Event().wait()
    elif seconds > 0:
        await asyncio.sleep(seconds)


async def _settle() -> None:
    """Let connections that are just being accepted, or just being closed, get there."""
    for _ in range(8):
        await asyncio.sleep(0)


async def _end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
