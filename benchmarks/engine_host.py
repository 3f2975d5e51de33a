"""What a decode step and a prefix lookup cost the host: `python -m benchmarks.engine_host [--json FILE]`.

All engines get the same sequences and tokens, fifty steps in turn, in one process on one core. Not in a decode step
is what ending a sequence costs: about 1.5 µs for each block of its answer, which is put into the prefix cache then.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.engine_baseline import BaselineBlocks, BaselineScheduler, BaselineSequence
from velollm_core.backends.request import SamplingParams
from velollm_core.engine.continuous import ContinuousScheduler
from velollm_core.engine.layout import KVCacheLayout
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.paged import PagedBlockManager
from velollm_core.engine.results import StepResults
from velollm_core.engine.sequence import Sequence

SEQUENCES, STEPS, ROUND, BLOCK, END = 256, 600, 50, 16, 2
NUM_BLOCKS = SEQUENCES * 140
Step = Callable[[list[int]], None]


def ours(prompts: list[list[int]]) -> Step:
    """One decode step of VeloLLM: plan, then take the tokens in."""
    blocks = PagedBlockManager(KVCacheLayout.uniform(32, 8, 128, block_size=BLOCK), (NUM_BLOCKS,))
    scheduler = ContinuousScheduler(SchedulerLimits(SEQUENCES, 8192, 8192), blocks)
    for index, prompt in enumerate(prompts):
        sampling = SamplingParams(max_tokens=STEPS + 64)
        scheduler.add(Sequence(str(index), list(prompt), sampling, frozenset({END})))
    while scheduler.stats().running != SEQUENCES or scheduler.stats().waiting:
        output = scheduler.schedule()
        rows = len(output.decodes) + sum(chunk.samples for chunk in output.chunks)
        scheduler.update(output, StepResults([7] * rows))

    def step(tokens: list[int]) -> None:
        output = scheduler.schedule()
        rows = len(output.decodes) + sum(chunk.samples for chunk in output.chunks)
        scheduler.update(output, StepResults(tokens[:rows]))

    return step


def baseline(prompts: list[list[int]], block_size: int, *, lists: bool) -> Step:
    """One decode step of the baseline."""
    blocks = BaselineBlocks(NUM_BLOCKS * BLOCK // block_size, block_size)
    scheduler = BaselineScheduler(blocks, SEQUENCES, END)
    for prompt in prompts:
        sequence = BaselineSequence(list(prompt), STEPS + 64, block_size)
        blocks.allocate(sequence)
        sequence.tokens.append(7)
        scheduler.running.append(sequence)

    def step(tokens: list[int]) -> None:
        batch = scheduler.schedule()
        if lists:
            scheduler.prepare(batch)
        scheduler.postprocess(batch, tokens)

    return step


def decode_steps(seed: int) -> dict[str, list[float]]:
    """Seconds of each step, by engine, in rounds, so that noise falls on all alike."""
    rng = random.Random(seed)
    prompts = [[rng.randrange(1000, 120000) for _ in range(rng.randint(100, 1024))] for _ in range(SEQUENCES)]
    engines = {
        "velollm, block 16": ours(prompts),
        "baseline, block 16": baseline(prompts, 16, lists=False),
        "baseline, block 256": baseline(prompts, 256, lists=False),
        "baseline, block 16, with its lists": baseline(prompts, 16, lists=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(STEPS // ROUND):
        tokens = [[rng.randrange(1000, 120000) for _ in range(SEQUENCES)] for _ in range(ROUND)]
        for name, step in engines.items():
            for sampled in tokens:
                begin = time.perf_counter()
                step(sampled)
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def lookups(seed: int) -> dict[str, list[float]]:
    """Seconds to find a cached prompt of 1 024 tokens; the ids are objects of their own, as in a real request."""
    rng = random.Random(seed)
    prompt = [rng.randrange(1000, 120000) for _ in range(1025)]
    blocks = PagedBlockManager(KVCacheLayout.uniform(32, 8, 128, block_size=BLOCK), (200,))
    first = Sequence("first", list(prompt), SamplingParams(max_tokens=1))
    blocks.match(first)
    blocks.allocate(first, len(prompt))
    blocks.commit(first, len(prompt))
    blocks.free(first)
    reference = BaselineBlocks(200, BLOCK)
    reference.allocate(BaselineSequence(prompt[:1024], 1, BLOCK))
    seconds: dict[str, list[float]] = {"velollm, lookup": [], "velollm, whole match": [], "baseline, lookup": []}
    for index in range(2000):
        copy = [int(str(token)) for token in prompt]
        sequence = Sequence(f"s{index}", copy, SamplingParams(max_tokens=1))
        other = BaselineSequence(copy[:1024], 1, BLOCK)
        begin = time.perf_counter()
        found = blocks.prefixes.lookup(copy, 64, "")
        after_lookup = time.perf_counter()
        hit = blocks.match(sequence)
        after_match = time.perf_counter()
        reference_hit = reference.lookup(other)
        seconds["baseline, lookup"].append(time.perf_counter() - after_match)
        seconds["velollm, lookup"].append(after_lookup - begin)
        seconds["velollm, whole match"].append(after_match - after_lookup)
        if (len(found), hit, reference_hit) != (64, 1024, 64):
            raise RuntimeError(f"not a full hit: {len(found)}, {hit}, {reference_hit}")
        blocks.free(sequence)
    return seconds


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and 90th percentile in microseconds."""
    return {
        "median_us": round(statistics.median(seconds) * 1e6, 1),
        "p90_us": round(statistics.quantiles(seconds, n=10)[-1] * 1e6, 1),
    }


def main() -> None:
    """Print the table; exit 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    gc.freeze()
    gc.disable()
    figures = {
        f"decode step of {SEQUENCES} sequences": {n: summary(s) for n, s in decode_steps(options.seed).items()},
        "prefix of 1024 tokens, block 16": {n: summary(s) for n, s in lookups(options.seed).items()},
    }
    for title, rows in figures.items():
        print(title)
        for name, row in rows.items():
            print(f"  {name:36} median {row['median_us']:8.1f} µs   90% below {row['p90_us']:8.1f} µs")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    step, lookup = (next(iter(rows.values()))["median_us"] for rows in figures.values())
    print(f"bars: step {step} of 100 µs, lookup {lookup} of 40 µs")
    raise SystemExit(step > 100 or lookup > 40)


if __name__ == "__main__":
    main()
