"""Blocks measured side by side, and the ratios read off them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from statistics import median

from attrs import frozen

from velollm_core.benchmark.block import Block
from velollm_core.benchmark.metrics import decode_rate, prefill_rate, tpot, ttft
from velollm_core.benchmark.sample import Sample
from velollm_core.benchmark.timing import RequestTiming


@frozen
class Score:
    """One block in a few figures: medians within each task, summed over tasks.

    ``seconds`` is the time of the workload's work, one request of each task at its full length; ``decode`` and
    ``prefill`` are tokens a second, ``ttft`` seconds. ``samples`` counts the requests behind them.
    """

    seconds: float
    decode: float | None
    prefill: float | None
    ttft: float
    samples: int


@frozen
class Pair:
    """Both arms measured one after the other, in the order ``order``; ``noisy`` if either block was."""

    index: int
    order: tuple[str, str]
    scores: Mapping[str, Score]
    noisy: bool

    def log_ratio(self, first: str, second: str, figure: Callable[[Score], float | None]) -> float | None:
        """ln(``second`` / ``first``) of a speed; None where either lacks it."""
        values = [figure(self.scores[name]) for name in (first, second)]
        return math.log(values[1] / values[0]) if values[0] and values[1] else None


def speed(score: Score) -> float:
    """How often a second the workload's work would be done."""
    return 1 / score.seconds


def score(samples: Iterable[Sample]) -> Score | None:
    """The figures of one block's samples; None where no request of some task can be timed."""
    counted = sorted((sample for sample in samples if sample.counts), key=lambda sample: sample.task)
    seconds, firsts = 0.0, 0.0
    for _, group in groupby(counted, key=lambda sample: sample.task):
        same = list(group)
        times = [time for sample in same if (time := work_seconds(sample)) is not None]
        waits = [wait for sample in same if (wait := ttft(sample.timing)) is not None]
        if not times or not waits:
            return None
        seconds += median(times)
        firsts += median(waits)
    if seconds <= 0:
        return None
    timings = [sample.timing for sample in counted]
    return Score(seconds, _median(decode_rate, timings), _median(prefill_rate, timings), firsts, len(counted))


def work_seconds(sample: Sample) -> float | None:
    """The time of the request at its full length: an answer that ended early is carried on at its own pace."""
    first, step = ttft(sample.timing), tpot(sample.timing)
    if first is None:
        return None
    if sample.max_tokens == 1:
        return first
    return None if step is None else first + step * (sample.max_tokens - 1)


def pair_up(samples: Sequence[Sample], blocks: Sequence[Block]) -> list[Pair]:
    """The whole pairs of a run: blocks 2k and 2k + 1 of different arms, both valid, both with a score."""
    by_index = {block.index: block for block in blocks}
    pairs = []
    for block in blocks:
        other = by_index.get(block.index + 1)
        if block.index % 2 or other is None or other.arm == block.arm:
            continue
        if "invalid" in (block.noise.verdict, other.noise.verdict):
            continue
        scores = {each.arm: score(s for s in samples if s.block == each.index) for each in (block, other)}
        known = {arm: figures for arm, figures in scores.items() if figures is not None}
        if len(known) == 2:
            noisy = "noisy" in (block.noise.verdict, other.noise.verdict)
            pairs.append(Pair(block.index // 2, (block.arm, other.arm), known, noisy))
    return pairs


def _median(of: Callable[[RequestTiming], float | None], timings: Iterable[RequestTiming]) -> float | None:
    values = [value for timing in timings if (value := of(timing)) is not None]
    return median(values) if values else None
