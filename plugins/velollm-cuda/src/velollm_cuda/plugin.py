"""What velollm-cuda offers to the core's hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core.config import connection
from velollm_core.hookspecs import hookimpl
from velollm_cuda.backend import CudaBackend

if TYPE_CHECKING:
    from velollm_core.backends.backend import Backend
    from velollm_core.backends.setting import Plan
    from velollm_core.benchmark.workload import Workload
    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.spec import ModelSpec


@hookimpl
def detect(hardware: Hardware) -> list[Backend]:
    """Offer VeloLLM's own engine: at the configured URL, embedded where that is asked for, or where it listens."""
    where = connection("cuda")
    return [CudaBackend(hardware, where.url, where.api_key, binary=where.binary)]


@hookimpl
def optimize(backend: Backend, model: ModelSpec, hardware: Hardware, workload: Workload) -> Plan | None:
    """Plan how this engine should serve ``model``."""
    if not isinstance(backend, CudaBackend):
        return None
    from velollm_cuda.tuning import plan

    return plan(model, hardware, workload, backend.card)
