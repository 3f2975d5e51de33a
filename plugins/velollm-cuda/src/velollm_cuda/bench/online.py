"""Part ``online``: the server under Poisson arrivals, as shares of what the engine does when all is there at once."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles

from velollm_core.errors import VeloError
from velollm_cuda.bench.client import Arrival, Experience, ask_all
from velollm_cuda.bench.figure import Bar, Figure, Measurement
from velollm_cuda.bench.models import engine_options, write_model
from velollm_cuda.bench.server import NAME, measured_server
from velollm_cuda.bench.workloads import PromptOfLength, requests
from velollm_cuda.llm import LLM
from velollm_cuda.params import SamplingParams

MODEL = "1b"
LOADS = (0.5, 0.8)
SECONDS = 30.0
WORST_PAUSE = 3.0
PERCENTILES = (50, 90, 99)


def measure_online(folder: Path, judged: bool) -> tuple[list[Measurement], list[Bar]]:
    """Capacity without a server, then through it, then each load; the model's configuration goes to ``folder``."""
    listed = requests(MODEL)
    capacity = _capacity(write_model(folder, MODEL), listed)
    tokens = sum(each.output for each in listed)
    measurements = [Measurement(f"{MODEL}, capacity", {"offline": Figure.of([capacity], "tok/s")})]
    bars = []
    with measured_server(folder) as url:
        _all_at_once(url, listed)
        rate = _all_at_once(url, listed)
        measurements.append(Measurement(f"{MODEL}, all at once through the server", {"rate": rate}))
        for load in LOADS:
            per_second = load * capacity * len(listed) / tokens
            arrivals = poisson(listed, per_second, SECONDS)
            name = f"{MODEL}, Poisson arrivals at {load:.0%} of capacity"
            measured = experienced(name, arrivals, ask_all(url, NAME, arrivals))
            measurements.append(measured)
            bars.append(_bar(measured, judged))
    return measurements, bars


def poisson(listed: Sequence[PromptOfLength], per_second: float, seconds: float) -> list[Arrival]:
    """Requests of the list, over and over, with exponential times between them; the same for the same rate."""
    draw, at, arrivals = random.Random(0), 0.0, list[Arrival]()
    while (at := at + draw.expovariate(per_second)) < seconds:
        arrivals.append(Arrival(at, listed[len(arrivals) % len(listed)]))
    return arrivals


def experienced(name: str, arrivals: Sequence[Arrival], found: Sequence[Experience]) -> Measurement:
    """Percentiles over all users, pauses over all arrivals of text; milliseconds.

    Raises:
        VeloError: a request failed.
    """
    failed = sum(each.tokens == 0 for each in found)
    if failed or not found:
        raise VeloError(f"{name}: {failed} of {len(found)} requests failed")
    figures = {"requests": Figure.of([len(arrivals) / max(arrivals[-1].at, 1e-9)], "/s")}
    rate = sum(each.tokens for each in found) / max(each.ended for each in found)
    figures["rate"] = Figure.of([rate], "tok/s")
    figures |= _percentiles("TTFT", [each.ttft for each in found])
    figures |= _percentiles("ITL", [gap for each in found for gap in each.gaps])
    late = max(each.late for each in found)
    note = f"the client was up to {late * 1000:.0f} ms late" if late > 0.05 else ""
    return Measurement(name, figures, note).told()


def _percentiles(name: str, seconds: Sequence[float]) -> dict[str, Figure]:
    cuts = quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 99
    return {f"{name} p{part}": Figure.of([cuts[part - 1] * 1000], "ms") for part in PERCENTILES}


def _bar(measured: Measurement, judged: bool) -> Bar:
    usual = measured.figures["ITL p50"].value
    worst = measured.figures["ITL p99"].mapped(lambda value: value / usual, "× its median")
    return Bar.no_more(f"{measured.name}, p99 of ITL", worst, WORST_PAUSE, judged=judged)


def _capacity(folder: Path, listed: Sequence[PromptOfLength]) -> float:
    """Output tokens a second of the whole list through `LLM.generate`, the second time."""
    params = [SamplingParams(max_tokens=each.output, ignore_eos=True) for each in listed]
    prompts = [each.token_ids for each in listed]
    with LLM(folder, **engine_options()) as llm:  # type: ignore[arg-type]
        llm.generate(prompts, params)
        begun = time.perf_counter()
        llm.generate(prompts, params)
        return sum(each.output for each in listed) / (time.perf_counter() - begun)


def _all_at_once(url: str, listed: Sequence[PromptOfLength]) -> Figure:
    found = ask_all(url, NAME, [Arrival(0.0, each) for each in listed])
    return Figure.of([sum(each.tokens for each in found) / max(each.ended for each in found)], "tok/s")
