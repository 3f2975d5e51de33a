"""llama.cpp's hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core.config import connection
from velollm_core.hookspecs import hookimpl
from velollm_llamacpp.backend import LlamaCppBackend

if TYPE_CHECKING:
    from velollm_core.backends.backend import Backend
    from velollm_core.backends.setting import Plan
    from velollm_core.benchmark.workload import Workload
    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.spec import ModelSpec


@hookimpl
def detect(hardware: Hardware) -> list[Backend]:
    """Offer llama.cpp: at the configured URL, by the configured binary, or whatever is here."""
    where = connection("llamacpp")
    return [LlamaCppBackend(where.url, where.api_key, binary=where.binary, gpus=bool(hardware.visible_gpus))]


@hookimpl
def optimize(backend: Backend, model: ModelSpec, hardware: Hardware, workload: Workload) -> Plan | None:
    """Plan how llama.cpp should load ``model``."""
    if not isinstance(backend, LlamaCppBackend):
        return None
    from velollm_llamacpp.tuning import plan

    # Only a build that was asked and denied it is taken for one without GPU support.
    return plan(model, hardware, workload, offloads=backend.offloads is not False)
