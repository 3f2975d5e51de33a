"""What velollm-cuda offers to the core's hooks."""

from __future__ import annotations

from velollm_core.backends.backend import Backend
from velollm_core.hardware.machine import Hardware
from velollm_core.hookspecs import hookimpl
from velollm_cuda.backend import CudaBackend


@hookimpl
def detect(hardware: Hardware) -> list[Backend]:
    """Offer VeloLLM's own engine."""
    return [CudaBackend(hardware)]
