"""What an engine is known to do, for those who ask whether it is there."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from attrs import define, field

if TYPE_CHECKING:
    from velollm_core.engine.scheduling import SchedulerStats
    from velollm_core.engine.streams import StreamingEngine

PATIENCE_SECONDS = 0.1


@define(eq=False)
class Health:
    """Lets an engine's last word stand until it has another; all from one event loop.

    An engine answers between two steps, and on a processor one step of a long prompt takes seconds: who watches it
    would take it for dead.
    """

    engine: StreamingEngine
    _known: tuple[SchedulerStats, float] | None = field(init=False, default=None)
    _asked: asyncio.Task[None] | None = field(init=False, default=None)

    async def look(self) -> dict[str, int | float | None]:
        """``running`` and ``waiting`` requests, and ``age_seconds``, how old these counts are; null is unknown.

        Raises:
            VeloError: the engine has failed.
        """
        # One question at a time: more would only queue up behind the same step.
        if self._asked is None or self._asked.done():
            self._asked = asyncio.create_task(self._ask())
            self._asked.add_done_callback(_take_notice)
        asked = self._asked
        await asyncio.wait({asked}, timeout=PATIENCE_SECONDS)
        if asked.done():
            asked.result()
        if self.engine.failure is not None:
            raise self.engine.failure
        if self._known is None:
            return {"running": None, "waiting": None, "age_seconds": None}
        stats, at = self._known
        return {"running": stats.running, "waiting": stats.waiting, "age_seconds": round(time.monotonic() - at, 3)}

    async def _ask(self) -> None:
        self._known = await self.engine.stats(), time.monotonic()


def _take_notice(asked: asyncio.Task[None]) -> None:
    """Of a failure that came after everybody had left: asyncio would complain that nobody has."""
    if not asked.cancelled():
        asked.exception()
