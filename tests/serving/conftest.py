"""A server over a pretended model, with the engine behind it to look into."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from attrs import define, evolve

from velollm_core.engine.async_engine import AsyncEngine
from velollm_core.engine.defaults import default_block_manager, default_scheduler
from velollm_core.engine.layout import KVCacheLayout, KVGroup
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.loop import EngineLoop
from velollm_core.engine.output import SchedulerOutput
from velollm_core.engine.results import StepResults
from velollm_core.serving.server import running
from velollm_core.serving.service import Service
from velollm_core.testing.cache_executor import CacheExecutor, expected_tokens
from velollm_core.testing.letters import LetterModel

LAYOUT = KVCacheLayout((KVGroup(1, 4),), 4)


class PacedExecutor(CacheExecutor):
    """Takes ``pause`` seconds a step. A token's log probability is less its fortieth; those after it follow it."""

    pause = 0.0

    def __init__(self, layout: KVCacheLayout, *, lateness: int) -> None:
        super().__init__(layout, lateness=lateness)
        self._asking: deque[dict[int, int]] = deque()

    def launch(self, output: SchedulerOutput) -> None:
        params = [sequence.sampling for sequence in output.sampled]
        self._asking.append({row: each.top_logprobs for row, each in enumerate(params) if each.logprobs})
        super().launch(output)

    def collect(self) -> StepResults:
        time.sleep(self.pause)
        results = super().collect()
        tokens, asking = results.token_ids, self._asking.popleft()
        ranked = {
            row: tuple(((tokens[row] + n) % 50, float(-n)) for n in range(count)) for row, count in asking.items()
        }
        return evolve(
            results,
            logprobs={row: (-tokens[row] / 40,) for row in asking},
            alternatives={row: (each,) for row, each in ranked.items() if each},
        )


@define
class Served:
    """A running server: its URL, a session to ask it with, and what is behind it."""

    url: str
    session: aiohttp.ClientSession
    engine: AsyncEngine
    loop: EngineLoop
    model: LetterModel

    async def ask(self, path: str, body: object, **headers: str) -> tuple[int, Any]:
        """Status and document of a POST."""
        async with self.session.post(self.url + path, json=body, headers=headers) as response:
            return response.status, await response.json()

    def expect(self, prompt: list[int], count: int, seed: int = 0) -> str:
        """The text that the pretended model gives."""
        return self.model.decode(expected_tokens(prompt, count, seed))

    async def idle(self) -> None:
        """Wait until the engine is empty; it must not have leaked a block."""
        for _ in range(3000):
            stats = await self.engine.stats()
            if not stats.running + stats.waiting + stats.leaving:
                break
            await asyncio.sleep(0.002)
        assert not self.loop.scheduler.has_work
        assert self.loop.scheduler.blocks.usage().used == 0


Scenario = Callable[[Served], Coroutine[None, None, None]]
Serve = Callable[..., None]


@asynccontextmanager
async def _served(
    pause: float, api_key: str | None, max_waiting: int, limits: SchedulerLimits, stop_ids: frozenset[int],
    **options: Any,
) -> AsyncGenerator[Served, None]:  # fmt: skip
    executor = PacedExecutor(LAYOUT, lateness=1)
    executor.pause = pause
    blocks = default_block_manager(LAYOUT, 400 * LAYOUT.bytes_per_block[0])
    loop = EngineLoop(default_scheduler(limits, blocks), executor)
    engine = AsyncEngine(loop, max_waiting=max_waiting)
    model = LetterModel(stop_ids=stop_ids)
    try:
        service = Service(engine, model, limits.max_model_len, **options)
        async with running(service, api_key=api_key) as url, aiohttp.ClientSession() as session:
            yield Served(url, session, engine, loop, model)
    finally:
        engine.close()


@pytest.fixture
def serve() -> Serve:
    """Run a scenario against a fresh server; at its end the engine must be empty, unless the scenario closes it.

    ``options`` are those of `Service`.
    """

    def run(
        scenario: Scenario,
        *,
        pause: float = 0.0,
        api_key: str | None = None,
        max_waiting: int = 256,
        limits: SchedulerLimits | None = None,
        stop_ids: frozenset[int] = frozenset(),
        closes: bool = False,
        **options: Any,
    ) -> None:
        bounds = limits or SchedulerLimits(16, 128, 500)

        async def whole() -> None:
            async with _served(pause, api_key, max_waiting, bounds, stop_ids, **options) as served:
                await scenario(served)
                if not closes:
                    await served.idle()

        asyncio.run(whole())

    return run
