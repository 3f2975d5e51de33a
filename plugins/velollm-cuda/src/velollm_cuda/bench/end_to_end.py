"""Parts ``e2e-…``: request lists through `LLM.generate`, as shares of the floor that this card sets in this run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from velollm_cuda.bench.figure import Bar, Figure, Measurement
from velollm_cuda.bench.models import SEQUENCES, engine_options, write_model
from velollm_cuda.bench.peak import peak_bytes
from velollm_cuda.bench.start import measure_start
from velollm_cuda.bench.steady import measure_steady
from velollm_cuda.bench.workloads import CardRates, PromptOfLength, floor, requests, temperature
from velollm_cuda.llm import LLM
from velollm_cuda.params import SamplingParams

ROUNDS = 3
SHORT_ROUNDS = 5
BUFFER_TOKENS = 4096
LEAST_SAVING = 0.70
LEAST_SPEEDUP = 20.0
TOGETHER = 64
FIRST_TOKEN_SECONDS = 20.0


@frozen
class Share:
    """The least share of the floor, what we hope for, and what vLLM 0.26 reached on one H100."""

    bound: float
    aim: float
    vllm: float


SHARES: Mapping[str, Mapping[int, Share]] = {
    "1b": {
        256: Share(0.53, 0.65, 0.43),
        64: Share(0.52, 0.60, 0.40),
        16: Share(0.53, 0.65, 0.39),
        1: Share(0.62, 0.75, 0.41),
    },
    "8b": {
        256: Share(0.81, 0.88, 0.78),
        64: Share(0.81, 0.86, 0.77),
        16: Share(0.79, 0.85, 0.74),
        1: Share(0.81, 0.88, 0.76),
    },
    "0.6b": {256: Share(0.77, 0.85, 0.73)},
}


def measure_model(model: str, rates: CardRates, folder: Path, judged: bool) -> tuple[list[Measurement], list[Bar]]:
    """Everything that ``model`` is measured by; its configuration is written to ``folder``."""
    listed = requests(model)
    start = measure_start(write_model(folder, model)).told()
    found: list[tuple[Measurement, Bar]] = []
    with LLM(folder, **engine_options()) as llm:  # type: ignore[arg-type]
        for count in SHARES[model]:
            found.append(_throughput(llm, model, listed[:count], rates, judged))
            if model == "1b" and count == TOGETHER:
                found.append(_one_at_a_time(llm, model, listed[:count], found[-1][0].figures["rate"], judged))
        found.append(_saving(llm, model, listed))
        steady, idle = measure_steady(llm.engine, listed[:SEQUENCES], judged)
    measurements, bars = map(list, zip(*found, strict=True))
    if model == "1b":
        first = start.figures["first token"]
        bars.append(Bar.no_more("1b, LLM() to first token", first, FIRST_TOKEN_SECONDS, judged=judged))
    return [start, *measurements, *steady], [*bars, idle]


def _throughput(
    llm: LLM, model: str, listed: Sequence[PromptOfLength], rates: CardRates, judged: bool
) -> tuple[Measurement, Bar]:
    """All of ``listed`` at once; the first round, which captures graphs, stands apart."""
    count = len(listed)
    first = _run(llm, model, listed)
    seconds = [_run(llm, model, listed) for _ in range(ROUNDS if count > TOGETHER else SHORT_ROUNDS)]
    tokens, best, wanted = sum(each.output for each in listed), floor(model, count, rates), SHARES[model][count]
    rate = Figure.of([tokens / each for each in seconds], "tok/s")
    share = rate.mapped(lambda value: value / best.tokens_per_second, "of the floor")
    figures = {
        "rate": rate,
        "floor": Figure.of([best.tokens_per_second], "tok/s"),
        "share": share,
        "first round": Figure.of([tokens / first], "tok/s"),
    }
    name = f"{model}, {count} request{'s' * (count > 1)}"
    note = f"vLLM 0.26: {wanted.vllm:.0%} of the floor"
    measured = Measurement(name, figures, note).told()
    return measured, Bar.at_least(name, share, wanted.bound, judged=judged, aim=wanted.aim)


def _one_at_a_time(
    llm: LLM, model: str, listed: Sequence[PromptOfLength], together: Figure, judged: bool
) -> tuple[Measurement, Bar]:
    """The same requests, each alone, against all of them at once."""
    seconds = sum(_run(llm, model, [each]) for each in listed)
    alone = Figure.of([sum(each.output for each in listed) / seconds], "tok/s")
    speedup = together.mapped(lambda value: value / alone.value, "×")
    name = f"{model}, {len(listed)} at once against one at a time"
    measured = Measurement(name, {"one at a time": alone, "at once": together, "speedup": speedup}).told()
    return measured, Bar.at_least(name, speedup, LEAST_SPEEDUP, judged=judged)


def _saving(llm: LLM, model: str, listed: Sequence[PromptOfLength]) -> tuple[Measurement, Bar]:
    """How far the cache stays below a buffer of 4096 tokens for each sequence, at its fullest."""
    buffers = len(listed) * BUFFER_TOKENS * llm.engine.blocks.layout.bytes_per_token
    peak = peak_bytes(llm.engine, listed)
    saving = Figure.of([1 - peak / buffers], "saved")
    figures = {"peak": Figure.of([peak / 2**30], "GiB"), "buffers": Figure.of([buffers / 2**30], "GiB")}
    name = f"{model}, KV memory of {len(listed)} requests"
    return Measurement(name, figures | {"saving": saving}), Bar.at_least(name, saving, LEAST_SAVING, judged=True)


def _run(llm: LLM, model: str, listed: Sequence[PromptOfLength]) -> float:
    """Seconds from the call to the last text."""
    heat = temperature(model)
    params = [SamplingParams(max_tokens=each.output, temperature=heat, ignore_eos=True) for each in listed]
    prompts = [each.token_ids for each in listed]
    begun = time.perf_counter()
    answers = llm.generate(prompts, params)
    seconds = time.perf_counter() - begun
    assert [len(each.token_ids) for each in answers] == [each.output for each in listed]
    return seconds
