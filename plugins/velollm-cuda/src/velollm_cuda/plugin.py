"""What velollm-cuda offers to the core's hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core.config import connection
from velollm_core.hookspecs import hookimpl
from velollm_cuda.backend import CudaBackend

if TYPE_CHECKING:
    from velollm_core.backends.backend import Backend
    from velollm_core.hardware.machine import Hardware


@hookimpl
def detect(hardware: Hardware) -> list[Backend]:
    """Offer VeloLLM's own engine: at the configured URL, embedded where that is asked for, or where it listens."""
    where = connection("cuda")
    return [CudaBackend(hardware, where.url, where.api_key, binary=where.binary)]
