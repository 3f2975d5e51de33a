"""What the generator itself adds to every figure, measured against a server whose schedule is known."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from attrs import frozen

from velollm_core.backends.openai import OpenAIBackend
from velollm_core.backends.request import Request, SamplingParams
from velollm_core.benchmark.exchange import exchange
from velollm_core.benchmark.mock import MODEL
from velollm_core.benchmark.percentiles import nearest_rank
from velollm_core.benchmark.timing import RequestTiming
from velollm_core.errors import BackendError

FIRST, GAP = 0.02, 0.005
CHUNKS = 100_000


@frozen
class GeneratorCost:
    """``requests`` of ``chunks`` chunks, 5 ms apart after 20 ms, by ``streams`` users who ask again at once.

    ``delay_p50`` and ``delay_p99`` are seconds from the server's write to our clock reading, over all chunks;
    ``first_p50`` and ``first_p99`` are what we add to a TTFT: until the request has come, and from the first write on.
    ``cpu_seconds`` are this process's for 100 000 chunks.
    """

    streams: int
    requests: int
    chunks: int
    delay_p50: float
    delay_p99: float
    first_p50: float
    first_p99: float
    cpu_seconds: float


class _Mock(OpenAIBackend):
    name = "mock"


async def measure_cost(streams: int = 8, chunks: int = 64, rounds: int = 3) -> GeneratorCost:
    """Let ``streams`` users read ``rounds`` answers each from a mock server in a process of its own; about 1.5 s.

    Raises:
        BackendError: the mock server did not start or answer.
    """
    with _mock(chunks) as url:
        backend = _Mock(url)
        try:
            # Once for the connection pool and the imports, then for the record.
            await _read(backend, 1, 1, chunks)
            before = time.process_time()
            answers = await _read(backend, streams, rounds, chunks)
            used = time.process_time() - before
        finally:
            await backend.close()
    return _cost(answers, streams, chunks, used)


async def _read(backend: _Mock, streams: int, rounds: int, chunks: int) -> list[tuple[RequestTiming, list[str]]]:
    answers = list[tuple[RequestTiming, list[str]]]()

    async def user() -> None:
        for _ in range(rounds):
            said: list[str] = []
            request = Request(MODEL, "go", sampling=SamplingParams(max_tokens=chunks))
            timing = await exchange(backend, request, time.perf_counter, limit=30.0, hear=said.append)
            answers.append((timing, said))

    await asyncio.gather(*(user() for _ in range(streams)))
    return answers


def _cost(answers: list[tuple[RequestTiming, list[str]]], streams: int, chunks: int, used: float) -> GeneratorCost:
    delays, firsts = list[float](), list[float]()
    for timing, said in answers:
        if timing.failure:
            raise BackendError(f"the mock server for calibration failed: {timing.failure.message}")
        moments = [[float(moment) for moment in text.split()] for text in said]
        late = [arrival - written for arrival, (written, _) in zip(timing.arrivals, moments, strict=True)]
        delays += late
        firsts.append(moments[0][1] - timing.sent + late[0])
    delays.sort()
    firsts.sort()
    return GeneratorCost(
        streams=streams,
        requests=len(answers),
        chunks=chunks,
        delay_p50=nearest_rank(delays, 0.5),
        delay_p99=nearest_rank(delays, 0.99),
        first_p50=nearest_rank(firsts, 0.5),
        first_p99=nearest_rank(firsts, 0.99),
        cpu_seconds=used * CHUNKS / len(delays),
    )


@contextmanager
def _mock(chunks: int) -> Iterator[str]:
    command = [sys.executable, "-m", "velollm_core.benchmark.mock", str(FIRST), str(GAP), str(chunks)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None, "it was asked for"
    assert process.stdout is not None, "it was asked for"
    try:
        port = process.stdout.readline().strip()
        if not port:
            raise BackendError("the mock server for calibration did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
        with suppress(OSError):
            process.stdin.close()
        process.stdout.close()
