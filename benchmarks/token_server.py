"""VeloLLM's server over an engine that only hands out tokens: ``python token_server.py FOLDER [PROFILE]``.

It serves the model in FOLDER, whose answers are ``spoken.txt`` in its tokens, and prints its port. ``GET /expect`` says
how many streams the next steps wait for and how many seconds are between two; ``GET /report`` gives CPU seconds.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web
from velollm_cuda.detokenize import Detokenizer
from velollm_cuda.tokens import Tokenizer

from velollm_core.engine.streams import TokenBatch
from velollm_core.serving.app import make_app
from velollm_core.serving.service import Service

WARM_UP = 10
STRIDE = 37


class Model:
    """The model's way with text, as the server asks for it."""

    name = "model"
    stop_ids: frozenset[int] = frozenset()

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.load(folder)
        self.vocab_size = self._tokenizer.size
        self.spoken = self._tokenizer.encode((folder / "spoken.txt").read_text(encoding="utf-8"), special=False)

    def detokenizer(self) -> Detokenizer:
        """A fresh one, for one answer."""
        return self._tokenizer.detokenizer()


class Steps:
    """Stands in for `AsyncEngine`: each step gives every stream the next of ``spoken``, once the last were read."""

    failure = None

    def __init__(self, spoken: Sequence[int], profile: Path | None) -> None:
        self._spoken, self._profile = spoken, profile
        self._news: dict[str, asyncio.Event] = {}
        self._unread = self._wanted = 0
        self._gap = 0.0
        self._latest: dict[str, float] = {}
        self._steps: asyncio.Task[None] | None = None

    async def expect(self, request: web.Request) -> web.Response:
        """The next steps begin once so many streams are there."""
        self._wanted, self._gap = int(request.query["streams"]), float(request.query["gap"])
        return web.Response()

    async def report(self, _request: web.Request) -> web.Response:
        """CPU seconds so far; CPU and wall seconds, and tokens, of the last steps but for the first few."""
        return web.json_response({"cpu": time.process_time(), **self._latest})

    async def stream(self, sequence: Any, leader: Any = None) -> AsyncGenerator[TokenBatch, None]:
        """One token a step."""
        news = self._news[sequence.id] = asyncio.Event()
        place, count = len(self._news) * STRIDE, sequence.sampling.max_tokens
        if len(self._news) == self._wanted:
            self._steps = asyncio.create_task(self._run(count))
        for number in range(1, count + 1):
            await news.wait()
            news.clear()
            self._unread -= 1
            token = self._spoken[(place + number) % len(self._spoken)]
            yield TokenBatch((token,), "length" if number == count else None)

    async def _run(self, count: int) -> None:
        profiler = cProfile.Profile() if self._profile and count > WARM_UP else None
        begun = cpu = 0.0
        for number in range(count):
            if number == WARM_UP:
                begun, cpu = time.perf_counter(), time.process_time()
                if profiler:
                    profiler.enable()
            self._unread = len(self._news)
            for news in self._news.values():
                news.set()
            await asyncio.sleep(self._gap)
            while self._unread:
                await asyncio.sleep(0)
        if profiler:
            profiler.disable()
            profiler.dump_stats(str(self._profile))
        tokens = (count - WARM_UP) * self._wanted
        self._latest = {
            "step_cpu": time.process_time() - cpu, "seconds": time.perf_counter() - begun, "tokens": tokens,
        }  # fmt: skip
        self._news.clear()


async def serve(folder: Path, profile: Path | None) -> None:
    """Serve on a free port until the process is ended."""
    model = Model(folder)
    steps = Steps(model.spoken, profile)
    app = make_app(Service(steps, model, 1 << 20))  # type: ignore[arg-type]
    app.router.add_get("/expect", steps.expect)
    app.router.add_get("/report", steps.report)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    gc.collect()
    gc.freeze()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else None))
