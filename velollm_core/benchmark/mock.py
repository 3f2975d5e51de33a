"""A server with a known schedule: ``python -m velollm_core.benchmark.mock FIRST GAP CHUNKS`` prints its port.

Every completion gets its first chunk after FIRST seconds and CHUNKS − 1 more, GAP seconds apart. The text of each
chunk is the moment at which it was handed to the socket and, behind a space, the one at which its request had come, on
the clock that all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress

MODEL = "mock"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


async def serve(first: float, gap: float, chunks: int) -> None:
    """Serve until killed, or until whoever started it has gone."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                length = next((line for line in lines if line.startswith(b"content-length:")), b":0")
                await reader.readexactly(int(length.partition(b":")[2]))
                await answer(writer, time.perf_counter())
        writer.close()

    async def answer(writer: asyncio.StreamWriter, came: float) -> None:
        due = came + first
        writer.write(HEAD)
        for _ in range(chunks):
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            due += gap
            writer.write(_event({"choices": [{"text": f"{time.perf_counter():.6f} {came:.6f}"}]}))
        usage = {"prompt_tokens": 1, "completion_tokens": chunks}
        writer.write(_event({"choices": [{"text": "", "finish_reason": "length"}], "usage": usage}))
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        await writer.drain()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Its standard input ends with the process that started it.
    await asyncio.to_thread(sys.stdin.read)


def _event(value: object) -> bytes:
    data = b"data: " + json.dumps(value).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
