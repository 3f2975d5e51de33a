"""VeloLLM's own engine as a backend: in this version it can only say what it lacks."""

from __future__ import annotations

from collections.abc import AsyncIterator

from attrs import frozen

from velollm_core.backends.request import Chunk, Request
from velollm_core.backends.status import Status
from velollm_core.errors import BackendUnreachable
from velollm_core.hardware.gpu import Gpu
from velollm_core.hardware.machine import Hardware

NO_ENGINE = "its engine is not part of this version"
OLDEST_CAPABILITY = (8, 0)


@frozen
class CudaBackend:
    """The engine's place: `status` says whether this machine has a card for it, `stream` refuses."""

    hardware: Hardware
    name: str = "cuda"

    async def status(self) -> Status:
        """Never reachable in this version; the reason names the card that it would run on."""
        return Status(reachable=False, reason=f"{NO_ENGINE}; {_card(self.hardware.visible_gpus)}")

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Refuse: there is no engine yet.

        Raises:
            BackendUnreachable: always.
        """
        raise BackendUnreachable(f"cuda: cannot answer for '{request.model}': {NO_ENGINE}; use another --backend")
        yield Chunk()

    async def close(self) -> None:
        """Nothing is held."""


def _card(gpus: tuple[Gpu, ...]) -> str:
    card = next((gpu for gpu in gpus if gpu.vendor == "nvidia" and _capability(gpu) >= OLDEST_CAPABILITY), None)
    return f"the card for it is here: {card.name}" if card else "no NVIDIA card of compute capability 8.0 or newer here"


def _capability(gpu: Gpu) -> tuple[int, ...]:
    parts = (gpu.compute_capability or "0").split(".")
    return tuple(int(part) for part in parts if part.isdigit())
