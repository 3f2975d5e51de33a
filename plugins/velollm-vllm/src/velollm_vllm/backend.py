"""vLLM over its OpenAI interface."""

from __future__ import annotations

from velollm_core.backends.openai import OpenAIBackend
from velollm_core.errors import BackendError
from velollm_vllm.metrics import read_metrics


class VllmBackend(OpenAIBackend):
    """A vLLM server. It tells cached prompt tokens only when started with ``--enable-prompt-tokens-details``."""

    name = "vllm"
    extras = frozenset({"ignore_eos", "min_tokens", "top_k", "min_p"})

    async def version(self) -> str | None:
        """What ``/version`` says; other servers have that page too, so `models` looks at the owner."""
        page = await self.client.read_json("GET", "/version")
        version = page.get("version") if isinstance(page, dict) else None
        if not isinstance(version, str):
            raise self._stranger()
        return version

    async def models(self) -> tuple[str, ...]:
        """The served names, adapters included."""
        entries = await self.model_entries()
        if not any(entry.get("owned_by") == "vllm" for entry in entries):
            raise self._stranger()
        return tuple(entry["id"] for entry in entries)

    async def server_metrics(self) -> dict[str, float]:
        """vLLM's own counters and gauges from ``/metrics``, see `read_metrics`."""
        page = await self.client.read("GET", "/metrics")
        return read_metrics(page.decode(errors="replace"))

    def _stranger(self) -> BackendError:
        return BackendError(f"{self.url} answers, but it is not vLLM; set VELOLLM_VLLM_URL", kind="identity")
