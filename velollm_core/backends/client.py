"""The HTTP client of every backend: sessions, time limits, and one clear line for each way to fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attrs import field, frozen

from velollm_core.backends.failures import nobody_there, refusal, transport_failure
from velollm_core.errors import BackendError, BackendUnreachable

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

MAX_BODY_BYTES = 32 * 2**20
# Servers close idle connections after 5 s (uvicorn, cpp-httplib); a POST on one that is just closing would be lost.
KEEP_ALIVE_SECONDS = 3.0
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@frozen
class Timeouts:
    """Limits in seconds. ``first_byte`` covers loading a model and prefill; ``chunk`` the gap between two pieces."""

    connect: float = 5.0
    first_byte: float = 600.0
    chunk: float = 120.0


def root(text: str) -> str:
    """A server's root from what people write: the scheme may be missing, ``/v1`` may be there."""
    text = text.strip()
    if "://" not in text:
        text = f"http://{text}"
    return text.rstrip("/").removesuffix("/v1").rstrip("/")


@frozen
class Address:
    """A server's root: ``url`` without a path's end slash or ``/v1``, whatever the user wrote."""

    url: str = field(converter=root)

    @property
    def shown(self) -> str:
        """The URL without a name and password, for messages and reports."""
        scheme, mark, rest = self.url.partition("://")
        place, slash, path = rest.partition("/")
        return f"{scheme}{mark}{place.rpartition('@')[2]}{slash}{path}"

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine; no proxy is asked for it."""
        return self.host in LOOPBACK

    @property
    def host(self) -> str:
        """The host's name, empty where the URL has none."""
        try:
            return urlsplit(self.url).hostname or ""
        except ValueError:
            return ""

    @property
    def port(self) -> int:
        """The port, or the scheme's own; 0 where the URL has a bad one."""
        try:
            return urlsplit(self.url).port or (443 if self.url.startswith("https:") else 80)
        except ValueError:
            return 0


class HttpClient:
    """Connections to one server, a session for each running event loop, made when first needed."""

    def __init__(
        self, name: str, url: str, api_key: str | None, timeouts: Timeouts, headers: Mapping[str, str]
    ) -> None:
        """``name`` is the backend's, for messages; ``api_key`` is sent as a bearer token and never shown."""
        self.name = name
        self.address = Address(url)
        self.timeouts = timeouts
        # Identity, so that no proxy holds pieces back to compress them.
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "velollm", **headers}
        if api_key and api_key.strip():
            self._headers["Authorization"] = f"Bearer {api_key.strip()}"
        self._sessions: dict[asyncio.AbstractEventLoop, tuple[ClientSession, AsyncGenerator[ClientSession]]] = {}

    @asynccontextmanager
    async def open(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, seconds: float | None = None
    ) -> AsyncIterator[ClientResponse]:
        """The response, once its headers are there and say 200; raises `BackendError` or `BackendUnreachable`."""
        limit = self.timeouts.first_byte if seconds is None else seconds
        try:
            async with asyncio.timeout(limit):
                response = await self._request(method, path, body)
        except client_errors(ValueError) as error:
            if type(error) is TimeoutError:
                text = f"{self} gave no answer to {path} in {limit:g} s"
                raise BackendUnreachable(text, kind="timeout") from error
            raise transport_failure(str(self), self.name, error) from error
        async with response:
            if response.status >= 300:
                raise refusal(str(self), path, response.status, await self._error_text(response), response.headers)
            yield response

    async def read(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, seconds: float = 10.0
    ) -> bytes:
        """The whole body of the answer, at most `MAX_BODY_BYTES`."""
        try:
            async with asyncio.timeout(seconds), self.open(method, path, body, seconds=seconds) as response:
                data = await self._body(response, MAX_BODY_BYTES)
        except TimeoutError as error:
            raise BackendUnreachable(f"{self} did not finish {path} in {seconds:g} s", kind="timeout") from error
        except client_errors() as error:
            raise BackendError(f"{self} broke off its answer to {path}", kind="truncated") from error
        if len(data) > MAX_BODY_BYTES:
            raise BackendError(f"{self} answers {path} with more than {MAX_BODY_BYTES} bytes", kind="malformed")
        return data

    async def read_json(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, seconds: float = 10.0
    ) -> Any:
        """The answer as a JSON document; anything else is a `BackendError` of kind ``malformed``."""
        data = await self.read(method, path, body, seconds=seconds)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BackendError(f"{self} answers {path} with something that is not JSON", kind="malformed") from error

    async def knock(self) -> None:
        """Raise `BackendUnreachable` where nobody listens on this machine.

        A socket answers that in microseconds; the client library alone takes a quarter of a second to import.
        """
        if not self.address.is_loopback:
            return
        try:
            _, writer = await asyncio.open_connection(self.address.host, self.address.port)
        except OSError as error:
            raise nobody_there(str(self), self.name, error) from error
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def close(self) -> None:
        """Close the sessions of every loop that still runs; closing again does nothing."""
        here = asyncio.get_running_loop()
        while self._sessions:
            loop, (_, keeper) = self._sessions.popitem()
            if loop is here:
                await keeper.aclose()
            elif loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(keeper.aclose(), loop))

    def __str__(self) -> str:
        return f"{self.name} at {self.address.shown}"

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> ClientResponse:
        session = await self._session()
        return await session.request(method, self.address.url + path, json=body, allow_redirects=False)

    async def _session(self) -> ClientSession:
        loop = asyncio.get_running_loop()
        if loop not in self._sessions or self._sessions[loop][0].closed:
            self._sessions = {other: kept for other, kept in self._sessions.items() if not other.is_closed()}
            keeper = self._keep_session()
            self._sessions[loop] = await anext(keeper), keeper
        return self._sessions[loop][0]

    async def _keep_session(self) -> AsyncGenerator[ClientSession]:
        """A session that is closed with its loop: `asyncio.run` ends the generators that are left."""
        import aiohttp

        session = aiohttp.ClientSession(
            # A benchmark opens as many streams as it was asked for: no limit here.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.timeouts.connect),
            trust_env=not self.address.is_loopback,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        try:
            yield session
        finally:
            await session.close()

    async def _error_text(self, response: ClientResponse) -> bytes:
        try:
            async with asyncio.timeout(self.timeouts.connect):
                return await self._body(response, 2**16)
        except client_errors():
            return b""

    @staticmethod
    async def _body(response: ClientResponse, limit: int) -> bytes:
        """At most one read more than ``limit`` bytes."""
        parts: list[bytes] = []
        size = 0
        async for part in response.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > limit:
                break
        return b"".join(parts)


@cache
def client_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """What reading a response may raise, and ``others``; made late: aiohttp's import takes a quarter of a second."""
    import aiohttp

    return (OSError, aiohttp.ClientError, *others)
