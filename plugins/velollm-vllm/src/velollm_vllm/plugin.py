"""vLLM's hooks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from velollm_core.config import connection
from velollm_core.hookspecs import hookimpl
from velollm_vllm.backend import VllmBackend

if TYPE_CHECKING:
    from velollm_core.backends.backend import Backend

DEFAULT_URL = "http://127.0.0.1:8000"


@hookimpl
def detect() -> list[Backend]:
    """Offer the vLLM at the configured address, else at its own default one."""
    where = connection("vllm")
    return [VllmBackend(where.url or DEFAULT_URL, where.api_key or os.environ.get("VLLM_API_KEY"))]
