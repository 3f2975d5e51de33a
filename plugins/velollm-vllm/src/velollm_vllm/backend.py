"""vLLM over its OpenAI interface."""

from __future__ import annotations

from velollm_core.backends.openai import OpenAIBackend
from velollm_vllm.metrics import read_metrics


class VllmBackend(OpenAIBackend):
    """A vLLM server. It tells cached prompt tokens only when started with ``--enable-prompt-tokens-details``."""

    name = "vllm"
    extras = frozenset({"ignore_eos", "min_tokens", "top_k", "min_p"})

    async def version(self) -> str | None:
        """What ``/version`` says; other servers have that page too, so `models` looks at the owner."""
        version = (await self.own_page("/version")).get("version")
        if not isinstance(version, str):
            raise self.stranger()
        return version

    async def models(self) -> tuple[str, ...]:
        """The served names, adapters included."""
        entries = await self.model_entries()
        if not any(entry.get("owned_by") == "vllm" for entry in entries):
            raise self.stranger()
        return tuple(entry["id"] for entry in entries)

    async def server_metrics(self) -> dict[str, float]:
        """vLLM's own counters and gauges from ``/metrics``, see `read_metrics`."""
        page = await self.client.read("GET", "/metrics")
        return read_metrics(page.decode(errors="replace"))
