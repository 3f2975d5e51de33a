"""Keeps the one server that VeloLLM started: replaces it, compares what it reads back, returns to the one before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from velollm_core.errors import BackendError
from velollm_llamacpp.readback import differences
from velollm_llamacpp.server import NAME, Launch, Server, start

if TYPE_CHECKING:
    from velollm_core.backends.client import Timeouts
    from velollm_llamacpp.engines import Engine


class Keeper:
    """At most one server of our own, and what it was started with before."""

    def __init__(self, timeouts: Timeouts, headers: Mapping[str, str], load_seconds: float | None = None) -> None:
        """``headers`` go with every request; ``load_seconds`` bounds each start, by default as a slow disk would."""
        self.server: Server | None = None
        self._timeouts = timeouts
        self._headers = headers
        self._load_seconds = load_seconds
        self._before: Launch | None = None
        self._replaced = False

    async def replace(self, engine: Engine, launch: Launch) -> None:
        """Run ``launch`` instead of what runs now. The old server ends first: two may not fit into memory.

        Raises:
            BackendError: requests are in flight, the server does not load, or it reads back otherwise than asked;
                in the last two cases what ran before runs again.
        """
        await self._refuse_while_busy()
        before = self.server.launch if self.server else None
        self._before, self._replaced = None, False
        await self._end()
        try:
            await self._start(engine, launch)
        except BackendError as error:
            await self._end()
            if before is None:
                raise
            await self._start(engine, before)
            raise BackendError(f"{error}; the settings before are in force again", kind=error.kind) from error
        except BaseException:
            await self._end()
            raise
        self._before, self._replaced = before, True

    async def roll_back(self, engine: Engine) -> None:
        """Run what ran before the last `replace`, which may be nothing."""
        if not self._replaced:
            return
        before = self._before
        await self.stop()
        if before is not None:
            await self._start(engine, before)

    async def stop(self) -> None:
        """End the server, and forget what ran before."""
        await self._end()
        self._before, self._replaced = None, False

    async def explained(self, error: BackendError) -> BackendError:
        """``error``, or the server's own reason where it has just died."""
        # An answer with a status is no sign of death.
        if self.server is None or error.status is not None or not await self.server.process.ended_soon():
            return error
        reason = self.server.process.reason
        return BackendError(f"{NAME}: the server died while it answered: {reason}", kind="crash")

    async def _start(self, engine: Engine, launch: Launch) -> None:
        self.server = await start(engine, launch, self._timeouts, self._headers, self._load_seconds)
        if wrong := differences(launch.values, await self.server.report()):
            raise BackendError(f"{NAME}: {'; '.join(wrong)}", kind="readback")

    async def _end(self) -> None:
        server, self.server = self.server, None
        if server is not None:
            await server.stop()

    async def _refuse_while_busy(self) -> None:
        if self.server is None or not self.server.process.alive:
            return
        if busy := await self.server.busy_slots():
            reason = f"{self.server.client} has {busy} requests in flight: it is not restarted now"
            raise BackendError(reason, kind="busy")
