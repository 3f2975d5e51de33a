"""A server with a known schedule that every load generator can read: ``python paced_server.py FIRST GAP CHUNKS``.

It prints its port, speaks OpenAI's text and chat completions as vLLM does, and writes the first chunk of an answer
FIRST seconds after the request has come, then one each GAP. ``GET /lateness`` tells how late those writes were, and
forgets them: what the server's own machine did to the schedule is no client's fault.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

MODEL = "mock"
LISTED = {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "vllm"}]}
PAGES: dict[str, object] = {"/version": {"version": "0.0"}, "/v1/models": LISTED, "/health": {}}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class Schedule:
    """FIRST, GAP and CHUNKS, and the seconds by which first and later writes came late."""

    def __init__(self, first: float, gap: float, chunks: int) -> None:
        self.first, self.gap, self.chunks = first, gap, chunks
        self.late: dict[str, list[float]] = {"first": [], "later": []}

    def lateness(self) -> dict[str, dict[str, float]]:
        """Medians and p99 since the last call."""
        told, self.late = self.late, {"first": [], "later": []}
        return {name: _figures(sorted(values)) for name, values in told.items() if values}


class Conversation(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin-1").lower().split("\r\n")
        length = next((int(line.partition(":")[2]) for line in lines if line.startswith("content-length:")), 0)
        if len(body) < length:
            return
        self._buffer = b""
        method, path, _ = first.split(" ", 2)
        if method == "post":
            self._answer(json.loads(body), path.endswith("/chat/completions"))
        else:
            self._page(path)

    def _page(self, path: str) -> None:
        page = self._schedule.lateness() if path == "/lateness" else PAGES.get(path, {})
        body = json.dumps(page).encode()
        self._write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )

    def _answer(self, asked: dict[str, Any], chat: bool) -> None:
        limit = asked.get("max_tokens") or asked.get("max_completion_tokens") or self._schedule.chunks
        count = min(int(limit), self._schedule.chunks)
        usage = {"prompt_tokens": _prompt_tokens(asked), "completion_tokens": count, "total_tokens": 0}
        usage["total_tokens"] = usage["prompt_tokens"] + count
        piece = {"delta": {"content": " tok"}} if chat else {"text": " tok"}
        end = {"delta": {}, "finish_reason": "length"} if chat else {"text": "", "finish_reason": "length"}
        told = _event([{"index": 0, **piece}])
        tail = _event([{"index": 0, **end}]) + _event([], usage=usage) + LAST
        self._write(HEAD)
        self._next(self._loop.time() + self._schedule.first, told, tail, count, "first")

    def _next(self, due: float, told: bytes, tail: bytes, left: int, which: str) -> None:
        self._loop.call_at(due, self._due, due, told, tail, left, which)

    def _due(self, due: float, told: bytes, tail: bytes, left: int, which: str) -> None:
        self._schedule.late[which].append(self._loop.time() - due)
        if left > 1:
            self._write(told)
            self._next(due + self._schedule.gap, told, tail, left - 1, "later")
        else:
            self._write(told + tail)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def serve(schedule: Schedule) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(lambda: Conversation(schedule), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _event(choices: list[object], **more: object) -> bytes:
    value = {
        "id": "cmpl-0f1e2d3c4b5a69788796a5b4c3d2e1f0",
        "object": "text_completion",
        "created": int(time.time()),
        "model": MODEL,
        "choices": choices,
        **more,
    }
    data = b"data: " + json.dumps(value).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def _prompt_tokens(asked: dict[str, Any]) -> int:
    return max(1, len(json.dumps(asked.get("prompt") or asked.get("messages") or "")) // 4)


def _figures(ordered: list[float]) -> dict[str, float]:
    return {"p50": ordered[len(ordered) // 2], "p99": ordered[int(0.99 * (len(ordered) - 1))]}


if __name__ == "__main__":
    asyncio.run(serve(Schedule(float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))))
