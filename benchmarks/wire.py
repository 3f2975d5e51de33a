"""What reading streams costs the machine that measures: CPU seconds for 100 000 chunks of 32 streams at once.

A client that is busy itself measures itself. Beside our stream loop stands the least that any client must do, aiohttp
and `json.loads`, in turns; the server is a process of its own. The bar is 5 CPU seconds.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import aiohttp

from velollm_core.backends.openai import OpenAIBackend
from velollm_core.backends.request import Message, Request

STREAMS = 32
CHUNKS = 100_000
GAP = 0.004
ROUNDS = 3
BAR = 5.0
EVENT = {
    "id": "chatcmpl-RWhnfehprRC4lMJZ4BDBXsX3NTP2fows",
    "object": "chat.completion.chunk",
    "created": 1795313024,
    "model": "models/tiny-f16.gguf",
    "system_fingerprint": "b0-0c1e57098",
    "choices": [{"index": 0, "delta": {"content": " tok"}, "finish_reason": None}],
}
REQUEST = Request("m", messages=(Message("user", "hello"),))


class Server(OpenAIBackend):
    """The server of `serve`."""

    name = "wire"


async def serve() -> None:
    """Answer every request with its share of the chunks, one each `GAP` seconds; print the port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().splitlines() if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(CHUNKS // STREAMS):
            writer.write(_chunk(b"data: " + json.dumps(EVENT).encode() + b"\n\n"))
            await asyncio.sleep(GAP)
        writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def ours(url: str) -> int:
    """Chunks read through the backend that VeloLLM measures with."""
    backend = Server(url)

    async def one() -> int:
        return sum([1 async for _ in backend.stream(REQUEST)])

    try:
        return sum(await asyncio.gather(*(one() for _ in range(STREAMS))))
    finally:
        await backend.close()


async def bare(url: str) -> int:
    """Chunks read with aiohttp's lines and `json.loads`, and nothing else."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one() -> int:
            count = 0
            async with session.post(f"{url}/v1/chat/completions", json={}) as response:
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        json.loads(line[6:])
                        count += 1
            return count

        return sum(await asyncio.gather(*(one() for _ in range(STREAMS))))


def cpu_seconds(read: Callable[[str], Awaitable[int]], url: str) -> float:
    """CPU seconds of this process for `CHUNKS` chunks."""

    async def run() -> int:
        return await read(url)

    start = time.process_time()
    count = asyncio.run(run())
    return (time.process_time() - start) * CHUNKS / count


def main() -> int:
    """Measure in turns, print a table, and fail above the bar."""
    server = subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        figures: dict[str, list[float]] = {"ours": [], "bare": []}
        for _ in range(ROUNDS):
            figures["ours"].append(cpu_seconds(ours, url))
            figures["bare"].append(cpu_seconds(bare, url))
    finally:
        server.kill()
        server.wait()
    middle = {name: statistics.median(values) for name, values in figures.items()}
    for name, values in figures.items():
        shown = ", ".join(f"{value:.2f}" for value in values)
        print(f"{name}: {middle[name]:.2f} CPU seconds for {CHUNKS} chunks of {STREAMS} streams ({shown})")
    print(f"ratio: {middle['ours'] / middle['bare']:.2f}; bar: {BAR:g} CPU seconds")
    return 0 if middle["ours"] <= BAR else 1


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


if __name__ == "__main__":
    sys.exit(asyncio.run(serve()) if sys.argv[1:] == ["serve"] else main())
