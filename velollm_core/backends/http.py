"""The base of every backend over HTTP: it owns the connection and the only stream loop."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from velollm_core.backends.client import HttpClient, Timeouts, client_errors
from velollm_core.backends.failures import one_line, stream_error
from velollm_core.backends.silence import SilenceGuard
from velollm_core.backends.sse import EventStream
from velollm_core.backends.status import Status
from velollm_core.config import variable
from velollm_core.errors import BackendError, VeloError

if TYPE_CHECKING:
    from aiohttp import ClientResponse

    from velollm_core.backends.framing import Framing
    from velollm_core.backends.request import Chunk, Request

Event = dict[str, Any]
STATUS_SECONDS = 2.0
DRAIN_SECONDS = 0.25


class HttpBackend(ABC):
    """A `Backend` over HTTP. A subclass names itself and gives `path`, `payload`, `chunk` and `look`, all pure
    but the last; sessions, time limits, framing and errors are here, once for all.
    """

    name: str = ""
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, url: str, api_key: str | None = None, timeouts: Timeouts | None = None) -> None:
        """``url`` is the server's root; nothing is connected before the first call."""
        self.client = HttpClient(self.name, url, api_key, timeouts or Timeouts(), self.headers)

    @property
    def url(self) -> str:
        """The server's root as it may be shown: without an end slash, without a password."""
        return self.client.address.shown

    @abstractmethod
    def path(self, request: Request) -> str:
        """The endpoint that answers ``request``."""

    @abstractmethod
    def payload(self, request: Request) -> dict[str, Any]:
        """``request`` in the server's words."""

    @abstractmethod
    def chunk(self, event: Event) -> Chunk | None:
        """One event in ours; None for an event that says nothing. Error objects never get here."""

    @abstractmethod
    async def look(self) -> Status:
        """Ask the server who it is and what it serves; may raise, and may take long."""

    def framing(self) -> Framing:
        """A fresh parser for one stream."""
        return EventStream()

    async def status(self) -> Status:
        """`look`, bounded to `STATUS_SECONDS`; every failure is a `Status` with its reason."""
        try:
            async with asyncio.timeout(STATUS_SECONDS):
                await self.client.knock()
                return await self.look()
        except TimeoutError:
            reason = f"{self.client} does not answer within {STATUS_SECONDS:g} s"
        except VeloError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - a look never fails, whatever the other side says
            reason = f"{self.client} gives an answer not understood ({one_line(repr(error))})"
        return Status(reachable=False, reason=reason, location=self.url)

    async def stream(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Answer ``request`` piece by piece; raises `BackendError` when the server refuses or breaks off.

        Who stops early calls ``aclose()`` (or uses ``contextlib.aclosing``), which hangs up on the server.
        """
        framing, limits, finished = self.framing(), self.client.timeouts, False
        async with self.client.open("POST", self.path(request), self.payload(request)) as response:
            with SilenceGuard(response, limits.first_byte) as guard:
                while not framing.ended:
                    data = await self._read(guard)
                    for event in self._events(framing, data):
                        chunk = self._chunk(event, at_end=not data)
                        if chunk is not None:
                            finished = finished or chunk.finish_reason is not None
                            yield chunk
                    if not data:
                        break
                    guard.limit = limits.chunk
            if framing.ended:
                await _drain(response)
        if not (framing.ended if framing.has_end_marker else finished):
            raise self._truncated()

    async def own_page(self, path: str) -> dict[str, Any]:
        """The JSON object at ``path``, a page that only this kind of server has; another kind is `stranger`."""
        try:
            page = await self.client.read_json("GET", path)
        except BackendError as error:
            if error.status not in (404, 405) and error.kind != "malformed":
                raise
            raise self.stranger() from error
        if not isinstance(page, dict):
            raise self.stranger()
        return page

    def stranger(self) -> BackendError:
        """What to raise where another server answers at this address."""
        text = f"{self.url} answers, but it is not {self.name}; set {variable(self.name, 'url')}"
        return BackendError(text, kind="identity")

    async def close(self) -> None:
        """Close the connections; closing again does nothing."""
        await self.client.close()

    async def _read(self, guard: SilenceGuard) -> bytes:
        try:
            return await guard.read()
        except client_errors() as error:
            if guard.expired:
                text = f"{self.client} sent nothing for {guard.limit:g} s"
                raise BackendError(text, kind="timeout") from error
            raise self._truncated() from error

    def _events(self, framing: Framing, data: bytes) -> list[bytes]:
        try:
            return framing.feed(data) if data else framing.flush()
        except BackendError as error:
            raise BackendError(f"{self.client}: {error}", kind=error.kind) from error

    def _chunk(self, data: bytes, *, at_end: bool) -> Chunk | None:
        try:
            event = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise (self._truncated() if at_end else self._malformed(data)) from error
        if not isinstance(event, dict):
            raise self._malformed(data)
        if failure := event.get("error"):
            raise stream_error(str(self.client), failure)
        try:
            return self.chunk(event)
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise self._malformed(data) from error

    def _malformed(self, data: bytes) -> BackendError:
        text = one_line(data[:200].decode(errors="replace"))
        return BackendError(f"{self.client} sent an event not understood: {text}", kind="malformed")

    def _truncated(self) -> BackendError:
        return BackendError(f"{self.client} closed the stream before its end", kind="truncated")


async def _drain(response: ClientResponse) -> None:
    """Read the transfer's own end, so that the connection can serve again; a server that lingers loses it."""
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            await response.content.readany()
    except client_errors():
        response.close()
