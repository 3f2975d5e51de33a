"""Ollama's hooks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from velollm_core.config import connection
from velollm_core.hookspecs import hookimpl
from velollm_ollama.backend import OllamaBackend
from velollm_ollama.host import parse_host

if TYPE_CHECKING:
    from velollm_core.backends.backend import Backend
    from velollm_core.backends.setting import Plan
    from velollm_core.benchmark.workload import Workload
    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.spec import ModelSpec


@hookimpl
def detect() -> list[Backend]:
    """Offer the Ollama at the configured address, else at ``OLLAMA_HOST`` as Ollama's own client reads it."""
    where = connection("ollama")
    address = parse_host(os.environ.get("OLLAMA_HOST", "")).connectable
    return [OllamaBackend(where.url or address.url, where.api_key)]


@hookimpl
def optimize(backend: Backend, model: ModelSpec, hardware: Hardware, workload: Workload) -> Plan | None:
    """Plan for an Ollama from what `resolve` has learned of it; a model it was never asked for is planned unseen."""
    if not isinstance(backend, OllamaBackend):
        return None
    from velollm_ollama.facts import Facts
    from velollm_ollama.tuning import optimize as plan

    return plan(model, hardware, workload, backend.facts.get(model.name, Facts()))
