"""What a scripted server answers, faults included."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from attrs import evolve, field, frozen

End = Literal["whole", "close", "reset", "hang"]


@frozen
class Seen:
    """One request as the server saw it; ``path`` with its query, header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    written: list[float] = field(factory=list)
    """When each piece of the answer was handed to the socket: seconds of `time.monotonic`."""

    @property
    def document(self) -> dict[str, Any]:
        """The body as a JSON object."""
        value = json.loads(self.body)
        return value if isinstance(value, dict) else {}


@frozen
class Reply:
    """One answer. ``pieces`` are written one by one, ``gap`` seconds apart, ``delay`` seconds after the request.

    ``end`` says what follows the last piece: the transfer's own end, a closed or a reset connection, or silence.
    ``raw`` pieces go out as they are, without status line and headers.
    """

    pieces: tuple[bytes, ...] = ()
    status: int = 200
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0
    gap: float = 0.0
    end: End = "whole"
    raw: bool = False

    def cut(self, after: int, end: End = "close") -> Reply:
        """The same answer, but only its first ``after`` bytes, then ``end``: a server that dies at its work."""
        return evolve(self, pieces=(b"".join(self.pieces)[:after],), end=end)

    def in_pieces(self, size: int) -> Reply:
        """The same bytes, written ``size`` at a time, wherever that cuts a line or a character."""
        data = b"".join(self.pieces)
        return evolve(self, pieces=tuple(data[start : start + size] for start in range(0, len(data), size)))


Answer = Reply | Sequence[Reply] | Callable[[Seen], Reply]
"""One reply for all requests, one after another (the last repeats), or one made for each request."""


def document(value: object, status: int = 200) -> Reply:
    """A JSON document."""
    return Reply((json.dumps(value).encode(),), status)


def text(value: str, status: int = 200, content_type: str = "text/plain; charset=utf-8") -> Reply:
    """Plain text."""
    return Reply((value.encode(),), status, content_type)


def events(*values: object, done: bool = True, gap: float = 0.0) -> Reply:
    """A stream of server-sent events, one piece each; with ``done`` it ends in ``[DONE]``."""
    pieces = [b"data: " + json.dumps(value).encode() + b"\n\n" for value in values]
    return Reply((*pieces, b"data: [DONE]\n\n") if done else tuple(pieces), content_type="text/event-stream", gap=gap)


def json_lines(*values: object, gap: float = 0.0) -> Reply:
    """A stream of JSON documents, one a line and a piece."""
    pieces = tuple(json.dumps(value).encode() + b"\n" for value in values)
    return Reply(pieces, content_type="application/x-ndjson", gap=gap)


def silence() -> Reply:
    """No byte, ever; the connection stays open."""
    return Reply(delay=math.inf)


def openai_routes(
    model: str = "fake-1b", words: Sequence[str] = ("One", " chunk", " is not", " a token"), tokens: int = 7
) -> dict[str, Answer]:
    """A server that lists ``model`` and answers text and chat with ``words``, counted as ``tokens`` tokens.

    ``max_tokens`` of a request cuts both.
    """

    def completion(seen: Seen) -> Reply:
        choices: list[dict[str, object]] = [{"text": word} for word in _cut(words, seen)]
        return _completion([*choices, {"text": "", "finish_reason": "length"}], seen, tokens)

    def chat(seen: Seen) -> Reply:
        choices: list[dict[str, object]] = [{"delta": {"content": word}} for word in _cut(words, seen)]
        role: dict[str, object] = {"delta": {"role": "assistant", "content": ""}}
        return _completion([role, *choices, {"delta": {}, "finish_reason": "length"}], seen, tokens)

    return {
        "GET /v1/models": document({"object": "list", "data": [{"id": model, "object": "model"}]}),
        "POST /v1/completions": completion,
        "POST /v1/chat/completions": chat,
    }


def _cut(words: Sequence[str], seen: Seen) -> Sequence[str]:
    return words[: int(seen.document.get("max_tokens", len(words)))]


def _completion(choices: list[dict[str, object]], seen: Seen, tokens: int) -> Reply:
    count = min(tokens, int(seen.document.get("max_tokens", tokens)))
    usage = {"prompt_tokens": 5, "completion_tokens": count, "total_tokens": 5 + count}
    return events(*({"choices": [choice]} for choice in choices), {"choices": [], "usage": usage})
