"""A backend whose speed is known, under a clock that jumps instead of waiting."""

from __future__ import annotations

import asyncio
import json
import os
import random
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from attrs import define, field

from velollm_core.backends.request import Chunk, Request, Usage
from velollm_core.backends.setting import Setting, Value
from velollm_core.backends.status import Status
from velollm_core.benchmark.canary import Canary
from velollm_core.benchmark.conditions import Sources
from velollm_core.errors import BackendError
from velollm_core.testing import Outcome, install_plugin, run_cli
from velollm_core.testing.test_model import write_test_model

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for a timer, moves the clock to it."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            return super().select(None)
        events = super().select(0)
        if not events:
            self.now += max(timeout, 0)
        return events


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


@define
class PacedBackend:
    """Answers with one token a chunk: the first after ``ttft`` seconds, then one each ``gap``, both × noise."""

    name: str = "paced"
    ttft: float = 0.1
    gap: float = 0.02
    sigma: float = 0.0
    seed: int = 0
    cached: int | None = 0
    template_tokens: int = 4
    counts: bool = True
    produced: int | None = None
    failures: list[BackendError | float | None] = field(factory=list)
    load_delay: float = 0.0
    slower: Mapping[Value, float] = field(factory=dict)
    requests: list[Request] = field(factory=list)
    applied: list[tuple[Setting, ...]] = field(factory=list)
    refuses: set[Value] = field(factory=set)
    serving: bool = False
    closed: int = 0
    lanes: int | None = None
    shared: bool = False
    running: int = 0
    fatigue: float = 0.0
    _factor: float = 1.0
    _cold: bool = True
    _gate: asyncio.Semaphore | None = None

    async def status(self) -> Status:
        return Status(reachable=True, version="1", models=("m",), location="nowhere", running=True)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        self.requests.append(request)
        self.serving = True
        self.running += 1
        try:
            async for chunk in self._in_turn(request):
                yield chunk
        finally:
            self.running -= 1

    async def _in_turn(self, request: Request) -> AsyncIterator[Chunk]:
        if self.lanes is not None:
            # As many at a time as it has lanes; the others wait.
            self._gate = self._gate or asyncio.Semaphore(self.lanes)
            async with self._gate:
                async for chunk in self._answer(request):
                    yield chunk
            return
        async for chunk in self._answer(request):
            yield chunk

    async def _answer(self, request: Request) -> AsyncIterator[Chunk]:
        rng = random.Random(f"{self.seed}/{len(self.requests)}")
        tired = 1 + self.fatigue * len(self.requests)
        pace = tired * self._factor * (rng.lognormvariate(0, self.sigma) if self.sigma else 1.0)
        if self._cold:
            self._cold = False
            await asyncio.sleep(self.load_delay)
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, BackendError):
            raise failure
        await asyncio.sleep(self.ttft * pace)
        number = request.sampling.max_tokens if self.produced is None else self.produced
        for index in range(min(number, request.sampling.max_tokens)):
            if index:
                await asyncio.sleep(self.gap * pace * (self.running if self.shared else 1))
            if failure is not None and index == 1:
                await asyncio.sleep(failure)
            yield Chunk(text="x", num_tokens=1 if self.counts else None)
        usage = Usage(
            prompt_tokens=sum(len(text) for text in (request.prompt, *(m.content for m in request.messages))) // 4
            + self.template_tokens,
            completion_tokens=number,
            cached_tokens=self.cached,
        )
        yield Chunk(finish_reason="length", usage=usage if self.counts else None)

    async def close(self) -> None:
        self.closed += 1
        self.serving = False

    async def apply(self, model: object, settings: Sequence[Setting]) -> None:
        await asyncio.sleep(self.load_delay)
        for setting in settings:
            if setting.value in self.refuses:
                raise BackendError(f"paced: cannot load with {setting.name}={setting.value}", kind="load")
        self.applied.append(tuple(settings))
        self.serving = True
        self._factor = 1.0
        for setting in settings:
            self._factor *= self.slower.get(setting.value, 1.0)

    async def read_back(self) -> Mapping[str, Value]:
        return {setting.name: setting.value for setting in (self.applied[-1] if self.applied else ())}

    async def roll_back(self) -> None:
        self.serving = False


@pytest.fixture
def paced() -> type[PacedBackend]:
    """The class of fake backends."""
    return PacedBackend


@pytest.fixture
def virtually() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Runs a coroutine to its end under a clock that jumps."""

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
            return runner.run(coroutine)

    return run


@pytest.fixture
def loop_clock() -> Callable[[], float]:
    """The clock of whatever event loop runs."""
    return lambda: asyncio.get_running_loop().time()


@pytest.fixture
def quiet(tmp_path: Any) -> Sources:
    """A machine without counters, whose canary always takes the same time."""
    return Sources(proc=tmp_path, sys=tmp_path, canary=lambda: Canary(1.0, 1.0))


@pytest.fixture
def paced_cli(tmp_path: Path) -> _PacedCli:
    """Runs the command in a folder with ``model.gguf`` and, for its only plugin, a backend of known ``pace``."""
    plugin = install_plugin(tmp_path / "plugin", "paced", (Path(__file__).parent / "pace.txt").read_text())
    write_test_model(tmp_path / "model.gguf")

    return _PacedCli(tmp_path, plugin)


@define
class _PacedCli:
    folder: Path
    plugin: Path

    def __call__(
        self, *arguments: str, pace: Mapping[str, object] | None = None, only: str = "paced", **options: Any
    ) -> Outcome:
        environment = self._environment(pace, only)
        home = self.folder / "home"
        return run_cli(
            *arguments, plugins=[self.plugin], folder=self.folder, home=home, environment=environment, **options
        )

    def environment(self, pace: Mapping[str, object]) -> dict[str, str]:
        """The whole environment, for a process that the test starts by itself."""
        path = os.pathsep.join([str(self.plugin), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        names = ("CONFIG", "CACHE", "STATE", "DATA")
        places = {f"XDG_{name}_HOME": str(self.folder / "home" / name.lower()) for name in names}
        return {**os.environ, **places, **self._environment(pace, "paced"), "PYTHONPATH": path}

    def _environment(self, pace: Mapping[str, object] | None, only: str) -> dict[str, str]:
        log = str(self.folder / "pace.log")
        return {"VELOLLM_ONLY_PLUGINS": only, "PACE": json.dumps(pace or {}), "PACE_LOG": log}
