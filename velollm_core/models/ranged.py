"""Read the beginning of a remote file by range requests, as little of it as its header needs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import frozen

from velollm_core.errors import ModelFileError
from velollm_core.models.gguf import next_read
from velollm_core.models.gguf_cursor import HeaderIncomplete

if TYPE_CHECKING:
    import aiohttp

Parsed = TypeVar("Parsed")
Parse = Callable[[str, bytes, int], Parsed]
"""Parses the beginning of the file so called, of so many bytes in all; raises `HeaderIncomplete` for more."""

FIRST_REQUEST = 2 << 20
UNKNOWN_SIZE = 1 << 62
TOTAL_SECONDS, CONNECT_SECONDS, SILENT_SECONDS = 120, 10, 20
_CONTENT_RANGE = re.compile(r"bytes (?P<first>\d+)-\d+/(?P<size>\d+|\*)")


@frozen
class Start(Generic[Parsed]):
    """What was parsed, the bytes that it took, and the size of the whole file, None where the server did not say."""

    parsed: Parsed
    data: bytes
    size: int | None


def open_session(token: str | None = None) -> aiohttp.ClientSession:
    """A session with bounds on time, which honours the environment's proxies; ``token`` is sent as a bearer."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=TOTAL_SECONDS, connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return aiohttp.ClientSession(timeout=timeout, headers=headers, trust_env=True)


async def read_start(session: aiohttp.ClientSession, url: str, name: str, parse: Parse[Parsed]) -> Start[Parsed]:
    """Parse the file called ``name`` at ``url``, asking for more of it for as long as ``parse`` wants more.

    A server that ignores ranges is read only as far as needed, then left.

    Raises:
        ModelFileError: the server cannot be reached or refuses, or the file is unsound.
    """
    data, wanted = b"", FIRST_REQUEST
    while True:
        try:
            async with session.get(url, headers={"Range": f"bytes={len(data)}-{wanted - 1}"}) as response:
                _check(response, name)
                if response.status != 206:
                    return await _from_stream(response, name, parse)
                size = _ranged_size(response, name, len(data))
                data += await _read(response, wanted - len(data))
        except _network_errors() as error:
            raise unreachable(name, url, error) from error
        try:
            return Start(parse(name, data, size or UNKNOWN_SIZE), data, size)
        except HeaderIncomplete as incomplete:
            if size is not None and len(data) >= size:
                raise
            wanted = next_read(name, len(data), incomplete.needed)


async def read_whole(session: aiohttp.ClientSession, url: str, name: str, most: int) -> bytes:
    """A small file in whole.

    Raises:
        ModelFileError: the server cannot be reached or refuses, or the file is longer than ``most`` bytes.
    """
    try:
        async with session.get(url) as response:
            _check(response, name)
            data = await _read(response, most + 1)
    except _network_errors() as error:
        raise unreachable(name, url, error) from error
    if len(data) > most:
        raise ModelFileError(f"{name}: longer than {most} bytes, which no real one is")
    return data


class Missing(ModelFileError):
    """The server has no such file."""


class Unreachable(ModelFileError):
    """The server could not be reached."""


def unreachable(name: str, url: str, error: BaseException) -> Unreachable:
    """The error for a server that does not answer."""
    return Unreachable(f"{name}: {url.split('?')[0]} cannot be reached: {error or type(error).__name__}")


async def _from_stream(response: aiohttp.ClientResponse, name: str, parse: Parse[Parsed]) -> Start[Parsed]:
    size = response.content_length if not response.headers.get("Content-Encoding") else None
    data, wanted = b"", FIRST_REQUEST
    while True:
        more = await _read(response, wanted - len(data))
        data += more
        ended = not more or (size is not None and len(data) >= size)
        try:
            return Start(parse(name, data, size or (len(data) if ended else UNKNOWN_SIZE)), data, size)
        except HeaderIncomplete as incomplete:
            if ended:
                raise
            wanted = next_read(name, len(data), incomplete.needed)


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    pieces: list[bytes] = []
    while most > 0 and (piece := await response.content.read(min(most, 1 << 20))):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)


def _check(response: aiohttp.ClientResponse, name: str) -> None:
    status = response.status
    if status in (200, 206):
        return
    if status in (401, 403):
        raise ModelFileError(
            f"{name}: access refused ({status}); if the model is gated, accept its terms and set HF_TOKEN"
        )
    if status == 404:
        raise Missing(f"{name}: there is no such file (404)")
    raise ModelFileError(f"{name}: the server answered {status} {response.reason or ''}".rstrip())


def _ranged_size(response: aiohttp.ClientResponse, name: str, have: int) -> int | None:
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None or int(match["first"]) != have:
        raise ModelFileError(f"{name}: the server sent another range than was asked for")
    return None if match["size"] == "*" else int(match["size"])


def _network_errors() -> tuple[type[BaseException], ...]:
    import aiohttp

    return (aiohttp.ClientError, TimeoutError, OSError, ValueError)
