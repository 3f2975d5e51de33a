"""NAME for VeloLLM: a server that speaks OpenAI's interface, and says on /info who it is."""

from __future__ import annotations

from velollm_core.backends.openai import OpenAIBackend
from velollm_core.config import connection
from velollm_core.hookspecs import hookimpl

DEFAULT_URL = "http://127.0.0.1:3000"


class Server(OpenAIBackend):
    """Models, text, chat, token counts and every kind of failure come from `OpenAIBackend`."""

    name = "NAME"
    # Fields beyond OpenAI's that this server takes: ignore_eos, min_tokens, cache_prompt, top_k, min_p.
    extras = frozenset({"ignore_eos"})

    async def version(self) -> str:
        """Ask what only NAME answers: other servers may listen on its port."""
        page = await self.own_page("/info")
        if page.get("server") != "NAME":
            raise self.stranger()
        return str(page["version"])


@hookimpl
def detect() -> list[Server]:
    """Offer the server at the configured address, else at its usual one. No I/O here: the core asks its status."""
    where = connection("NAME")
    return [Server(where.url or DEFAULT_URL, where.api_key)]
