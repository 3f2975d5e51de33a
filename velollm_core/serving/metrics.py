"""What a server counts, as Prometheus reads it, under the names that vLLM's dashboards know."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from attrs import define, field

from velollm_core.errors import VeloError

if TYPE_CHECKING:
    from velollm_core.engine import sequence as engine
    from velollm_core.engine.blocks import BlockUsage
    from velollm_core.engine.scheduling import SchedulerStats
    from velollm_core.serving.answers import Piece

TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640)
ITL = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40)
E2E = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@define(eq=False)
class Histogram:
    """Seconds, counted by upper ``bounds``."""

    name: str
    help: str
    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    sum: float = field(init=False, default=0.0)

    def __attrs_post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds

    def lines(self, labels: str) -> Iterator[str]:
        """The histogram, its buckets adding up."""
        yield from _head(self.name, "histogram", self.help)
        total = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            yield f'{self.name}_bucket{{{labels},le="{bound}"}} {total}'
        yield f"{self.name}_sum{{{labels}}} {self.sum}"
        yield f"{self.name}_count{{{labels}}} {total}"


@define(eq=False)
class ServingMetrics:
    """The counters of one server since it began; all from one event loop."""

    prompt_tokens: int = field(init=False, default=0)
    generation_tokens: int = field(init=False, default=0)
    ended: dict[str, int] = field(init=False, factory=lambda: {"stop": 0, "length": 0, "abort": 0})
    first: Histogram = field(
        init=False,
        factory=lambda: Histogram("vllm:time_to_first_token_seconds", "Seconds from request to first text.", TTFT),
    )
    between: Histogram = field(
        init=False,
        factory=lambda: Histogram("vllm:inter_token_latency_seconds", "Seconds between two pieces of text.", ITL),
    )
    whole: Histogram = field(
        init=False,
        factory=lambda: Histogram("vllm:e2e_request_latency_seconds", "Seconds from request to last text.", E2E),
    )

    async def observed(
        self, sequences: Iterable[engine.Sequence], pieces: AsyncGenerator[Piece, None]
    ) -> AsyncGenerator[Piece, None]:
        """``pieces`` as they are, counted; of ``sequences`` those that do not end are aborted ones."""
        begun = time.perf_counter()
        going, latest = dict(enumerate(sequences)), dict[int, float]()
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    now = time.perf_counter()
                    if piece.index not in latest:
                        self._begin(going[piece.index], now - begun)
                    else:
                        self.between.observe(now - latest[piece.index])
                    latest[piece.index] = now
                    if piece.finish_reason:
                        del going[piece.index]
                        self.generation_tokens += piece.num_tokens
                        self.ended[piece.finish_reason] += 1
                        self.whole.observe(now - begun)
                    yield piece
        except VeloError:
            going.clear()  # refused, or the engine's own failure: nobody left
            raise
        finally:
            self.ended["abort"] += len(going)
            self.generation_tokens += sum(len(each.token_ids) - each.num_prompt_tokens for each in going.values())

    def _begin(self, sequence: engine.Sequence, seconds: float) -> None:
        self.first.observe(seconds)
        if sequence.parent is None:
            self.prompt_tokens += sequence.num_prompt_tokens

    def page(self, model: str, stats: SchedulerStats, usage: BlockUsage) -> str:
        """The page, every figure labelled with the model's name."""
        label = 'model_name="' + model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
        lines = [line for each in _samples(self, stats, usage) for line in _plain(label, *each)]
        lines += _head("vllm:request_success_total", "counter", "Answers that ended, by their reason.")
        lines += [
            f'vllm:request_success_total{{{label},finished_reason="{reason}"}} {count}'
            for reason, count in self.ended.items()
        ]
        for histogram in (self.first, self.between, self.whole):
            lines += histogram.lines(label)
        return "\n".join([*lines, ""])


def _samples(
    metrics: ServingMetrics, stats: SchedulerStats, usage: BlockUsage
) -> Sequence[tuple[str, str, str, float]]:
    return (
        ("vllm:num_requests_running", "gauge", "Sequences that hold a part of the cache.", stats.running),
        ("vllm:num_requests_waiting", "gauge", "Sequences that wait for one.", stats.waiting + stats.swapped),
        ("vllm:kv_cache_usage_perc", "gauge", "Share of the cache's blocks in use; 1 is full.", usage.utilisation),
        ("vllm:num_preemptions_total", "counter", "Times that a sequence gave way.", stats.preemptions),
        ("vllm:prefix_cache_queries_total", "counter", "Prompt tokens looked for.", usage.queried_tokens),
        ("vllm:prefix_cache_hits_total", "counter", "Prompt tokens found in the cache.", usage.hit_tokens),
        ("vllm:prompt_tokens_total", "counter", "Tokens of prompts.", metrics.prompt_tokens),
        ("vllm:generation_tokens_total", "counter", "Tokens of answers.", metrics.generation_tokens),
    )


def _plain(label: str, name: str, kind: str, text: str, value: float) -> Iterator[str]:
    yield from _head(name, kind, text)
    yield f"{name}{{{label}}} {value}"


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
