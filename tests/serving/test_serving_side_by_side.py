"""Several answers to one request: written together, held up by a slow reader, ended together."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web

from velollm_core.engine.sequence import Sequence
from velollm_core.engine.streams import EngineStopped, TokenBatch
from velollm_core.serving.answers import Piece, answer_all
from velollm_core.testing.letters import LetterModel

Serve = Callable[..., None]
ANSWERS = 4


class Fountain:
    """An engine that never lacks a token; ``given`` counts batches. The last sequence fails after ``fails_after``."""

    def __init__(self, fails_after: int | None = None) -> None:
        self.given: Counter[str] = Counter()
        self.open = 0
        self._fails_after = fails_after

    async def stream(self, sequence: Sequence, leader: Sequence | None = None) -> AsyncGenerator[TokenBatch, None]:
        assert leader is not None
        self.open += 1
        try:
            while True:
                if sequence.id == str(ANSWERS - 1) and self.given[sequence.id] == self._fails_after:
                    raise EngineStopped("it broke")
                self.given[sequence.id] += 1
                yield TokenBatch((7,))
                await asyncio.sleep(0)
        finally:
            self.open -= 1


def begin(engine: Fountain) -> AsyncGenerator[Piece, None]:
    sequences = [Sequence(str(number), [1]) for number in range(ANSWERS)]
    return answer_all(engine, [sequences], LetterModel())  # type: ignore[arg-type]


def test_a_reader_that_does_not_read_holds_all_answers_up() -> None:
    engine = Fountain()

    async def scenario() -> None:
        async with aclosing(begin(engine)) as pieces:
            await anext(pieces)
            for _ in range(500):
                await asyncio.sleep(0)
            assert 1 <= min(engine.given.values()) <= max(engine.given.values()) <= 3
            seen = Counter([(await anext(pieces)).index for _ in range(40 * ANSWERS)])
            assert min(seen.values()) > 20
        assert engine.open == 0

    asyncio.run(scenario())


def test_an_answer_that_fails_ends_all_after_what_came_before() -> None:
    engine = Fountain(fails_after=3)
    seen: list[Piece] = []

    async def scenario() -> None:
        async with aclosing(begin(engine)) as pieces:
            while True:
                seen.append(await anext(pieces))

    with pytest.raises(EngineStopped, match="it broke"):
        asyncio.run(scenario())
    assert sum(piece.index == ANSWERS - 1 for piece in seen) == 3
    assert engine.open == 0


def test_what_is_there_together_is_written_together(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = web.StreamResponse.write, list[bytes]()

    async def noted(self: web.StreamResponse, data: Any) -> None:
        written.append(data)
        await write(self, data)

    monkeypatch.setattr(web.StreamResponse, "write", noted)

    async def scenario(served: Any) -> None:
        body = {"prompt": "go", "max_tokens": 30, "n": ANSWERS, "stream": True}
        async with served.session.post(f"{served.url}/v1/completions", json=body) as response:
            whole = await response.read()
        assert b"".join(written) + b"data: [DONE]\n\n" == whole
        events = [data.count(b"data: ") for data in written]
        assert max(events) == ANSWERS
        assert len(events) < sum(events) / 2

    serve(scenario, pause=0.005)
