"""VeloLLM's own engine as a backend: a server of its own that runs, or the engine inside this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, ClassVar

from velollm_core.backends.openai import OpenAIBackend
from velollm_core.backends.status import Status
from velollm_core.errors import BackendError, BackendUnreachable
from velollm_cuda.embedded import EmbeddedEngine

if TYPE_CHECKING:
    from velollm_core.backends.client import Timeouts
    from velollm_core.backends.request import Chunk, Request
    from velollm_core.backends.setting import Plan
    from velollm_core.hardware.gpu import Gpu
    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.spec import ModelSpec
    from velollm_cuda.options import EngineOptions

PORT = 8090
EMBEDDED = "embedded"
OWNER = "velollm-cuda"
OLDEST_CAPABILITY = (8, 0)
NO_TORCH = "torch is not installed; `pip install velollm[cuda]` brings it"


class CudaBackend(OpenAIBackend):
    """The engine behind ``velollm cuda serve``, or with ``binary="embedded"`` in this process.

    Embedded, a model is loaded when it is first asked for; without a card it runs on the CPU, by plain torch.
    """

    name = "cuda"
    extras = frozenset({"ignore_eos", "min_tokens", "cache_prompt", "top_k", "min_p"})
    suffixes: ClassVar[tuple[str, ...]] = (".sh",)

    def __init__(
        self,
        hardware: Hardware,
        url: str | None = None,
        api_key: str | None = None,
        timeouts: Timeouts | None = None,
        *,
        binary: str | None = None,
        model: str | None = None,
        options: EngineOptions | None = None,
    ) -> None:
        """Without ``url`` and ``binary`` the server is looked for where it listens by default.

        ``model`` is what an embedded engine offers before anything was asked of it.
        """
        super().__init__(url or f"http://127.0.0.1:{PORT}", api_key, timeouts)
        self.card = next((gpu for gpu in hardware.visible_gpus if serves(gpu)), None)
        self._only_url = url is not None
        self._binary = binary
        self._offered = model
        self._engine = EmbeddedEngine(options)

    @property
    def embedded(self) -> bool:
        """Whether requests are answered in this process."""
        return self._binary == EMBEDDED

    async def status(self) -> Status:
        """The server's, or the embedded engine's: its version and the card, or the CPU, that it runs on."""
        if self._binary not in (None, EMBEDDED):
            reason = f"--binary is {self._binary}, and this engine has no program: give `{EMBEDDED}`, or a URL"
            return Status(reachable=False, reason=reason, location=self._binary)
        if self.embedded:
            return self._look_inside()
        status = await super().status()
        if status.reachable or status.running or self._only_url:
            return status
        return Status(reachable=False, reason=f"{status.reason}; {self._advice()}", location=self.url)

    async def version(self) -> str | None:
        """Nothing of its own: the owner of its models says that the server is ours."""
        entries = await self.model_entries()
        if not any(entry.get("owned_by") == OWNER for entry in entries):
            raise self.stranger()
        return None

    async def stream(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Answer ``request``, here or there."""
        if self.embedded and _torch() is None:
            raise BackendUnreachable(f"{self.name}: {NO_TORCH}")
        chunks = self._engine.stream(request) if self.embedded else super().stream(request)
        async with aclosing(chunks) as open_chunks:
            async for chunk in open_chunks:
                yield chunk

    async def resolve(self, model: str) -> ModelSpec:
        """The shape of ``model``, a folder or a hub id: its configuration, and its weights where they are here.

        Raises:
            BackendError: it is neither.
        """
        from velollm_core.errors import ModelFileError
        from velollm_core.models.files import read_model
        from velollm_cuda.hub import find_model

        try:
            folder = await asyncio.to_thread(find_model, model, weights=False)
            return await asyncio.to_thread(read_model, folder)
        except ModelFileError as error:
            raise BackendError(f"{self.name}: {error}") from error

    def emit(self, plan: Plan, suffix: str) -> str:
        """``plan`` as a script that starts the server, see `velollm_cuda.tuning`."""
        from velollm_cuda.tuning import emit

        return emit(plan, suffix)

    async def close(self) -> None:
        """Close the connections, and give an embedded engine's memory back."""
        await asyncio.to_thread(self._engine.close)
        await super().close()

    def _look_inside(self) -> Status:
        torch = _torch()
        if torch is None:
            return Status(reachable=False, reason=NO_TORCH, location=EMBEDDED)
        offered = self._engine.model or self._offered
        models = (offered,) if offered else ()
        where = self.card.name if self.card else "the CPU, by plain torch: no NVIDIA card that it can use"
        said = f"{version('velollm-cuda')}, torch {torch} on {where}"
        return Status(reachable=True, version=said, models=models, location=EMBEDDED, running=bool(models))

    def _advice(self) -> str:
        if _torch() is None:
            return NO_TORCH
        where = f"on {self.card.name}" if self.card else "on the CPU, no NVIDIA card of compute capability 8.0 here"
        return f"`velollm cuda serve MODEL` starts it ({where}), --binary {EMBEDDED} does without a server"


def serves(gpu: Gpu) -> bool:
    """Whether the kernels run on ``gpu``."""
    parts = (gpu.compute_capability or "0").split(".")
    return gpu.vendor == "nvidia" and tuple(int(part) for part in parts if part.isdigit()) >= OLDEST_CAPABILITY


def _torch() -> str | None:
    """The version of torch that is installed; importing it would take seconds."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return None
