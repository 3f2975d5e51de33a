"""Files of samples with known figures, made without measuring anything."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from attrs import evolve

from velollm_core.backends.request import Usage
from velollm_core.benchmark.block import Block
from velollm_core.benchmark.canary import Canary
from velollm_core.benchmark.conditions import Conditions
from velollm_core.benchmark.environment import Environment
from velollm_core.benchmark.noise import Noise
from velollm_core.benchmark.sample import Sample
from velollm_core.benchmark.store import SampleFile
from velollm_core.benchmark.timing import Failure, RequestTiming
from velollm_core.benchmark.workload import Task, Workload

ENVIRONMENT = Environment(
    "2026-01-02T03:04:05+00:00", "0.1.0", "3.12.1", "Linux 6.1 x86_64", None, "paced", "1", "here"
)
LOOK = Conditions(wall=0.0, awake=0.0, elapsed=None, canary=Canary(1.0, 1.0))


def _timing(sent: float, ttft: float, gap: float, tokens: int, failure: Failure | None = None) -> RequestTiming:
    arrivals = tuple(sent + ttft + gap * place for place in range(tokens))
    usage = Usage(prompt_tokens=40, completion_tokens=tokens, cached_tokens=0)
    timing = RequestTiming(sent, sent, arrivals[-1] if arrivals else sent + ttft, arrivals, usage=usage)
    return evolve(timing, failure=failure, finish_reason=None if failure else "length")


def _write_loads(path: Path, loads: Mapping[int, int], model: str = "m", task: str = "chat", fail: int = 0) -> Path:
    """One run for each number of users in ``loads``, of so many requests; ``fail`` of them in all."""
    rng = random.Random(1)
    for users, requests in loads.items():
        workload = Workload("standard", model, (Task(task, "p", 16, requests),), concurrency=users)
        with SampleFile(path, f"run-{users}") as file:
            file.begin(workload, ENVIRONMENT)
            clock = [0.0] * users
            for index in range(requests):
                user = clock.index(min(clock))
                pace = rng.lognormvariate(0, 0.2) * math.sqrt(users)
                failure = Failure("http_503", "busy") if index < fail else None
                timing = _timing(
                    clock[user], 0.1 * pace, 0.0 if failure else 0.02 * pace, 0 if failure else 16, failure
                )
                clock[user] = timing.ended
                file.sample(Sample(task, index, 16, timing))
            file.block(Block(0, "measured", 0.0, LOOK, LOOK, Noise("clean", (), 0.01)))
    return path


def _write_duel(path: Path, pairs: int = 8, factor: float = 0.8, names: tuple[str, str] = ("before", "after")) -> Path:
    """An experiment in which the second of ``names`` takes ``factor`` of the first one's time."""
    rng = random.Random(2)
    arms: dict[str, dict[str, object]] = {names[0]: {}, names[1]: {"--threads": 2}}
    clock = 0.0
    with SampleFile(path, "duel") as file:
        file.begin(Workload("conversation", "m", (Task("chat", "p", 16, 3),)), ENVIRONMENT, arms=arms)
        for block in range(2 * pairs):
            arm = names[(block + block // 2) % 2]
            pace = (factor if arm == names[1] else 1.0) * rng.lognormvariate(0, 0.03)
            for index in range(3):
                timing = _timing(clock, 0.1 * pace, 0.02 * pace, 16)
                clock = timing.ended
                file.sample(Sample("chat", index, 16, timing, arm=arm, block=block))
            noise = Noise("noisy", ("work waited for a processor 13% of the time",), 0.05)
            file.block(Block(block, arm, clock, LOOK, LOOK, noise if block == 3 else Noise("clean", (), 0.01)))
    return path


@pytest.fixture
def write_loads() -> Callable[..., Path]:
    """Writes a file of runs under several loads."""
    return _write_loads


@pytest.fixture
def write_duel() -> Callable[..., Path]:
    """Writes a file of one experiment with two configurations."""
    return _write_duel
