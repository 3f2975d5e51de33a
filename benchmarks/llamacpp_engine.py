"""What the core's scheduler makes of a real llama.cpp: throughput, KV memory, and a load that does not fit.

    python benchmarks/llamacpp_engine.py [MODEL.gguf] [--part throughput|widths|memory|kept]

Without MODEL the 204 MiB test model is made from its seed. Bars are judged and printed; nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

from velollm_llamacpp.allocator import Allocator
from velollm_llamacpp.engine.engine import Engine, open_engine
from velollm_llamacpp.engine.options import EngineOptions
from velollm_llamacpp.library import find_library

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.sequence import Sequence
from velollm_core.models.files import read_model
from velollm_core.models.load import LoadSettings
from velollm_core.testing.test_model import write_test_model

CONCURRENT, PROMPT, ANSWER, ROUNDS = 8, 32, 64, 3
LOAD, LOAD_ANSWER = (1500, *[200] * 7), 32
KEPT = 4
DOUBT = 0.04


def prompt(seed: int, length: int) -> list[int]:
    """Tokens that no other prompt begins with."""
    return [33 + seed, *((31 * index + 7 * seed) % 90 + 33 for index in range(length - 1))]


def answer(engine: Engine, sequences: list[Sequence]) -> float:
    """Run ``sequences`` to their ends; the seconds it took."""
    begin = time.perf_counter()
    for sequence in sequences:
        engine.loop.scheduler.add(sequence)
    for _ in engine.loop.run():
        pass
    return time.perf_counter() - begin


def batch(name: str, count: int, length: int = PROMPT, max_tokens: int = ANSWER) -> list[Sequence]:
    """Requests with prompts of their own."""
    params = SamplingParams(max_tokens=max_tokens)
    return [Sequence(f"{name}-{each}", prompt(each, length), params, use_cache=False) for each in range(count)]


def mixed(name: str) -> list[Sequence]:
    """The mixed load: one long prompt, seven short ones."""
    params = SamplingParams(max_tokens=LOAD_ANSWER)
    return [Sequence(f"{name}-{each}", prompt(each, length), params) for each, length in enumerate(LOAD)]


def verdict(passed: bool) -> str:
    """A bar's outcome."""
    return "met" if passed else "NOT MET"


def throughput(model: Path) -> None:
    """Eight at a time against one after the other, in turns, and whether they gave the same tokens.

    The best number of threads is not the same for both, so each is tried with one and with all cores: the ratio is
    that of the best of each.
    """
    best = {"together": 0.0, "alone": 0.0}
    for threads in sorted({1, os.cpu_count() or 1}):
        options = EngineOptions(
            total_context=2048, parallel=CONCURRENT, threads=threads, prefix_cache=False, margins=True
        )
        with open_engine(model, options) as engine:
            answer(engine, batch("warm", 1))
            rates: dict[str, list[float]] = {"together": [], "alone": []}
            for turn in range(ROUNDS):
                many, single = batch(f"many-{turn}", CONCURRENT), batch(f"single-{turn}", CONCURRENT)
                rates["together"].append(CONCURRENT * ANSWER / answer(engine, many))
                rates["alone"].append(CONCURRENT * ANSWER / sum(answer(engine, [sequence]) for sequence in single))
            for name, text in (("together", f"{CONCURRENT} at a time"), ("alone", "one after the other")):
                print(f"{threads} threads, {text}: {' '.join(f'{rate:.1f}' for rate in rates[name])} tokens/s")
                best[name] = max(best[name], statistics.median(rates[name]))
            _compare(engine, many, single)
    ratio = best["together"] / best["alone"]
    print(f"ratio of the best medians {ratio:.2f} (bar: at least 2): {verdict(ratio >= 2)}")


def widths(model: Path) -> None:
    """What a step of so many decoding sequences takes, with one thread."""
    options = EngineOptions(total_context=2048, parallel=CONCURRENT, threads=1, prefix_cache=False)
    with open_engine(model, options) as engine:
        answer(engine, batch("warm", 1))
        for count in (1, 2, 4, 8):
            for sequence in batch(f"width-{count}", count):
                engine.loop.scheduler.add(sequence)
            seconds = []
            while not engine.loop.is_idle:
                begin = time.perf_counter()
                retired = engine.loop.step()
                if retired is not None and not retired.output.chunks:
                    seconds.append(time.perf_counter() - begin)
            print(f"a step of {count}: {1000 * statistics.median(seconds):.1f} ms")


def _compare(engine: Engine, many: list[Sequence], single: list[Sequence]) -> None:
    leads = []
    for mine, its in zip(many, single, strict=True):
        margins = engine.executor.margins[its]
        pairs = zip(mine.output_token_ids, its.output_token_ids, margins, strict=True)
        leads += [next((lead for a, b, lead in pairs if a != b), None)]
    other = [lead for lead in leads if lead is not None]
    least = min(min(engine.executor.margins[its]) for its in single)
    text = f"; they part where the lead was {', '.join(f'{lead:.4f}' for lead in other)}" if other else ""
    print(
        f"tokens equal to one at a time: {len(leads) - len(other)} of {len(leads)}{text} (smallest lead: {least:.4f})"
    )
    print(f"every difference below {DOUBT}: {verdict(all(lead <= DOUBT for lead in other))}")


def memory(model: Path) -> None:
    """The mixed load in one pool of just its size, and in half of it; beside a slot of the longest for each."""
    blocks = sum(-(-(length + LOAD_ANSWER) // 16) for length in LOAD)
    pool = -(-blocks * 16 // 256) * 256
    slot = -(-(max(LOAD) + LOAD_ANSWER) // 256) * 256
    library = find_library()
    assert library is not None
    settings = LoadSettings(total_context=slot * len(LOAD), parallel=len(LOAD), kv_unified=False)
    split = asyncio.run(Allocator(library).memory(read_model(model), settings))
    per_slot = sum(device.kv.low for device in split.devices)
    for name, cells in (("pool of its size", pool), ("half that pool", pool // 512 * 256)):
        options = EngineOptions(total_context=cells, parallel=len(LOAD), threads=1)
        with open_engine(model, options) as engine:
            sequences = mixed(name)
            seconds = answer(engine, sequences)
            stats, usage, executor = engine.loop.scheduler.stats(), engine.blocks.usage(), engine.executor
            done = sum(len(sequence.output_token_ids) == LOAD_ANSWER for sequence in sequences)
            saved = 1 - engine.cache_bytes / per_slot
            print(
                f"{name}: {engine.facts.cells} cells, {engine.cache_bytes / 2**20:.1f} MiB against "
                f"{per_slot / 2**20:.1f} MiB in slots of {slot}: {saved:.1%} less (bar: 70%): {verdict(saved >= 0.7)}"
            )
            print(
                f"  {done} of {len(LOAD)} answered in {seconds:.1f} s, {stats.preemptions} preemptions, "
                f"{executor.recomputed_tokens} tokens computed again, {executor.full_caches} full caches, "
                f"{usage.used} blocks left: {verdict(done == len(LOAD) and not usage.used)}"
            )


def kept(model: Path) -> None:
    """What kept blocks cost those who decode: llama.cpp looks at every cell up to the highest in use."""
    options = EngineOptions(total_context=8192, parallel=1, threads=1)
    with open_engine(model, options) as empty, open_engine(model, options) as full:
        for each in range(KEPT):
            answer(full, [Sequence(f"fill-{each}", prompt(each, 1500), SamplingParams(max_tokens=1))])
        rates: dict[str, list[float]] = {"none": [], f"{KEPT * 1500} tokens": []}
        for turn in range(ROUNDS):
            for engine, found in zip((empty, full), rates.values(), strict=True):
                found.append(ANSWER / answer(engine, batch(f"turn-{turn}", 1)))
        for name, found in rates.items():
            print(f"decode with {name} kept: {' '.join(f'{rate:.1f}' for rate in found)} tokens/s")
        again = Sequence("again", [*prompt(0, 1500), 60], SamplingParams(max_tokens=1))
        fresh = Sequence("fresh", prompt(60, 1501), SamplingParams(max_tokens=1))
        print(f"first token after a kept prompt of 1500 tokens: {answer(full, [again]):.2f} s", end="")
        print(f" ({again.num_cached} cached), of one that is not: {answer(full, [fresh]):.2f} s")


def main() -> None:
    """Print all of it."""
    parts = {"throughput": throughput, "widths": widths, "memory": memory, "kept": kept}
    parser = argparse.ArgumentParser(description="Throughput, KV memory, and the cost of kept blocks.")
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--part", choices=parts, help="This one alone.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = given.model or write_test_model(Path(folder) / "medium.gguf", "medium")
        for name, part in parts.items():
            if given.part in (None, name):
                part(model)


if __name__ == "__main__":
    main()
