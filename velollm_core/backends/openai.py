"""Backends that speak OpenAI's HTTP interface."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from velollm_core.backends.http import Event, HttpBackend
from velollm_core.backends.request import Chunk, Usage
from velollm_core.backends.status import Status
from velollm_core.errors import BackendError, BackendUnreachable

if TYPE_CHECKING:
    from velollm_core.backends.request import Request


class OpenAIBackend(HttpBackend):
    """``/v1/models``, ``/v1/completions`` and ``/v1/chat/completions``.

    ``extras`` names the fields beyond OpenAI's that this server takes: of ``ignore_eos``, ``min_tokens``,
    ``cache_prompt``, ``top_k``, ``min_p``. Strict servers refuse what they do not know, so none is the default.
    """

    extras: ClassVar[frozenset[str]] = frozenset()

    def path(self, request: Request) -> str:
        """The chat endpoint where there are messages, else the one that takes text as it is."""
        return "/v1/chat/completions" if request.messages else "/v1/completions"

    def payload(self, request: Request) -> dict[str, Any]:
        """The request with every sampling value spelled out: a server's own defaults differ."""
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": request.model,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.messages:
            body["messages"] = [{"role": message.role, "content": message.content} for message in request.messages]
        else:
            body["prompt"] = request.prompt
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        extras = {
            "ignore_eos": sampling.ignore_eos,
            "min_tokens": sampling.min_tokens,
            "cache_prompt": request.cache_prompt,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
        }
        return body | {name: extras[name] for name in extras.keys() & self.extras}

    def chunk(self, event: Event) -> Chunk | None:
        """Text of a completion or of a chat's delta; usage comes last, in an event without choices.

        Text may be empty: a token that shows nothing, or only half a character, has been made all the same. What
        comes before the first token, a chat's role, is no chunk.
        """
        usage = self.usage(event) if event.get("usage") or event.get("timings") else None
        choices = event.get("choices")
        if not choices:
            return Chunk(usage=usage) if usage else None
        choice = choices[0]
        finish = _text(choice.get("finish_reason")) or None
        delta = choice.get("delta")
        if delta is None:
            return Chunk(_text(choice.get("text")), "", None, finish, usage)
        text, reasoning = delta.get("content"), delta.get("reasoning_content") or delta.get("reasoning")
        if "role" in delta and not (text or reasoning or finish or usage):
            return None
        return Chunk(_text(text), _text(reasoning), None, finish, usage)

    def usage(self, event: Event) -> Usage:
        """The server's counts; llama.cpp adds ``timings``, which carry its own clock."""
        counts: Mapping[str, Any] = event.get("usage") or {}
        timings: Mapping[str, Any] = event.get("timings") or {}
        details: Mapping[str, Any] = counts.get("prompt_tokens_details") or {}
        return Usage(
            prompt_tokens=_count(counts.get("prompt_tokens")),
            completion_tokens=_count(counts.get("completion_tokens", timings.get("predicted_n"))),
            cached_tokens=_count(details.get("cached_tokens", timings.get("cache_n"))),
            prefill_seconds=seconds(timings.get("prompt_ms")),
            decode_seconds=seconds(timings.get("predicted_ms")),
            draft_tokens=_count(timings.get("draft_n")),
            accepted_tokens=_count(timings.get("draft_n_accepted")),
        )

    async def look(self) -> Status:
        """The models and, where a subclass knows how to ask, the version; a server that refuses us is still running."""
        version = await self.version()
        try:
            models = await self.models()
        except BackendUnreachable:
            raise
        except BackendError as error:
            return Status(reachable=False, version=version, reason=str(error), location=self.url, running=True)
        return Status(reachable=True, version=version, models=models, location=self.url, running=True)

    async def version(self) -> str | None:
        """The server's version; a subclass also raises `BackendError` here where another server answers."""
        return None

    async def models(self) -> tuple[str, ...]:
        """The names that requests may use, in the server's order."""
        return tuple(entry["id"] for entry in await self.model_entries())

    async def model_entries(self) -> list[dict[str, Any]]:
        """The list of models as the server gives it; each entry has an ``id``."""
        document = await self.client.read_json("GET", "/v1/models")
        entries = document.get("data") if isinstance(document, dict) else None
        if not isinstance(entries, list):
            raise BackendError(f"{self.client} answers /v1/models without a list of models", kind="malformed")
        return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


def seconds(milliseconds: object) -> float | None:
    """Seconds of a figure in milliseconds; unknown stays unknown."""
    if milliseconds is None:
        return None
    if not isinstance(milliseconds, (int, float)) or not math.isfinite(milliseconds):
        raise TypeError("a time that is not a number")
    return milliseconds / 1000


def _count(value: object) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise TypeError("a count that is not a whole number")
    return value


def _text(value: object) -> str:
    if value is not None and not isinstance(value, str):
        raise TypeError("text that is not text")
    return value or ""
