"""Reading a stream that may fall silent, without a task or a timeout for each piece."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from aiohttp import ClientResponse


class SilenceGuard:
    """One timer a stream: it hangs up when a read has waited ``limit`` seconds, and costs a read only two writes.

    The time that the consumer takes between two reads does not count.
    """

    def __init__(self, response: ClientResponse, limit: float) -> None:
        """``limit`` in seconds may be changed between reads; ``expired`` says that the guard hung up."""
        self.limit = limit
        self.expired = False
        self._response = response
        self._content = response.content
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def read(self) -> bytes:
        """The bytes that have arrived since the last read, waiting for some; empty at the end of the stream."""
        self._since = self._loop.time()
        try:
            return await self._content.readany()
        finally:
            self._since = None

    def __enter__(self) -> Self:
        self._timer = self._loop.call_later(self.limit, self._check)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        now = self._loop.time()
        left = self.limit - (now - self._since if self._since is not None else 0.0)
        if left <= 0:
            self.expired = True
            self._response.close()
        else:
            self._timer = self._loop.call_later(left, self._check)
