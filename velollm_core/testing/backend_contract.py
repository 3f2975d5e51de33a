"""What every backend over HTTP must do, and must survive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import pytest

from velollm_core.backends.backend import Backend
from velollm_core.backends.request import Chunk
from velollm_core.errors import BackendError
from velollm_core.testing.any_backend import AnyBackendContract, is_one_line, once, read
from velollm_core.testing.fake_server import FakeServer, unused_url
from velollm_core.testing.reply import Answer, Reply, document, silence, text

NO_STATUS: dict[str, Answer] = {
    "silence": silence(),
    "server error": document({"error": {"message": "out of\nmemory"}}, 500),
    "still loading": document({"error": {"message": "Loading model", "type": "unavailable_error"}}, 503),
    "wrong key": document({"error": "unauthorized"}, 401),
    "web page": text("<html>\n<body>It works!</body>\n</html>", content_type="text/html"),
    "empty": Reply(),
    "other JSON": document(["not", "what", "you", "asked"]),
    "wrong types": document({"data": 7, "models": "none", "version": []}),
    "redirect": Reply(status=302, headers=(("Location", "http://127.0.0.1:9/elsewhere"),)),
    "not HTTP": Reply((b"SSH-2.0-OpenSSH_9.2\r\n",), raw=True),
    "hangs up": Reply(raw=True),
    "half an answer": document({"data": [{"id": "model"}]}).cut(9),
    "reset": document({"data": [{"id": "model"}]}).cut(9, end="reset"),
}
BROKEN_STREAM: dict[str, Callable[[Reply], Reply]] = {
    "refused": lambda _: document({"error": {"message": "no such\nmodel", "code": 404}}, 404),
    "busy": lambda _: document({"error": "server busy"}, 503),
    "empty": lambda whole: whole.cut(0),
    "half a line": lambda whole: whole.cut(10),
    "before its end": lambda whole: whole.cut(sum(map(len, whole.pieces)) - max(len(whole.pieces[-1]), 9)),
    "reset": lambda whole: whole.cut(40, end="reset"),
    "malformed": lambda whole: Reply((b"data: {oops\n\n{oops\n",), content_type=whole.content_type),
    "not an object": lambda whole: Reply((b"data: 7\n\n",), content_type=whole.content_type),
    "an error inside": lambda whole: Reply(
        (b'data: {"error":{"code":500,"message":"out of memory"}}\n\n',), content_type=whole.content_type
    ),
    "never begins": lambda _: Reply(raw=True),
}


class BackendContract(AnyBackendContract):
    """Judge a backend by two attributes: ``backend`` makes one of a URL, ``routes`` is what its server answers.

    A class that takes a URL serves as ``backend``. `openai_routes` makes the routes of a server that speaks OpenAI's
    interface; recordings of the real one are better.
    """

    backend: ClassVar[Any]  # Callable[[str], Backend], which a type checker would take for a method
    routes: Mapping[str, Answer]

    @pytest.fixture
    def server(self) -> Iterator[FakeServer]:
        """The scripted server behind ``running``."""
        with FakeServer(self.routes) as server:
            yield server

    @pytest.fixture
    def running(self, server: FakeServer) -> Backend:
        """A backend whose server answers as ``routes`` say."""
        return self.make(server.url)

    @pytest.fixture
    def absent(self) -> Backend:
        """A backend at an address where nobody listens."""
        return self.make(unused_url())

    def make(self, url: str) -> Backend:
        """A backend for the server at ``url``."""
        backend: Backend = type(self).backend(url)
        return backend

    def test_every_cut_of_the_bytes_says_the_same(self, server: FakeServer, running: Backend) -> None:
        route, whole = self.stream_route(server, running)
        expected = said(once(running, lambda: read(running, self.request("any"))))
        for size in (1, 7, 64):
            server.routes[route] = whole.in_pieces(size)
            assert said(once(running, lambda: read(running, self.request("any")))) == expected

    @pytest.mark.parametrize("name", NO_STATUS)
    def test_a_strange_server_is_a_status(self, name: str) -> None:
        routes = dict.fromkeys([route for route in self.routes if route.startswith("GET ")], NO_STATUS[name])
        with FakeServer(routes) as server:
            backend = self.make(server.url)
            status = once(backend, backend.status)
        assert not status.reachable, f"{name} was taken for the server"
        assert is_one_line(status.reason)

    @pytest.mark.parametrize("name", BROKEN_STREAM)
    def test_a_broken_stream_is_a_backend_error(self, name: str, server: FakeServer, running: Backend) -> None:
        route, whole = self.stream_route(server, running)
        server.routes[route] = BROKEN_STREAM[name](whole)
        with pytest.raises(BackendError) as raised:
            once(running, lambda: read(running, self.request("any")))
        assert is_one_line(str(raised.value))

    def stream_route(self, server: FakeServer, backend: Backend) -> tuple[str, Reply]:
        """The route that answers a text prompt, and its whole answer."""
        once(backend, lambda: read(backend, self.request("any")))
        seen = server.requests[-1]
        route = f"{seen.method} {seen.path}"
        found: Any = self.routes[route]
        reply = found if isinstance(found, Reply) else found(seen) if callable(found) else found[0]
        assert isinstance(reply, Reply)
        return route, reply


def said(chunks: list[Chunk]) -> tuple[str, str, object]:
    """What a stream said, however it was cut into chunks."""
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    return "".join(chunk.text for chunk in chunks), "".join(chunk.reasoning for chunk in chunks), usages[-1:]
