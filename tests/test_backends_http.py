"""The one HTTP client and stream loop: every way to fail is one clear line of a known kind, and nothing leaks."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest
from attrs import evolve

from velollm_core.backends.client import Timeouts
from velollm_core.backends.http import Event, HttpBackend
from velollm_core.backends.ndjson import JsonLines
from velollm_core.backends.request import Chunk, Request
from velollm_core.backends.status import Status
from velollm_core.errors import BackendError, BackendUnreachable
from velollm_core.testing import Answer, FakeServer, Reply, document, events, json_lines, silence, text

ROUTE = "POST /say"
WORDS = events({"say": "one"}, {"say": " two"}, {"say": "", "end": "stop"})
REQUEST = Request("m", "hello")


class Parrot(HttpBackend):
    """The least a backend can be."""

    name = "parrot"

    def path(self, request: Request) -> str:
        return "/say"

    def payload(self, request: Request) -> dict[str, Any]:
        return {"prompt": request.prompt}

    def chunk(self, event: Event) -> Chunk | None:
        return Chunk("" + event["say"], finish_reason=event.get("end")) if "say" in event else None

    async def look(self) -> Status:
        page = await self.client.read_json("GET", "/who")
        return Status(reachable=True, version=page["version"], location=self.url, running=True)


class LineParrot(Parrot):
    """The same, a document a line."""

    def framing(self) -> JsonLines:
        return JsonLines()


def use(backend: HttpBackend, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        try:
            async with asyncio.timeout(20):
                return await work()
        finally:
            await backend.close()

    return asyncio.run(run())


def say(backend: HttpBackend) -> str:
    async def read() -> str:
        return "".join([chunk.text async for chunk in backend.stream(REQUEST)])

    return str(use(backend, read))


def failure(answer: Answer, make: Callable[..., HttpBackend] = Parrot, **options: Any) -> BackendError:
    with FakeServer({ROUTE: answer}) as server, pytest.raises(BackendError) as raised:
        say(make(server.url, **options))
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    assert "parrot" in message
    return raised.value


def test_a_stream() -> None:
    with FakeServer({ROUTE: WORDS}) as server:
        assert say(Parrot(server.url)) == "one two"
        assert server.requests[0].document == {"prompt": "hello"}


@pytest.mark.parametrize(
    ("answer", "kind", "status", "says"),
    [
        (document({"error": {"message": "no model\nof that name"}}, 404), "not_found", 404, "no model of that name"),
        (document({"error": "slow\tdown"}, 429), "busy", 429, "slow down"),
        (document({"detail": "Not Found"}, 404), "not_found", 404, "Not Found"),
        (document({"message": "bad"}, 400), "request", 400, "bad"),
        (document({"error": {"code": 500}}, 500), "server", 500, '"code": 500'),
        (document("just text", 400), "request", 400, "just text"),
        (document(None, 503), "busy", 503, "HTTP 503"),
        (text("Internal Server Error\n", 500), "server", 500, "Internal Server Error"),
        (text("<html>\n502 Bad Gateway</html>", 502), "server", 502, "HTTP 502"),
        (text("", 500), "server", 500, "HTTP 500"),
        (document({"error": "unauthorized"}, 401), "auth", 401, "is the API key right?"),
        (Reply(status=302, headers=(("Location", "https://elsewhere/"),)), "error", 302, "give that URL"),
        (Reply((b"SSH-2.0\r\n",), raw=True), "malformed", None, "does not speak HTTP"),
        (Reply(raw=True), "disconnected", None, "without an answer"),
        (WORDS.cut(0), "truncated", None, "before its end"),
        (WORDS.cut(4), "truncated", None, "before its end"),
        (WORDS.cut(25), "truncated", None, "before its end"),
        (WORDS.cut(25, end="reset"), "truncated", None, "before its end"),
        (events({"say": "x"}, done=False), "truncated", None, "before its end"),
        (events({"say": "x", "end": "stop"}, done=False), "truncated", None, "before its end"),
        (events([1]), "malformed", None, "not understood: [1]"),
        (events({"say": 7}, {"say": None}), "malformed", None, "not understood"),
        (Reply((b"data: {oops\n\n",)), "malformed", None, "{oops"),
        (Reply((b"data: \xff\xfe\xfd\n\n",)), "malformed", None, "not understood"),
        (Reply((b"data: " + b"[" * 100_000 + b"\n\n",)), "malformed", None, "not understood"),
        (events({"error": {"message": "out of\nmemory", "code": 500}}), "server", 500, "out of memory"),
        (events({"error": "gone"}), "server", None, "gone"),
        (Reply((b'event: error\ndata: {"message": "went wrong"}\n\n',)), "server", None, "went wrong"),
        (document({"error": {"message": "no slot", "code": 503}}), "busy", 503, "no slot"),
        (document({"say": "all at once", "end": "stop"}), "truncated", None, "before its end"),
        (events({"error": {"message": "wait", "code": 503}}), "busy", 503, "wait"),
        (Reply((b"data: " + b"x" * (9 * 2**20),)), "malformed", None, "longer than"),
    ],
)
def test_every_failure_is_one_line_of_a_kind(answer: Answer, kind: str, status: int | None, says: str) -> None:
    error = failure(answer)
    assert (error.kind, error.status) == (kind, status)
    assert says in str(error)


def test_what_came_before_a_failure_is_given() -> None:
    async def read() -> list[str]:
        stream = backend.stream(REQUEST)
        said = [(await anext(stream)).text]
        with pytest.raises(BackendError):
            await anext(stream)
        return said

    with FakeServer({ROUTE: events({"say": "one"}, {"error": "gone"})}) as server:
        backend = Parrot(server.url)
        assert use(backend, read) == ["one"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (json_lines({"say": "x"}), "truncated"),
        (json_lines({"say": "x"}, {"say": "", "end": "stop"}).cut(20), "truncated"),
        (json_lines({"say": "x"}, {"error": "an error was encountered"}), "server"),
        (Reply((b"{oops\n",)), "malformed"),
    ],
)
def test_a_stream_without_a_marker_ends_with_a_reason(answer: Answer, kind: str) -> None:
    assert failure(answer, LineParrot).kind == kind
    with FakeServer({ROUTE: json_lines({"say": "x"}, {"say": "y", "end": "stop"})}) as server:
        assert say(LineParrot(server.url)) == "xy"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (silence(), BackendUnreachable),
        (evolve(WORDS, end="hang", pieces=()), BackendError),
        (evolve(WORDS, end="hang", pieces=WORDS.pieces[:1]), BackendError),
        (evolve(WORDS, gap=math.inf), BackendError),
    ],
)
def test_silence_ends(answer: Reply, expected: type[BackendError]) -> None:
    error = failure(answer, timeouts=Timeouts(first_byte=1.0, chunk=0.5))
    assert type(error) is expected
    assert error.kind == "timeout"
    assert "1 s" in str(error) or "0.5 s" in str(error)


def test_a_slow_reader_is_not_silence() -> None:
    async def read_slowly() -> list[str]:
        said = []
        async for chunk in backend.stream(REQUEST):
            await asyncio.sleep(0.3)
            said.append(chunk.text)
        return said

    with FakeServer({ROUTE: evolve(WORDS, gap=0.01)}) as server:
        backend = Parrot(server.url, timeouts=Timeouts(chunk=0.2))
        assert use(backend, read_slowly) == ["one", " two", ""]


def test_leaving_early_hangs_up() -> None:
    async def leave() -> str:
        async with aclosing(backend.stream(REQUEST)) as chunks:
            return (await anext(chunks)).text

    with FakeServer({ROUTE: evolve(WORDS, gap=math.inf)}) as server:
        backend = Parrot(server.url)
        assert use(backend, leave) == "one"
        assert eventually(lambda: server.hang_ups == 1)


def test_a_server_that_lingers_after_its_end_is_left() -> None:
    with FakeServer({ROUTE: evolve(WORDS, end="hang")}) as server:
        assert say(Parrot(server.url)) == "one two"


def test_a_look() -> None:
    with FakeServer({"GET /who": document({"version": "7"})}) as server:
        backend = Parrot(server.url)
        assert use(backend, backend.status) == Status(True, "7", location=server.url, running=True)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (silence(), "within 2 s"),
        (evolve(text("{"), end="hang"), "within 2 s"),
        (document({"error": "Loading model"}, 503), "HTTP 503: Loading model"),
        (document({}), "not understood"),
        (document([]), "not understood"),
        (text("hello"), "not JSON"),
        (document({"version": "7"}).cut(5), "broke off"),
        (Reply((b"[" * 100_000,)), "not JSON"),
        (Reply(raw=True), "closed the connection"),
    ],
)
def test_a_look_never_fails(answer: Answer, says: str) -> None:
    with FakeServer({"GET /who": answer}) as server:
        backend = Parrot(server.url)
        status = use(backend, backend.status)
    assert not status.reachable
    assert status.reason
    assert says in status.reason
    assert len(status.reason.splitlines()) == 1


def eventually(condition: Callable[[], bool]) -> bool:
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.01)
    return False
