"""A steady batch of decodes: what the host costs a step, and how long the device waits for it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from attrs import define, field

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.executor import Executor
from velollm_core.engine.loop import EngineLoop, RetiredStep
from velollm_core.engine.output import SchedulerOutput
from velollm_core.engine.results import StepResults
from velollm_core.engine.sequence import Sequence as EngineSequence
from velollm_cuda.bench.figure import Bar, Figure, Measurement
from velollm_cuda.bench.trace import Idleness, largest, profiled
from velollm_cuda.bench.workloads import PromptOfLength
from velollm_cuda.engine import Engine

WARM = 10
STEPS = 50
SHOWN = 8
MOST_IDLE = 0.05


@define
class TimedExecutor:
    """Hands everything on, and keeps how long each call took; seconds."""

    inner: Executor
    launches: list[float] = field(factory=list)
    waits: list[float] = field(factory=list)

    @property
    def depth(self) -> int:
        """The inner one's."""
        return self.inner.depth

    def launch(self, output: SchedulerOutput) -> None:
        """Begin a step."""
        start = time.perf_counter()
        self.inner.launch(output)
        self.launches.append(time.perf_counter() - start)

    def collect(self) -> StepResults:
        """Wait for the oldest step."""
        start = time.perf_counter()
        results = self.inner.collect()
        self.waits.append(time.perf_counter() - start)
        return results

    def close(self) -> None:
        """The inner one goes on."""


def measure_steady(engine: Engine, requests: Sequence[PromptOfLength], judged: bool) -> tuple[list[Measurement], Bar]:
    """All of ``requests`` decoding together: host time of a step, the device's idleness, and its largest kernels."""
    timed = TimedExecutor(engine.loop.executor)
    loop = EngineLoop(engine.loop.scheduler, timed)
    for number, request in enumerate(requests):
        sampling = SamplingParams(max_tokens=2 * STEPS + 8 * WARM, ignore_eos=True)
        loop.scheduler.add(EngineSequence(f"steady-{number}", list(request.token_ids), sampling, use_cache=False))
    steps = loop.run()
    while next(steps).output.chunks:
        pass
    _steps(steps, WARM)
    host = _host(steps, timed)
    spans = profiled(lambda: _steps(steps, STEPS))
    for _ in steps:
        pass
    idle = Idleness.of(spans)
    waiting = Figure.of([idle.between / idle.span], "of the time")
    device = {
        "device busy": Figure.of([idle.busy / idle.span], "of the time"),
        "idle between replays": waiting,
        "a step": Figure.of([idle.span / STEPS], "µs"),
    }
    kernels = {name[:60]: Figure.of([total / STEPS], "µs") for name, total in largest(spans, SHOWN)}
    name = f"steady decode of {len(requests)}"
    measurements = [Measurement(name, host | device), Measurement(f"{name}, a step's largest kernels", kernels)]
    return measurements, Bar.no_more(f"{name}, idle between replays", waiting, MOST_IDLE, judged=judged)


def _host(steps: Iterator[RetiredStep], timed: TimedExecutor) -> dict[str, Figure]:
    """What a step costs the host besides waiting for the device."""
    timed.launches.clear()
    timed.waits.clear()
    whole = []
    for _ in range(STEPS):
        start = time.perf_counter()
        next(steps)
        whole.append(time.perf_counter() - start)
    busy = [(total - wait) * 1e6 for total, wait in zip(whole, timed.waits, strict=False)]
    launches = [each * 1e6 for each in timed.launches]
    return {"host": Figure.of(busy, "µs a step"), "of it launching": Figure.of(launches, "µs")}


def _steps(steps: Iterator[RetiredStep], count: int) -> None:
    for _ in range(count):
        next(steps)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
