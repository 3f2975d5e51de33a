"""`/health` while the engine is in the middle of something."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from velollm_core.engine.scheduling import SchedulerStats
from velollm_core.errors import BackendError
from velollm_core.serving.health import Health

Serve = Callable[..., None]


async def health(served: Any) -> dict[str, Any]:
    async with served.session.get(served.url + "/health") as response:
        assert response.status == 200
        found: dict[str, Any] = await response.json()
        return found


async def settled(served: Any, running: int) -> dict[str, Any]:
    """The answer once it is of now and counts ``running`` requests."""
    while (found := await health(served))["running"] != running:
        await asyncio.sleep(0.01)
    return found


def test_an_idle_engine_answers_for_itself(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        found = await health(served)
        assert 0 <= found.pop("age_seconds") < 5
        assert found == {"status": "ok", "running": 0, "waiting": 0}

    serve(scenario)


def test_it_answers_while_a_step_lasts(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(served: Any) -> None:
        goes_on, collect = threading.Event(), served.loop.executor.collect
        goes_on.set()
        monkeypatch.setattr(served.loop.executor, "collect", lambda: collect() if goes_on.wait(30) else None)
        request = asyncio.create_task(served.ask("/v1/completions", {"prompt": "x", "max_tokens": 400}))
        await settled(served, 1)
        goes_on.clear()
        # The step that comes next holds the engine; what it said before stands, and grows old.
        while (await health(served))["age_seconds"] < 0.2:
            pass
        found = await asyncio.gather(*(health(served) for _ in range(20)))
        assert {each["running"] for each in found} == {1}
        assert all(each["age_seconds"] > 0.2 for each in found)
        goes_on.set()
        await request
        await settled(served, 0)

    serve(scenario, pause=0.001)


class Silent:
    """An engine that does not answer before it is told to, by a future."""

    def __init__(self) -> None:
        self.failure: BackendError | None = None
        self.asked: list[asyncio.Future[SchedulerStats]] = []

    async def stats(self) -> SchedulerStats:
        self.asked.append(asyncio.get_running_loop().create_future())
        return await self.asked[-1]


def test_what_nobody_has_said_yet_is_unknown_and_asked_once() -> None:
    async def scenario() -> None:
        engine = Silent()
        watched = Health(engine)  # type: ignore[arg-type]
        unknown = {"running": None, "waiting": None, "age_seconds": None}
        assert await asyncio.gather(*(watched.look() for _ in range(5)), watched.look()) == [unknown] * 6
        assert len(engine.asked) == 1
        engine.asked[0].set_result(SchedulerStats(3, 0, 4, 0, 0, 0, 0))
        found = await watched.look()
        assert (found["running"], found["waiting"], len(engine.asked)) == (3, 4, 1)
        found = await watched.look()
        assert (found["running"], len(engine.asked)) == (3, 2), "old, and asked for again"

    asyncio.run(scenario())


def test_a_failure_is_told_at_once_and_leaves_no_complaint(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        engine = Silent()
        watched = Health(engine)  # type: ignore[arg-type]
        await watched.look()
        engine.failure = BackendError("the process died")
        with pytest.raises(BackendError, match="the process died"):
            await watched.look()
        engine.asked[0].set_exception(engine.failure)
        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert caplog.text == ""
