"""How a fake Ollama answers one prompt."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from velollm_core.testing import Reply, document
from velollm_ollama.testing.store import FakeLoaded, FakeModel
from velollm_ollama.version import CACHED_COUNT_SINCE, Version

BYTES_A_TOKEN: Final = 4
MOST_EQUAL: Final = 30
STAMP: Final = "2026-11-22T13:08:11.7Z"


class Refused(Exception):
    """The error that the server answers with, and its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def generate(
    body: Mapping[str, Any],
    model: FakeModel,
    entry: FakeLoaded,
    options: Mapping[str, Any],
    *,
    loaded: float,
    broken_after: int | None,
    version: Version,
) -> Reply:
    """The whole answer to ``body``, as one document or as a stream. ``loaded`` are the seconds its load took."""
    chat = "messages" in body
    prompt = "".join(str(message.get("content", "")) for message in body["messages"]) if chat else str(body["prompt"])
    tokens, cached = _prompt(prompt, entry, body)
    limit = int(options.get("num_predict", -1))
    if limit == 0:
        return Reply(delay=math.inf)
    words = [model.words[index % len(model.words)] for index in range(limit if limit > 0 else 10 * entry.context)]
    stopped = model.stops_after is not None and model.stops_after < len(words)
    words = words[: model.stops_after] if stopped else words
    endless = len(set(model.words)) == 1 and len(words) > MOST_EQUAL
    if endless:
        words = words[: MOST_EQUAL + 1]
    last = _last(tokens, cached, len(words) + stopped, loaded, version)
    last["done_reason"] = "stop" if stopped else "length"
    head = {"model": body["model"], "created_at": STAMP}
    if body.get("stream") is False:
        line = {**head, **_said("".join(words), chat=chat)} | ({"done": False} if endless else {"done": True, **last})
        return document(line)
    lines = [{**head, **_said(word, chat=chat), "done": False} for word in words]
    if broken_after is not None:
        lines = [*lines[:broken_after], {"error": "an error was encountered while running the model: unexpected EOF"}]
    elif not endless:
        lines.append({**head, **_said("", chat=chat), "done": True, **last})
    pieces = tuple(json.dumps(line).encode() + b"\n" for line in lines)
    return Reply(pieces, content_type="application/x-ndjson", delay=loaded)


def _prompt(prompt: str, entry: FakeLoaded, body: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens of the prompt and those in the cache; a prompt too long is cut to half the context without a word."""
    tokens = 1 + len(prompt.encode()) // BYTES_A_TOKEN
    if tokens >= entry.context:
        if body.get("truncate") is False:
            inner = {"code": 400, "message": f"request ({tokens} tokens) exceeds the available context size "
                     f"({entry.context} tokens), try increasing it", "type": "exceed_context_size_error"}  # fmt: skip
            raise Refused(json.dumps({"error": inner}), 400)
        tokens = entry.context // 2 + 2
    cached = tokens - 1 if prompt in entry.seen else 0
    entry.seen.add(prompt)
    return tokens, cached


def _last(tokens: int, cached: int, produced: int, loaded: float, version: Version) -> dict[str, Any]:
    """The counts of the last line; zeros are left out, and so is the cached count before 0.33.3."""
    counts = {
        "total_duration": 10_000_000 + int(loaded * 1e9),
        "load_duration": 700_000 + int(loaded * 1e9),
        "prompt_eval_count": tokens,
        "prompt_eval_duration": (tokens - cached) * 100_000,
        "eval_count": produced,
        "eval_duration": max(1000, (produced - 1) * 500_000),
    }
    if version.at_least(CACHED_COUNT_SINCE):
        counts["prompt_eval_cached_count"] = cached
    return {name: count for name, count in counts.items() if count}


def _said(words: str, *, chat: bool) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": words}} if chat else {"response": words}
