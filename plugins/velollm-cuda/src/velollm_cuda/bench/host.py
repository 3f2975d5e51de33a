"""Part ``host``: what scheduler and block manager cost a step, with a device that answers at once; runs anywhere."""

from __future__ import annotations

import time
from collections import deque

from attrs import define, field

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.defaults import default_block_manager, default_scheduler
from velollm_core.engine.layout import KVCacheLayout
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.loop import EngineLoop
from velollm_core.engine.output import SchedulerOutput
from velollm_core.engine.results import StepResults
from velollm_core.engine.sequence import Sequence
from velollm_cuda.bench.figure import Figure, Measurement
from velollm_cuda.bench.models import LONGEST, SEQUENCES
from velollm_cuda.bench.workloads import MODELS, requests

MEMORY = 64 << 30
PROMPT = 1024
LOOKUPS = 50
ROUNDS = 3


@define
class InstantExecutor:
    """Answers every step with the same token, one step late like the engine's own."""

    depth: int = 2
    _rows: deque[int] = field(init=False, factory=deque)

    def launch(self, output: SchedulerOutput) -> None:
        """Begin a step."""
        self._rows.append(len(output.decodes) + sum(chunk.samples for chunk in output.chunks))

    def collect(self) -> StepResults:
        """The oldest step's tokens."""
        return StepResults([1000] * self._rows.popleft())

    def close(self) -> None:
        """Nothing is held."""


def measure_host(count: int = SEQUENCES) -> list[Measurement]:
    """The first ``count`` requests of the 1B list through the loop, and a look for a prompt's prefix."""
    steady: list[float] = []
    whole: list[float] = []
    for number in range(ROUNDS):
        times = _steps(number, count)
        whole.append(1e6 * sum(seconds for seconds, _ in times) / len(times))
        steady += [1e6 * seconds for seconds, decodes in times if decodes == count]
    figures = {"a step": Figure.of(whole, "µs")}
    if steady:
        figures[f"a step of {count} decodes"] = Figure.of(steady, "µs")
    return [Measurement(f"host, {count} requests of the 1b list", figures), _lookup()]


def _steps(number: int, count: int) -> list[tuple[float, int]]:
    """Seconds of each step, and how many sequences it decodes where it does nothing else."""
    loop = _loop()
    for index, request in enumerate(requests("1b")[:count]):
        sampling = SamplingParams(max_tokens=request.output, ignore_eos=True)
        loop.scheduler.add(Sequence(f"{number}-{index}", list(request.token_ids), sampling, use_cache=False))
    times = []
    while not loop.is_idle:
        begun = time.perf_counter()
        retired = loop.step()
        seconds = time.perf_counter() - begun
        if retired is not None:
            times.append((seconds, 0 if retired.output.chunks else len(retired.output.decodes)))
    return times


def _lookup() -> Measurement:
    """A prompt of 1024 tokens that the cache holds already."""
    loop = _loop()
    blocks = loop.scheduler.blocks
    prompt = list(range(PROMPT))
    loop.scheduler.add(Sequence("first", prompt, SamplingParams(max_tokens=1, ignore_eos=True)))
    for _ in loop.run():
        pass
    times = []
    for number in range(LOOKUPS):
        again = Sequence(f"again-{number}", list(prompt), SamplingParams(max_tokens=1))
        begun = time.perf_counter()
        blocks.match(again)
        times.append((time.perf_counter() - begun) * 1e6)
        blocks.free(again)
    return Measurement(f"host, a prefix of {PROMPT} tokens", {"lookup": Figure.of(times, "µs")})


def _loop() -> EngineLoop:
    shape = MODELS["1b"]
    layout = KVCacheLayout.uniform(shape.layers, shape.kv_heads, shape.head_size)
    blocks = default_block_manager(layout, MEMORY)
    limits = SchedulerLimits(max_num_seqs=SEQUENCES, max_model_len=LONGEST)
    return EngineLoop(default_scheduler(limits, blocks), InstantExecutor())
