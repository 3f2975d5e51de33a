"""One request, and every way it can end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from velollm_core.backends.request import Chunk, Request, SamplingParams, Usage
from velollm_core.backends.status import Status
from velollm_core.benchmark.exchange import exchange
from velollm_core.errors import BackendError

REQUEST = Request("m", "hello", sampling=SamplingParams(max_tokens=4))


class Script:
    """Streams what it is given; an exception among the chunks is raised."""

    name = "script"

    def __init__(self, *steps: Chunk | Exception) -> None:
        self.steps = steps
        self.closed = False

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        try:
            for step in self.steps:
                if isinstance(step, Exception):
                    raise step
                yield step
        finally:
            self.closed = True

    async def status(self) -> Status:
        return Status(reachable=True)

    async def close(self) -> None:
        """Nothing is open."""


def test_times_are_those_of_the_chunks(paced: Any, virtually: Any, loop_clock: Callable[[], float]) -> None:
    timing = virtually(exchange(paced(), REQUEST, loop_clock))
    assert timing.arrivals == pytest.approx((0.1, 0.12, 0.14, 0.16))
    assert timing.failure is None
    assert timing.completion_tokens == 4
    assert timing.finish_reason == "length"


def test_a_late_client_counts_from_the_intended_send(paced: Any, virtually: Any, loop_clock: Any) -> None:
    timing = virtually(exchange(paced(), REQUEST, loop_clock, intended=-0.5))
    assert (timing.intended, timing.sent) == (-0.5, 0)


def test_a_hung_stream_is_a_timeout(paced: Any, virtually: Any, loop_clock: Any) -> None:
    timing = virtually(exchange(paced(failures=[99.0]), REQUEST, loop_clock, limit=5))
    assert timing.failure.kind == "timeout"
    assert timing.ended == pytest.approx(5)
    assert len(timing.arrivals) == 1


def failure_of(virtually: Any, *steps: Chunk | Exception) -> str | None:
    backend = Script(*steps)
    timing = virtually(exchange(backend, REQUEST, lambda: 0.0))
    assert backend.closed
    return timing.failure.kind if timing.failure else None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BackendError("broke off", kind="disconnected"), "disconnected"),
        (BackendError("busy", status=429, kind="busy"), "http_429"),
        (BackendError("busy", status=503, kind="busy"), "http_503"),
        (ValueError("a plugin's own mistake"), "exception"),
    ],
)
def test_failures_by_kind(virtually: Any, error: Exception, kind: str) -> None:
    assert failure_of(virtually, Chunk("a"), error) == kind


def test_an_answer_without_text_is_empty(virtually: Any) -> None:
    assert failure_of(virtually, Chunk(usage=Usage(completion_tokens=4))) == "empty"
    assert failure_of(virtually) == "empty"


@pytest.mark.parametrize(("counted", "kind"), [(4, None), (3, None), (5, "miscounted"), (0, None), (None, None)])
def test_counts_that_cannot_be(virtually: Any, counted: int | None, kind: str | None) -> None:
    assert failure_of(virtually, Chunk("a"), Chunk("b"), Chunk(usage=Usage(completion_tokens=counted))) == kind


def test_fewer_tokens_than_chunks_cannot_be(virtually: Any) -> None:
    chunks = [Chunk("a") for _ in range(20)]
    assert failure_of(virtually, *chunks, Chunk(usage=Usage(completion_tokens=2))) == "miscounted"


def test_reasoning_is_the_first_token_but_not_the_first_output(virtually: Any) -> None:
    times = iter([0.0, 1.0, 2.0, 3.0])
    timing = virtually(exchange(Script(Chunk(reasoning="hm"), Chunk("yes")), REQUEST, lambda: next(times)))
    assert (timing.first, timing.first_output) == (1.0, 2.0)


def test_chunks_are_counted_only_where_all_are(virtually: Any) -> None:
    whole = virtually(exchange(Script(Chunk("a", num_tokens=2), Chunk("b", num_tokens=1)), REQUEST, lambda: 0.0))
    partly = virtually(exchange(Script(Chunk("a", num_tokens=2), Chunk("b")), REQUEST, lambda: 0.0))
    assert (whole.chunk_tokens, whole.completion_tokens) == ((2, 1), 3)
    assert (partly.chunk_tokens, partly.completion_tokens) == (None, None)


def test_velollm_raise_shows_a_plugins_mistake(virtually: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELOLLM_RAISE", "1")
    with pytest.raises(ValueError, match="mistake"):
        failure_of(virtually, ValueError("mistake"))


@pytest.mark.parametrize(
    ("usage", "kind"),
    [
        (Usage(prompt_tokens=9, cached_tokens=9), None),
        (Usage(prompt_tokens=9, cached_tokens=10), None),
        (Usage(prompt_tokens=-1), "miscounted"),
        (Usage(prompt_tokens=9, cached_tokens=-1), "miscounted"),
        (Usage(prompt_tokens=2000), None),
        (Usage(prompt_tokens=10**9), "miscounted"),
    ],
)
def test_prompts_that_cannot_be(virtually: Any, usage: Usage, kind: str | None) -> None:
    """The prompt is of five letters; what a server's own template adds is not known."""
    assert failure_of(virtually, Chunk("a"), Chunk(usage=usage)) == kind


def test_more_cached_than_there_is_gives_no_rate(virtually: Any) -> None:
    script = Script(Chunk("a"), Chunk(usage=Usage(prompt_tokens=9, cached_tokens=10)))
    assert virtually(exchange(script, REQUEST, lambda: 0.0)).uncached_tokens is None
