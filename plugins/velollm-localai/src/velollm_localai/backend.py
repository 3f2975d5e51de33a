"""LocalAI over its OpenAI interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import evolve

from velollm_core.backends.http import Event
from velollm_core.backends.openai import OpenAIBackend, seconds
from velollm_core.backends.request import Message

if TYPE_CHECKING:
    from velollm_core.backends.request import Request, Usage

IDENTITY = "/.well-known/localai.json"


class LocalAIBackend(OpenAIBackend):
    """Every request goes through chat: LocalAI's text endpoint counts no tokens and hides its errors in the text.

    So a text prompt becomes one user message, and the model's chat template is applied to it. Times come in
    milliseconds with the usage, asked for by a header. LocalAI does not tell how many prompt tokens were cached.
    """

    name = "localai"
    headers: ClassVar[Mapping[str, str]] = {"Extra-Usage": "1"}
    extras = frozenset({"ignore_eos", "top_k", "min_p"})

    def path(self, request: Request) -> str:
        """Always the chat endpoint."""
        return "/v1/chat/completions"

    def payload(self, request: Request) -> dict[str, Any]:
        """The request as a chat."""
        messages = request.messages or (Message("user", request.prompt),)
        return super().payload(evolve(request, messages=messages))

    def usage(self, event: Event) -> Usage:
        """LocalAI's counts, and its own clock."""
        counts: Mapping[str, Any] = event.get("usage") or {}
        return evolve(
            super().usage(event),
            prefill_seconds=seconds(counts.get("timing_prompt_processing")),
            decode_seconds=seconds(counts.get("timing_token_generation")),
        )

    async def version(self) -> str | None:
        """The version, from the page that only LocalAI has; it also plays Ollama, and shares llama-server's port."""
        page = await self.own_page(IDENTITY)
        if "endpoint_groups" not in page:
            raise self.stranger()
        version = page.get("version")
        # "v4.9.0 (the commit's 40 digits)": the tag says enough.
        return version.split()[0] if isinstance(version, str) and version.strip() else None
