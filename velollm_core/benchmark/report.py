"""What a run found out: figures per task, and all that is needed to judge them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Literal

from attrs import field, frozen

from velollm_core.benchmark.block import Block
from velollm_core.benchmark.cost import GeneratorCost
from velollm_core.benchmark.environment import Environment
from velollm_core.benchmark.load import Load
from velollm_core.benchmark.load_report import LoadReport
from velollm_core.benchmark.metrics import METRICS, WHOLE, clumped, gaps, tokens_per_chunk, ttft
from velollm_core.benchmark.noise import Noise
from velollm_core.benchmark.percentiles import Percentiles, nearest_rank, summarise
from velollm_core.benchmark.plausibility import Plausibility
from velollm_core.benchmark.sample import Sample
from velollm_core.benchmark.timing import RequestTiming
from velollm_core.benchmark.warmup import WarmUp
from velollm_core.benchmark.workload import Workload

CLUMPED = 0.2
# Seconds, and the share of a median TTFT, that a generator may be late without a word.
LATE, LATE_SHARE = 0.01, 0.1
CacheState = Literal["cold", "warm", "unknown"]


@frozen
class CacheUse:
    """Whether prompts were computed. ``state`` is ``cold`` if no request found more cached than its template.

    ``cached_tokens`` is the most that a request found cached, ``allowance`` the tokens of a request without a prompt.
    """

    state: CacheState
    cached_tokens: int | None
    allowance: int


@frozen
class TaskReport:
    """The figures of one task; unlike tasks are never averaged.

    ``failures`` counts by kind, ``short`` the answers that ended early (they have no E2E). ``metrics`` holds those of
    `METRICS` that could be computed. ``tokens_per_second`` is the whole system's rate over the task's own time.
    """

    name: str
    requests: int
    succeeded: int
    failures: Mapping[str, int]
    short: int
    metrics: Mapping[str, Percentiles]
    itl: Percentiles | None
    tokens_per_chunk: float | None
    prompt_tokens: Percentiles | None
    completion_tokens: int
    tokens_per_second: float | None
    noise: Noise


@frozen
class Report:
    """One run of ``workload`` on one backend. ``samples`` are all requests, warm-up and failures among them.

    ``load`` is None for a list of tasks; ``generator`` is what measuring it added, where that was measured. ``stopped``
    tells that somebody ended it before its time.
    """

    backend: str
    model: str
    workload: Workload
    environment: Environment
    warm_up: WarmUp
    tasks: tuple[TaskReport, ...]
    cache: CacheUse
    noise: Noise
    seconds: float
    plausibility: Plausibility | None = None
    load: LoadReport | None = None
    generator: GeneratorCost | None = None
    stopped: bool = False
    notes: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = field(default=(), repr=False)
    samples: tuple[Sample, ...] = field(default=(), repr=False)


def report_task(name: str, samples: Sequence[Sample], noise: Noise) -> TaskReport:
    """The figures of the samples of one task."""
    good = [sample for sample in samples if sample.counts]
    timings = [sample.timing for sample in good]
    whole = [sample.timing for sample in good if not sample.short]
    values = {
        metric.name: summarise(_known(metric.of(timing) for timing in (whole if metric.name in WHOLE else timings)))
        for metric in METRICS
    }
    failures = Counter(sample.timing.failure.kind for sample in samples if sample.timing.failure)
    tokens = sum(timing.completion_tokens or 0 for timing in timings)
    return TaskReport(
        name=name,
        requests=len(samples),
        succeeded=len(good),
        failures=dict(failures.most_common()),
        short=len(good) - len(whole),
        metrics={key: value for key, value in values.items() if value is not None},
        itl=summarise(chain.from_iterable(gaps(timing) for timing in timings)),
        tokens_per_chunk=tokens_per_chunk(timings),
        prompt_tokens=summarise(_known(timing.usage.prompt_tokens for timing in timings)),
        completion_tokens=tokens,
        tokens_per_second=_system_rate(timings, tokens),
        noise=noise,
    )


def judge_cache(samples: Iterable[Sample], allowance: int) -> CacheUse:
    """Look at what the server says it found cached in the samples that count."""
    cached = [sample.timing.usage.cached_tokens for sample in samples if sample.counts]
    known = [count for count in cached if count is not None]
    if not known:
        return CacheUse("unknown", None, allowance)
    return CacheUse("warm" if max(known) > allowance else "cold", max(known), allowance)


def notes(samples: Sequence[Sample], workload: Workload, cache: CacheUse, warm_up: WarmUp) -> tuple[str, ...]:
    """What a reader must know beside the figures, one line each."""
    counted = [sample for sample in samples if sample.counts]
    lines = []
    lines += _late(counted, workload)
    if workload.warm_cache:
        lines.append("warm cache: prompts repeat on purpose; TTFT and prefill are those of a cache hit")
    elif workload.load is not None and (workload.load.shared or workload.load.turns > 1):
        lines += _shared(workload.load)
    elif cache.state == "warm":
        lines.append(
            f"warm cache: up to {cache.cached_tokens} prompt tokens came from a cache although prompts are unique; "
            "TTFT and prefill are no measurement"
        )
    elif cache.state == "unknown":
        lines.append("the server does not count cached prompt tokens; prompts are unique from the first letter")
    if not warm_up.stable:
        lines.append(f"never steady: {warm_up.requests} warm-up requests did not settle ({warm_up.rule})")
    if any(sample.timing.completion_tokens is None for sample in counted):
        lines.append("the server did not count tokens: there are no rates, and none are guessed")
    together = clumped([sample.timing for sample in counted])
    if together is not None and together > CLUMPED:
        lines.append(
            f"{together:.0%} of chunks were read together with the one before: ITL tells of the transport, and of how "
            "busy this machine is, not of the engine"
        )
    short = sum(sample.short for sample in counted)
    if short:
        lines.append(f"{short} of {len(counted)} answers ended early; their E2E is left out")
    return tuple(lines)


def _shared(load: Load) -> Iterator[str]:
    if load.shared:
        yield f"shared prefix: requests begin with the same {load.shared} tokens on purpose"
    if load.turns > 1:
        yield "conversations: later turns find in the cache what was said before; turns are reported apart"


def _late(samples: Sequence[Sample], workload: Workload) -> list[str]:
    """A word on a generator that did not keep to its own times."""
    if workload.load is None or workload.load.arrivals is None or not samples:
        return []
    late = sorted(sample.timing.sent - sample.timing.intended for sample in samples)
    waited = sorted(value for sample in samples if (value := ttft(sample.timing)) is not None)
    worst = nearest_rank(late, 0.99)
    if worst <= max(LATE, LATE_SHARE * nearest_rank(waited, 0.5)):
        return []
    return [
        f"the generator itself was late by {worst:.3g} s (p99): TTFT and E2E hold that; from the real send they do not"
    ]


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _system_rate(timings: Sequence[RequestTiming], tokens: int) -> float | None:
    ends = [timing.last for timing in timings if timing.last is not None]
    if not ends or not tokens:
        return None
    seconds = max(ends) - min(timing.sent for timing in timings)
    return tokens / seconds if seconds > 0 else None
