"""Many users of one server, spread over processes: one alone could not read as fast as a card writes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context

import aiohttp
from attrs import frozen

from velollm_cuda.bench.workloads import PromptOfLength

PROCESSES = 6
TAIL = 4096
# Until every process has imported what it needs.
LEAD = 4.0


@frozen
class Arrival:
    """A request, and when it is made: seconds after the beginning."""

    at: float
    request: PromptOfLength


@frozen
class Experience:
    """What one user saw; seconds. ``gaps`` are the pauses between two arrivals of text. ``tokens`` 0 is a failure."""

    late: float
    ttft: float
    gaps: tuple[float, ...]
    tokens: int
    ended: float


@frozen
class _Share:
    url: str
    model: str
    begin: float
    arrivals: tuple[Arrival, ...]


def ask_all(url: str, model: str, arrivals: Sequence[Arrival]) -> list[Experience]:
    """Make every request at its time, whatever came of the others; ``ended`` counts from the beginning."""
    begin = time.time() + LEAD
    shares = [_Share(url, model, begin, tuple(arrivals[start::PROCESSES])) for start in range(PROCESSES)]
    busy = [share for share in shares if share.arrivals]
    with ProcessPoolExecutor(len(busy), mp_context=get_context("spawn")) as pool:
        return [experience for found in pool.map(_live, busy) for experience in found]


def _live(share: _Share) -> list[Experience]:
    return asyncio.run(_together(share))


async def _together(share: _Share) -> list[Experience]:
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        return await asyncio.gather(*(_ask(session, share, arrival) for arrival in share.arrivals))


async def _ask(session: aiohttp.ClientSession, share: _Share, arrival: Arrival) -> Experience:
    body = {
        "model": share.model, "prompt": arrival.request.token_ids, "max_tokens": arrival.request.output,
        "temperature": 0, "ignore_eos": True, "cache_prompt": False, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    await asyncio.sleep(max(0.0, share.begin + arrival.at - time.time()))
    asked = time.time()
    times, tail = [], b""
    async with session.post(f"{share.url}/v1/completions", json=body) as response:
        async for data in response.content.iter_any():
            times.append(time.time())
            tail = (tail + data)[-TAIL:]
    ended = time.time() - share.begin
    late = asked - share.begin - arrival.at
    gaps = tuple(after - before for before, after in pairwise(times))
    return Experience(late, times[0] - asked if times else 0.0, gaps, _tokens(tail), ended)


def _tokens(tail: bytes) -> int:
    """The server's own count, out of the last event but the end mark."""
    for line in reversed(tail.split(b"\n\n")):
        if line.startswith(b'data: {"id"') and b'"usage"' in line:
            return int(json.loads(line.removeprefix(b"data: "))["usage"]["completion_tokens"])
    return 0
