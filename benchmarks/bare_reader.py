"""The least that any client must do, aiohttp and `json.loads`: ``python bare_reader.py URL STREAMS REQUESTS``."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from itertools import pairwise

import aiohttp


async def read(url: str, streams: int, requests: int) -> dict[str, float]:
    """Median and p99 of TTFT, median ITL, and chunks a second from the first send to the last chunk."""
    firsts, gaps, moments = list[float](), list[float](), list[float]()
    left = iter(range(requests))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def user() -> None:
            for _ in left:
                sent, arrivals = time.perf_counter(), list[float]()
                async with session.post(f"{url}/v1/completions", json={"prompt": "go"}) as response:
                    async for line in response.content:
                        if line.startswith(b"data: {") and json.loads(line[6:])["choices"]:
                            arrivals.append(time.perf_counter())
                firsts.append(arrivals[0] - sent)
                gaps.extend(later - earlier for earlier, later in pairwise(arrivals))
                moments.extend(arrivals)

        began = time.perf_counter()
        await asyncio.gather(*(user() for _ in range(streams)))
    firsts.sort()
    gaps.sort()
    return {
        "ttft_p50": firsts[len(firsts) // 2],
        "ttft_p99": firsts[int(0.99 * (len(firsts) - 1))],
        "itl_p50": gaps[len(gaps) // 2],
        "rate": len(moments) / (max(moments) - began),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(read(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))))
